// Serials of store orders that were used, remembered until the orders expire, also over a restart.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { LevelStore } from '../lib/level-store.ts';
import { openLevel } from '../lib/open-level.ts';
import type { Store } from '../lib/store.ts';
import { MAX_CLOCK_SKEW_MS } from '../net/orders.ts';

const FORMAT_VERSION = 1;
// LevelDB's own files stay below the size of a shard, like all files of a host.
const WRITE_BUFFER_BYTES = 256 * 1024;
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_SERIALS = 1_000_000;
/** For so long after its order has expired a serial is kept: the order is good for one skew, and then this clock may be set from one end to the other. */
const KEEP_MS = 3 * MAX_CLOCK_SKEW_MS;
const SWEEP_INTERVAL_MS = 10 * 60_000;
const MAX_SWEEP_DELETES = 50_000;

/** Opens the store of used serials. Its LevelDB is also what locks the host's folder: HOME_LOCKED when another host uses it. */
export async function openSerialStore(dir: string): Promise<Store> {
  const db = await openLevel(dir, {
    formatVersion: FORMAT_VERSION,
    user: 'host',
    writeBufferBytes: WRITE_BUFFER_BYTES,
    maxFileBytes: MAX_FILE_BYTES,
  });
  return new LevelStore(db);
}

/** The used serials of one host. */
export class UsedSerials {
  readonly #store: Store;
  readonly #clock: Clock;
  /** Serials that are being written down; at most one for each transfer under way. */
  readonly #entering = new Set<string>();
  #count: number;
  #nextSweepMs = 0;

  private constructor(store: Store, clock: Clock, count: number) {
    this.#store = store;
    this.#clock = clock;
    this.#count = count;
  }

  /** Reads what is in the store, which close() closes. */
  static async open({ store, clock }: { readonly store: Store; readonly clock: Clock }): Promise<UsedSerials> {
    let count = 0;
    for await (const _pair of store.range({ from: FIRST, to: LAST })) count += 1;
    return new UsedSerials(store, clock, count);
  }

  /** Marks a serial as used; REFUSED when it was before. */
  async use(serial: Uint8Array, expiresMs: number): Promise<void> {
    const name = Buffer.from(serial).toString('hex');
    if (this.#entering.has(name)) throw usedUp();
    this.#entering.add(name);
    try {
      const key = Buffer.concat([FIRST, serial]);
      if (await this.#store.get(key)) throw usedUp();
      await this.sweep();
      if (this.#count >= MAX_SERIALS) throw new XcoreError('REFUSED', 'this host got too many orders; try again later');
      const value = Buffer.alloc(8);
      value.writeBigUInt64BE(BigInt(Math.min(Number.MAX_SAFE_INTEGER, expiresMs + KEEP_MS)));
      await this.#store.batch([{ key, value }]);
      this.#count += 1;
    } finally {
      this.#entering.delete(name);
    }
  }

  /** Forgets serials of expired orders; does nothing when called again within ten minutes. */
  async sweep(): Promise<void> {
    const now = this.#clock.now();
    if (now < this.#nextSweepMs) return;
    this.#nextSweepMs = now + SWEEP_INTERVAL_MS;
    const expired: Uint8Array[] = [];
    for await (const [key, value] of this.#store.range({ from: FIRST, to: LAST })) {
      if (Buffer.from(value).readBigUInt64BE() < BigInt(now)) expired.push(key);
      if (expired.length >= MAX_SWEEP_DELETES) break;
    }
    await this.#store.batch(expired.map((key) => ({ key })));
    this.#count -= expired.length;
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

const FIRST = Buffer.from('s');
const LAST = Buffer.from('t');

function usedUp(): XcoreError {
  return new XcoreError('REFUSED', 'the order was used before');
}

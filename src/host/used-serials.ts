// Serials of store orders that were used, remembered until the orders expire, also over a restart.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { KeptRecords } from '../lib/kept-records.ts';
import { LevelStore } from '../lib/level-store.ts';
import type { Logger } from '../lib/log.ts';
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
const SWEEP_MS = 10 * 60_000;

/** Opens the store of used serials. Its LevelDB is also what locks the host's folder: HOME_LOCKED when another host uses it. */
export async function openSerialStore(dir: string, log?: Logger): Promise<Store> {
  const db = await openLevel(dir, {
    formatVersion: FORMAT_VERSION,
    user: 'host',
    writeBufferBytes: WRITE_BUFFER_BYTES,
    maxFileBytes: MAX_FILE_BYTES,
  });
  return new LevelStore(db, { dir, user: 'host', ...(log ? { log } : {}) });
}

/** The used serials of one host. */
export class UsedSerials {
  readonly #store: Store;
  /** Serials that are being written down; at most one for each transfer under way. */
  readonly #entering = new Set<string>();
  readonly #kept: KeptRecords;

  private constructor(store: Store, kept: KeptRecords) {
    this.#store = store;
    this.#kept = kept;
  }

  /** Reads what is in the store, which close() closes. */
  static async open({ store, clock }: { readonly store: Store; readonly clock: Clock }): Promise<UsedSerials> {
    const isOver = (value: Uint8Array, nowMs: number): boolean => Buffer.from(value).readBigUInt64BE() < BigInt(nowMs);
    const range = { from: FIRST, to: LAST };
    return new UsedSerials(store, await KeptRecords.open(store, clock, { range, sweepMs: SWEEP_MS, isOver }));
  }

  /** Marks a serial as used; REFUSED when it was before. */
  async use(serial: Uint8Array, expiresMs: number): Promise<void> {
    const name = Buffer.from(serial).toString('hex');
    if (this.#entering.has(name)) throw usedUp();
    this.#entering.add(name);
    try {
      const key = Buffer.concat([FIRST, serial]);
      if (await this.#store.get(key)) throw usedUp();
      await this.#kept.sweep();
      if (this.#kept.count >= MAX_SERIALS)
        throw new XcoreError('REFUSED', 'this host got too many orders; try again later');
      const value = Buffer.alloc(8);
      value.writeBigUInt64BE(BigInt(Math.min(Number.MAX_SAFE_INTEGER, expiresMs + KEEP_MS)));
      await this.#store.batch([{ key, value }]);
      this.#kept.added(1);
    } finally {
      this.#entering.delete(name);
    }
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

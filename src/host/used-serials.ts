// Serials of store orders that were used, remembered until the orders expire, also over a restart.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { openLevel } from '../lib/open-level.ts';
import type { BinaryLevel } from '../lib/open-level.ts';

const FORMAT_VERSION = 1;
// LevelDB's own files stay below the size of a shard, like all files of a host.
const WRITE_BUFFER_BYTES = 256 * 1024;
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_SERIALS = 1_000_000;
const SWEEP_INTERVAL_MS = 10 * 60_000;
const MAX_SWEEP_DELETES = 50_000;

/** The used serials of one host. Its LevelDB is also what locks the host's folder. */
export class UsedSerials {
  readonly #db: BinaryLevel;
  readonly #clock: Clock;
  /** Serials that are being written down; at most one for each transfer under way. */
  readonly #entering = new Set<string>();
  #count: number;
  #nextSweepMs = 0;

  private constructor(db: BinaryLevel, clock: Clock, count: number) {
    this.#db = db;
    this.#clock = clock;
    this.#count = count;
  }

  /** Opens the folder; HOME_LOCKED when another host uses it. */
  static async open(dir: string, components: { readonly clock: Clock }): Promise<UsedSerials> {
    const db = await openLevel(dir, {
      formatVersion: FORMAT_VERSION,
      user: 'host',
      writeBufferBytes: WRITE_BUFFER_BYTES,
      maxFileBytes: MAX_FILE_BYTES,
    });
    let count = 0;
    for await (const _key of db.keys({ gte: FIRST, lt: LAST })) count += 1;
    return new UsedSerials(db, components.clock, count);
  }

  /** Marks a serial as used; REFUSED when it was before. */
  async use(serial: Uint8Array, expiresMs: number): Promise<void> {
    const name = Buffer.from(serial).toString('hex');
    if (this.#entering.has(name)) throw usedUp();
    this.#entering.add(name);
    try {
      const key = Buffer.concat([FIRST, serial]);
      if (await this.#db.get(key)) throw usedUp();
      await this.sweep();
      if (this.#count >= MAX_SERIALS) throw new XcoreError('REFUSED', 'this host got too many orders; try again later');
      const value = Buffer.alloc(8);
      value.writeBigUInt64BE(BigInt(expiresMs));
      await this.#db.put(key, value);
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
    for await (const [key, value] of this.#db.iterator({ gte: FIRST, lt: LAST })) {
      if (Buffer.from(value).readBigUInt64BE() < BigInt(now)) expired.push(key);
      if (expired.length >= MAX_SWEEP_DELETES) break;
    }
    await this.#db.batch(expired.map((key) => ({ type: 'del', key })));
    this.#count -= expired.length;
  }

  close(): Promise<void> {
    return this.#db.close();
  }
}

const FIRST = Buffer.from('s');
const LAST = Buffer.from('t');

function usedUp(): XcoreError {
  return new XcoreError('REFUSED', 'the order was used before');
}

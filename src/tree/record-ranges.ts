// Committed records in the order of their keys, as they lie in an index.

import type { Sealer } from '../crypto/sealer.ts';
import { ALL_KEYS, decodeNumber, keyRange } from './keys.ts';
import type { StoreSnapshot } from './index-database.ts';
import { decodeRecord } from './record-codec.ts';
import type { TreeRecord } from './records.ts';
import type { TalliedIndex } from './tallied-index.ts';

/** Where a range begins, if not at its first key, and of when its records are, if not of now. */
export interface RangeOptions {
  readonly from?: Buffer;
  readonly snapshot?: StoreSnapshot;
}

/** A record as a scan finds it; one that cannot be opened has the reason and no value. */
export interface ScannedRecord {
  readonly key: string;
  readonly value: Buffer | null;
  readonly stamp: bigint;
  readonly error?: unknown;
}

/** Reads ranges of one index. */
export class RecordRanges {
  readonly #index: TalliedIndex;
  readonly #sealer: Sealer;

  constructor(index: TalliedIndex, sealer: Sealer) {
    this.#index = index;
    this.#sealer = sealer;
  }

  /** Records whose keys begin with `prefix`, in lists. */
  async *lists(prefix: string, options: RangeOptions): AsyncGenerator<{ key: string; record: TreeRecord }[]> {
    for await (const entries of this.#index.lists(rangeOf(prefix, options))) {
      yield entries.map(([bytes, sealed]) => {
        const key = bytes.toString('latin1');
        const value = this.#sealer.open(sealed, bytes);
        return { key, record: decodeRecord(key.charAt(0), value, key.length >= 9 ? decodeNumber(key, 1) : 0) };
      });
    }
  }

  /** Records whose keys begin with `prefix`. */
  async *range(prefix: string, options: RangeOptions): AsyncGenerator<{ key: string; record: TreeRecord }> {
    for await (const records of this.lists(prefix, options)) yield* records;
  }

  /** As range(), with the records' plaintext bytes. */
  async *plaintexts(prefix: string, options: RangeOptions): AsyncGenerator<{ key: string; value: Buffer }> {
    for await (const entries of this.#index.lists(rangeOf(prefix, options))) {
      for (const [key, value] of entries) yield { key: key.toString('latin1'), value: this.#sealer.open(value, key) };
    }
  }

  /** Every record of any kind. */
  async *scan(snapshot: StoreSnapshot): AsyncGenerator<ScannedRecord> {
    for await (const entries of this.#index.lists({ ...ALL_KEYS, snapshot })) {
      for (const [bytes, sealed] of entries) {
        const key = bytes.toString('latin1');
        try {
          const { bytes: value, stamp } = this.#sealer.openStamped(sealed, bytes);
          yield { key, value, stamp };
        } catch (error) {
          yield { key, value: null, stamp: 0n, error };
        }
      }
    }
  }
}

function rangeOf(prefix: string, { from, snapshot }: RangeOptions): Parameters<TalliedIndex['lists']>[0] {
  const { gte, lt } = keyRange(prefix);
  return { gte: from ?? gte, lt, ...(snapshot ? { snapshot } : {}) };
}

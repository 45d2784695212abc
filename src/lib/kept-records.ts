// Records of a store that are kept for a time: how many there are, and a sweep, now and then, of those whose time is over.

import type { Clock } from './clock.ts';
import type { Store, StoreRange } from './store.ts';

/** Removed by one sweep at most. */
const MAX_SWEEP_DELETES = 50_000;

/** Which records, and when they go. */
export interface KeptOptions {
  readonly range: StoreRange;
  /** Between two sweeps. */
  readonly sweepMs: number;
  /** Whether the time of a record with this value is over. */
  readonly isOver: (value: Uint8Array, nowMs: number) => boolean;
}

/** Counts the records of a range and removes those that are over. */
export class KeptRecords {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #options: KeptOptions;
  #count: number;
  #nextSweepMs = 0;

  private constructor(store: Store, clock: Clock, options: KeptOptions, count: number) {
    this.#store = store;
    this.#clock = clock;
    this.#options = options;
    this.#count = count;
  }

  /** Counts what is in the store. */
  static async open(store: Store, clock: Clock, options: KeptOptions): Promise<KeptRecords> {
    let count = 0;
    for await (const _pair of store.range(options.range)) count += 1;
    return new KeptRecords(store, clock, options, count);
  }

  /** Records there are, as far as was noted. */
  get count(): number {
    return this.#count;
  }

  /** Notes new records. */
  added(count: number): void {
    this.#count += count;
  }

  /** Removes what is over; does nothing when called again before the next sweep is due. */
  async sweep(): Promise<void> {
    const now = this.#clock.now();
    if (now < this.#nextSweepMs) return;
    this.#nextSweepMs = now + this.#options.sweepMs;
    const over: Uint8Array[] = [];
    const before = this.#count;
    let found = 0;
    for await (const [key, value] of this.#store.range(this.#options.range)) {
      found += 1;
      if (over.length < MAX_SWEEP_DELETES && this.#options.isOver(value, now)) over.push(key);
    }
    await this.#store.batch(over.map((key) => ({ key })));
    // What was noted meanwhile counts as well; what was noted twice does no longer.
    this.#count += found - before - over.length;
  }
}

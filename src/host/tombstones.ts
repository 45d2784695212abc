// The orders on which shards were deleted, kept for some weeks: what a host shows to a bridge that has forgotten its own
// order, as one does that was restored from a backup.

import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import { SignedSchema } from '../net/proto/wire_pb.ts';
import type { Signed } from '../net/proto/wire_pb.ts';

/** A tombstone is forgotten after so long. */
const KEEP_MS = 30 * 24 * 60 * 60_000;
/** Deletions beyond leave none. */
const MAX_TOMBSTONES = 500_000;
const SWEEP_INTERVAL_MS = 60 * 60_000;
const MAX_SWEEP_DELETES = 50_000;
const TIME_BYTES = 8;

const FIRST = Buffer.from('t');
const LAST = Buffer.from('u');

/** The tombstones of one host, in the store that its serials are in. */
export class Tombstones {
  readonly #store: Store;
  readonly #clock: Clock;
  #count: number;
  #nextSweepMs = 0;

  private constructor(store: Store, clock: Clock, count: number) {
    this.#store = store;
    this.#clock = clock;
    this.#count = count;
  }

  /** Reads what is in the store, which stays its owner's to close. */
  static async open({ store, clock }: { readonly store: Store; readonly clock: Clock }): Promise<Tombstones> {
    let count = 0;
    for await (const _pair of store.range({ from: FIRST, to: LAST })) count += 1;
    return new Tombstones(store, clock, count);
  }

  /** Keeps orders that were carried out, by shard; the newest of each. */
  async keep(orders: readonly { readonly shardId: Uint8Array; readonly signed: Signed }[]): Promise<void> {
    await this.#sweep();
    const time = Buffer.alloc(TIME_BYTES);
    time.writeBigUInt64BE(BigInt(this.#clock.now()));
    const writes: StoreWrite[] = [];
    for (const { shardId, signed } of orders.slice(0, Math.max(0, MAX_TOMBSTONES - this.#count))) {
      writes.push({ key: keyOf(shardId), value: Buffer.concat([time, toBinary(SignedSchema, signed)]) });
    }
    this.#count += writes.length;
    await this.#store.batch(writes);
  }

  /** The order on which a shard was deleted, or undefined. */
  async find(shardId: Uint8Array): Promise<Signed | undefined> {
    const value = await this.#store.get(keyOf(shardId));
    return value && fromBinary(SignedSchema, value.subarray(TIME_BYTES));
  }

  async #sweep(): Promise<void> {
    const now = this.#clock.now();
    if (now < this.#nextSweepMs) return;
    this.#nextSweepMs = now + SWEEP_INTERVAL_MS;
    const old: StoreWrite[] = [];
    let count = 0;
    for await (const [key, value] of this.#store.range({ from: FIRST, to: LAST })) {
      count += 1;
      const keptMs = Number(Buffer.from(value.buffer, value.byteOffset, TIME_BYTES).readBigUInt64BE());
      if (now - keptMs >= KEEP_MS && old.length < MAX_SWEEP_DELETES) old.push({ key });
    }
    await this.#store.batch(old);
    this.#count = count - old.length;
  }
}

function keyOf(shardId: Uint8Array): Uint8Array {
  return Buffer.concat([FIRST, shardId]);
}

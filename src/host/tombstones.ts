// The orders on which shards were deleted, kept for some weeks: what a host shows to a bridge that has forgotten its own
// order, as one does that was restored from a backup.

import { fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import { KeptRecords } from '../lib/kept-records.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import { SignedSchema } from '../net/proto/wire_pb.ts';
import type { Signed } from '../net/proto/wire_pb.ts';

/** A tombstone is forgotten after so long. */
const KEEP_MS = 30 * 24 * 60 * 60_000;
/** Deletions beyond leave none. */
const MAX_TOMBSTONES = 500_000;
const SWEEP_MS = 60 * 60_000;
const TIME_BYTES = 8;

const FIRST = Buffer.from('t');
const LAST = Buffer.from('u');

/** The tombstones of one host, in the store that its serials are in. */
export class Tombstones {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #kept: KeptRecords;

  private constructor(store: Store, clock: Clock, kept: KeptRecords) {
    this.#store = store;
    this.#clock = clock;
    this.#kept = kept;
  }

  /** Reads what is in the store, which stays its owner's to close. */
  static async open({ store, clock }: { readonly store: Store; readonly clock: Clock }): Promise<Tombstones> {
    const isOver = (value: Uint8Array, nowMs: number): boolean => nowMs - timeIn(value) >= KEEP_MS;
    const range = { from: FIRST, to: LAST };
    return new Tombstones(store, clock, await KeptRecords.open(store, clock, { range, sweepMs: SWEEP_MS, isOver }));
  }

  /** Keeps orders that were carried out, by shard; the newest of each. */
  async keep(orders: readonly { readonly shardId: Uint8Array; readonly signed: Signed }[]): Promise<void> {
    await this.#kept.sweep();
    const time = Buffer.alloc(TIME_BYTES);
    time.writeBigUInt64BE(BigInt(this.#clock.now()));
    const writes: StoreWrite[] = [];
    for (const { shardId, signed } of orders.slice(0, Math.max(0, MAX_TOMBSTONES - this.#kept.count))) {
      writes.push({ key: keyOf(shardId), value: Buffer.concat([time, toBinary(SignedSchema, signed)]) });
    }
    this.#kept.added(writes.length);
    await this.#store.batch(writes);
  }

  /** The order on which a shard was deleted, or undefined. */
  async find(shardId: Uint8Array): Promise<Signed | undefined> {
    const value = await this.#store.get(keyOf(shardId));
    return value && fromBinary(SignedSchema, value.subarray(TIME_BYTES));
  }
}

function timeIn(value: Uint8Array): number {
  return Number(Buffer.from(value.buffer, value.byteOffset, TIME_BYTES).readBigUInt64BE());
}

function keyOf(shardId: Uint8Array): Uint8Array {
  return Buffer.concat([FIRST, shardId]);
}

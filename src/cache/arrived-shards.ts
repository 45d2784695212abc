// The shards that came last from the network, or from their files for a sequential reader, as verified ciphertext in
// memory: who reads on as they come needs neither their files nor another check. The memory is shared with the thread that
// fetches or loads. Knows no keys and no network.

import type { Clock } from '../lib/clock.ts';
import { adviseHugePage } from '../lib/huge-page.ts';
import { LOAD_MEMORY_BYTES } from './shard-load.ts';

/** Shards in memory, 2 MiB each, with those that are on their way. */
export const ARRIVED_SHARDS = 12;
/** So long a shard keeps its memory from another one while nobody reads it. */
const ABANDONED_MS = 500;

interface Arrived {
  readonly bytes: Buffer;
  /** Read to the end: its reader needs it no more. */
  isSpent: boolean;
  /** When it came, or was read last. */
  usedMs: number;
}

/** Memory for shards that are fetched or loaded, and what is in it. */
export class ArrivedShards {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** By time of last use, oldest first. */
  readonly #shards = new Map<number, Arrived>();
  readonly #free: SharedArrayBuffer[] = [];
  #made = 0;

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /** Memory for one shard, until put() or give(); the shard used longest ago goes for it. Null when all is on its way. */
  take(): SharedArrayBuffer | null {
    const memory = this.#takeFree();
    if (memory !== null) return memory;
    const [oldest] = this.#shards.keys();
    if (oldest === undefined) return null;
    this.forget(oldest);
    return this.#free.pop() ?? null;
  }

  /** As take(), but no shard goes for it that a reader is still to come to: then null. */
  takeSpare(): SharedArrayBuffer | null {
    const memory = this.#takeFree();
    if (memory !== null) return memory;
    for (const [shard, arrived] of this.#shards) {
      if (!this.#isSpare(arrived)) continue;
      this.forget(shard);
      return this.#free.pop() ?? null;
    }
    return null;
  }

  /** Shards for which takeSpare() has memory. */
  get spare(): number {
    let spare = ARRIVED_SHARDS - this.#made + this.#free.length;
    for (const arrived of this.#shards.values()) if (this.#isSpare(arrived)) spare++;
    return spare;
  }

  #isSpare({ isSpent, usedMs }: Arrived): boolean {
    return isSpent || this.#clock.monotonicMs() - usedMs > ABANDONED_MS;
  }

  #takeFree(): SharedArrayBuffer | null {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#made === ARRIVED_SHARDS) return null;
    this.#made++;
    const memory = new SharedArrayBuffer(LOAD_MEMORY_BYTES);
    adviseHugePage(memory);
    return memory;
  }

  /** Takes memory back in which nothing is. */
  give(memory: SharedArrayBuffer): void {
    this.#free.push(memory);
  }

  /** Memory that was taken is not to be used any more. */
  lose(): void {
    this.#made--;
  }

  /** A shard is in its memory, verified, from `start` on; nobody writes there any more. */
  put(shard: number, memory: SharedArrayBuffer, start: number, sizeBytes: number): void {
    this.forget(shard);
    const bytes = Buffer.from(memory, start, sizeBytes);
    this.#shards.set(shard, { bytes, isSpent: false, usedMs: this.#clock.monotonicMs() });
  }

  has(shard: number): boolean {
    return this.#shards.has(shard);
  }

  /** The ciphertext of a shard from one place to another, lent until the event loop turns; undefined when it is not all here. */
  read(shard: number, from: number, to: number): Buffer | undefined {
    const arrived = this.#shards.get(shard);
    if (arrived === undefined || to > arrived.bytes.length) return undefined;
    this.#shards.delete(shard);
    this.#shards.set(shard, arrived);
    arrived.usedMs = this.#clock.monotonicMs();
    if (to === arrived.bytes.length) arrived.isSpent = true;
    return arrived.bytes.subarray(from, to);
  }

  forget(shard: number): void {
    const arrived = this.#shards.get(shard);
    if (arrived === undefined) return;
    this.#shards.delete(shard);
    this.#free.push(arrived.bytes.buffer as unknown as SharedArrayBuffer);
  }
}

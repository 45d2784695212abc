// The shards that came from the network last, as verified ciphertext in memory: who reads on as they come needs neither
// their files nor another check. The memory is shared with the thread that fetches. Knows no keys and no network.

import { MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';

/** Shards in memory, 2 MiB each, with those that are on their way. */
export const ARRIVED_SHARDS = 12;

/** Memory for shards that are fetched, and what is in it. */
export class ArrivedShards {
  /** By time of arrival, oldest first. */
  readonly #bytes = new Map<number, Buffer>();
  readonly #free: SharedArrayBuffer[] = [];
  #made = 0;

  /** Memory for one shard, until put() or give(); the shard that came first goes for it. Null when all is on its way. */
  take(): SharedArrayBuffer | null {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#made < ARRIVED_SHARDS) {
      this.#made++;
      return new SharedArrayBuffer(MAX_SHARD_SIZE_BYTES);
    }
    const [oldest] = this.#bytes.keys();
    if (oldest === undefined) return null;
    this.forget(oldest);
    return this.#free.pop() ?? null;
  }

  /** Takes memory back in which nothing is. */
  give(memory: SharedArrayBuffer): void {
    this.#free.push(memory);
  }

  /** A shard is in its memory, verified; nobody writes there any more. */
  put(shard: number, memory: SharedArrayBuffer, sizeBytes: number): void {
    this.forget(shard);
    this.#bytes.set(shard, Buffer.from(memory, 0, sizeBytes));
  }

  /** The ciphertext of a shard; lent until the event loop turns. */
  get(shard: number): Buffer | undefined {
    return this.#bytes.get(shard);
  }

  forget(shard: number): void {
    const bytes = this.#bytes.get(shard);
    if (bytes === undefined) return;
    this.#bytes.delete(shard);
    this.#free.push(bytes.buffer as unknown as SharedArrayBuffer);
  }
}

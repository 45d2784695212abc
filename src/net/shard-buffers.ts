// Memory for whole shards under way, used again: 2 MiB allocations that come and go leave a process
// several times as large as what it works with.

import { MAX_SHARD_BYTES } from './protocols.ts';

/** Buffers of MAX_SHARD_BYTES; `maxKept` of those that came back are kept. */
export class ShardBuffers {
  readonly #maxKept: number;
  readonly #free: Buffer[] = [];

  constructor(maxKept: number) {
    this.#maxKept = maxKept;
  }

  /** A buffer of MAX_SHARD_BYTES, of any content; the caller's until given back, or for ever. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(MAX_SHARD_BYTES);
  }

  /** Gives a buffer back, by any part of it. */
  give(part: Buffer): void {
    if (part.buffer.byteLength !== MAX_SHARD_BYTES) throw new RangeError('not a shard buffer');
    if (this.#free.length < this.#maxKept) this.#free.push(Buffer.from(part.buffer));
  }
}

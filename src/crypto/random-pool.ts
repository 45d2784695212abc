// Small random values without a system call each: takes them in turn from a buffer that is filled at once.

import { randomFillSync } from 'node:crypto';

const POOL_SIZE_BYTES = 4096;

/** Hands out cryptographically random bytes, each once. */
export class RandomPool {
  #pool: Buffer = Buffer.alloc(0);
  #used = 0;

  /** Returns sizeBytes (at most 4,096) fresh random bytes, which the caller owns. */
  take(sizeBytes: number): Buffer {
    if (!(sizeBytes >= 0 && sizeBytes <= POOL_SIZE_BYTES)) throw new RangeError(`${sizeBytes} random bytes asked for`);
    // A new buffer and not a refill: what was handed out belongs to its callers.
    if (this.#used + sizeBytes > this.#pool.length) {
      this.#pool = randomFillSync(Buffer.allocUnsafeSlow(POOL_SIZE_BYTES));
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += sizeBytes;
    return this.#pool.subarray(start, this.#used);
  }
}

// Reproducible randomness for tests: everything follows from a seed that the test prints.

import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';

/** A seed from XCORE_TEST_SEED, or a fresh one; print it. */
export function pickSeed(): string {
  return process.env['XCORE_TEST_SEED'] ?? randomBytes(6).toString('hex');
}

/** A stream of bytes and numbers that depends on the seed only. */
export class Random {
  readonly #cipher;

  constructor(seed: string) {
    const key = createHash('sha256').update(seed).digest();
    this.#cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  }

  /** The next `sizeBytes` bytes. */
  bytes(sizeBytes: number): Buffer {
    return this.#cipher.update(Buffer.alloc(sizeBytes));
  }

  /** An integer from 0 up to, not including, `end` (at most 2^32). */
  below(end: number): number {
    return Math.floor((this.bytes(4).readUInt32LE() / 2 ** 32) * end);
  }

  /** An integer from `start` up to, not including, `end`. */
  between(start: number, end: number): number {
    return start + this.below(end - start);
  }

  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    const item = list[this.below(list.length)];
    if (item === undefined) throw new RangeError('the list is empty');
    return item;
  }
}

/** Writes `sizeBytes` seeded bytes to `path` in 1 MiB writes; returns their SHA-256, hex. */
export function writeRandomFile(path: string, seed: string, sizeBytes: number): string {
  const random = new Random(seed);
  const hash = createHash('sha256');
  const fd = openSync(path, 'w');
  try {
    for (let done = 0; done < sizeBytes;) {
      const data = random.bytes(Math.min(1 << 20, sizeBytes - done));
      hash.update(data);
      for (let at = 0; at < data.length;) at += writeSync(fd, data, at);
      done += data.length;
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

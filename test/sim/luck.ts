// Luck that follows from a seed only, cheap enough to be asked for every message.

import { createHash } from 'node:crypto';

/** A stream of numbers (sfc32); streams with different names are independent of each other. */
export class Luck {
  readonly #seed: string;
  readonly #state: Uint32Array;

  constructor(seed: string) {
    this.#seed = seed;
    const hash = createHash('sha256').update(seed).digest();
    this.#state = Uint32Array.from([hash.readUInt32LE(0), hash.readUInt32LE(4), hash.readUInt32LE(8), 1]);
    for (let round = 0; round < 12; round += 1) this.next();
  }

  /** A stream of its own, so that what one part draws changes nothing for another. */
  fork(name: string): Luck {
    return new Luck(`${this.#seed}/${name}`);
  }

  /** In [0, 1). */
  readonly next = (): number => {
    const s = this.#state;
    const sum = (s[0]! + s[1]! + s[3]!) >>> 0;
    s[3] = s[3]! + 1;
    s[0] = s[1]! ^ (s[1]! >>> 9);
    s[1] = s[2]! + (s[2]! << 3);
    s[2] = ((s[2]! << 21) | (s[2]! >>> 11)) + sum;
    return sum / 2 ** 32;
  };

  readonly bytes = (sizeBytes: number): Buffer => {
    const bytes = Buffer.alloc(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 1) bytes[at] = this.next() * 256;
    return bytes;
  };

  /** Bytes that repeat what a few draws gave: for contents, of which only the difference matters. */
  content(sizeBytes: number): Buffer {
    return Buffer.alloc(sizeBytes, this.bytes(32));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** A number from `from` up to `to`. */
  between(from: number, to: number): number {
    return from + this.next() * (to - from);
  }

  /** An integer from 0 up to, not including, `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  /** One element of a list, undefined of an empty one. */
  pick<T>(list: readonly T[]): T | undefined {
    return list[this.below(list.length)];
  }
}

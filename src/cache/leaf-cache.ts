// Decrypted leaves in one block of memory that is allocated once: buffers that come and go would each be a matter
// for the garbage collector. Knows leaves by number only.

import { LEAF_SIZE_BYTES } from '../crypto/merkle.ts';

interface Place {
  readonly slot: number;
  readonly sizeBytes: number;
}

/** The leaves used last, as many as fit. */
export class LeafCache {
  readonly #memory: Buffer;
  readonly #slots: number;
  /** By time of last use, oldest first. */
  readonly #places = new Map<number, Place>();
  readonly #free: number[] = [];

  constructor(maxBytes: number) {
    this.#slots = Math.floor(maxBytes / LEAF_SIZE_BYTES);
    this.#memory = Buffer.allocUnsafeSlow(this.#slots * LEAF_SIZE_BYTES);
    for (let slot = this.#slots - 1; slot >= 0; slot--) this.#free.push(slot);
  }

  /** The bytes of a leaf, or null; they are only lent until the next call. */
  get(leaf: number): Buffer | null {
    const place = this.#places.get(leaf);
    if (place === undefined) return null;
    this.#places.delete(leaf);
    this.#places.set(leaf, place);
    return this.#bytes(place);
  }

  /** Memory for the bytes of a leaf, which the caller fills at once; the leaf used longest ago goes where none is left. */
  put(leaf: number, sizeBytes: number): Buffer {
    if (sizeBytes > LEAF_SIZE_BYTES) throw new RangeError(`leaf of ${sizeBytes} bytes`);
    this.delete(leaf);
    if (this.#free.length === 0) {
      const [oldest] = this.#places.keys();
      if (oldest !== undefined) this.delete(oldest);
    }
    const place = { slot: this.#free.pop() ?? 0, sizeBytes };
    this.#places.set(leaf, place);
    return this.#bytes(place);
  }

  delete(leaf: number): void {
    const place = this.#places.get(leaf);
    if (place === undefined) return;
    this.#places.delete(leaf);
    this.#free.push(place.slot);
  }

  clear(): void {
    for (const leaf of [...this.#places.keys()]) this.delete(leaf);
    this.#memory.fill(0);
  }

  #bytes({ slot, sizeBytes }: Place): Buffer {
    return this.#memory.subarray(slot * LEAF_SIZE_BYTES, slot * LEAF_SIZE_BYTES + sizeBytes);
  }
}

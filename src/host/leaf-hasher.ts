// Leaf hashes of a shard whose bytes arrive in parts of any size. Knows no files.

import { HASH_SIZE_BYTES, LEAF_SIZE_BYTES, leafCountOf, leafHash } from '../crypto/merkle.ts';
import { XcoreError } from '../lib/errors.ts';

/** Hashes leaves as their bytes arrive; PROTOCOL for more or fewer bytes than announced. */
export class LeafHasher {
  readonly #hashes: Buffer;
  readonly #leaf = Buffer.allocUnsafe(LEAF_SIZE_BYTES);
  readonly #sizeBytes: number;
  #receivedBytes = 0;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.#hashes = Buffer.allocUnsafe(leafCountOf(sizeBytes) * HASH_SIZE_BYTES);
  }

  /** Takes the next bytes.  */
  add(part: Uint8Array): void {
    if (this.#receivedBytes + part.length > this.#sizeBytes)
      throw new XcoreError('PROTOCOL', 'more bytes than announced');
    for (let at = 0; at < part.length;) {
      const inLeaf = this.#receivedBytes % LEAF_SIZE_BYTES;
      const taken = part.subarray(at, at + LEAF_SIZE_BYTES - inLeaf);
      this.#receivedBytes += taken.length;
      at += taken.length;
      if (taken.length === LEAF_SIZE_BYTES) {
        this.#close(taken);
        continue;
      }
      this.#leaf.set(taken, inLeaf);
      if (this.#receivedBytes % LEAF_SIZE_BYTES === 0) this.#close(this.#leaf);
    }
  }

  /** The hashes, 32 bytes for each leaf, once all bytes were taken. */
  finish(): Buffer {
    if (this.#receivedBytes !== this.#sizeBytes) throw new XcoreError('PROTOCOL', 'fewer bytes than announced');
    const rest = this.#sizeBytes % LEAF_SIZE_BYTES;
    if (rest > 0) this.#close(this.#leaf.subarray(0, rest));
    return this.#hashes;
  }

  #close(leaf: Uint8Array): void {
    const index = Math.ceil(this.#receivedBytes / LEAF_SIZE_BYTES) - 1;
    this.#hashes.set(leafHash(leaf), index * HASH_SIZE_BYTES);
  }
}

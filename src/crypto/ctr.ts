// AES-256-CTR of shard contents (NIST SP 800-38A §6.5): initial counter 0, so the counter block of
// byte `offset` is offset / 16 as a 128-bit big-endian number. Knows no files and no shards.

import { type Cipheriv, createCipheriv } from 'node:crypto';
import { secretKeyOf } from './secret-key.ts';

const CIPHER = 'aes-256-ctr';
const BLOCK_SIZE_BYTES = 16;
const SKIPPED = new Uint8Array(BLOCK_SIZE_BYTES);

/**
 * Encrypts a growing segment from offset 0 on, call by call. A key serves one stream ever: two
 * streams under one key give away the difference of their plaintexts.
 */
export class CtrStream {
  readonly #cipher: Cipheriv;

  /** key: 32 bytes, fresh. */
  constructor(key: Uint8Array) {
    this.#cipher = createCipheriv(CIPHER, secretKeyOf(key), new Uint8Array(BLOCK_SIZE_BYTES));
  }

  /** Returns the ciphertext, as long as data, of the bytes that follow all earlier calls. */
  encrypt(data: Uint8Array): Buffer {
    return this.#cipher.update(data);
  }
}

/**
 * Decrypts (or encrypts, which is the same) the bytes that stand at an offset, aligned or not.
 * key: 32 bytes; offset: bytes from the start of the shard, a safe integer from 0, else RangeError.
 */
export function ctrAt(key: Uint8Array, offset: number, data: Uint8Array): Buffer {
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`offset ${offset} in a shard`);
  const skip = offset % BLOCK_SIZE_BYTES;
  const counter = Buffer.alloc(BLOCK_SIZE_BYTES);
  const block = (offset - skip) / BLOCK_SIZE_BYTES;
  counter.writeUInt32BE(Math.floor(block / 2 ** 32), 8);
  counter.writeUInt32BE(block % 2 ** 32, 12);
  const cipher = createCipheriv(CIPHER, secretKeyOf(key), counter);
  if (skip > 0) cipher.update(SKIPPED.subarray(0, skip));
  return cipher.update(data);
}

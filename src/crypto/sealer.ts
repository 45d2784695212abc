// Sealed records: encrypt-then-MAC of small values (index values, log entries, the keystore).
// FORMAT.md, "Sealed record". Knows nothing of what it seals.

import { createCipheriv, createDecipheriv, createHmac, createSecretKey, timingSafeEqual } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { XcoreError } from '../lib/errors.ts';
import { KEY_SIZE_BYTES, subkey } from './hkdf.ts';
import { RandomPool } from './random-pool.ts';

const VERSION = 1;
const NONCE_SIZE_BYTES = 16;
const TAG_SIZE_BYTES = 16;
const HEADER_SIZE_BYTES = 1 + NONCE_SIZE_BYTES;

/** Bytes that a sealed record is longer than its plaintext: version, nonce and tag. */
export const SEAL_OVERHEAD_BYTES = HEADER_SIZE_BYTES + TAG_SIZE_BYTES;

/** Seals and opens records under one key; a record opens only with the associated data it was sealed with. */
export class Sealer {
  readonly #encryptionKey: KeyObject;
  readonly #macKey: KeyObject;
  readonly #random: (sizeBytes: number) => Uint8Array;
  readonly #lengthPrefix = Buffer.alloc(4);

  /** key: 32 bytes, else RangeError; random: source of nonces, the system's unless told. */
  constructor(key: Uint8Array, random?: (sizeBytes: number) => Buffer) {
    if (key.length !== KEY_SIZE_BYTES) throw new RangeError(`sealing key of ${key.length} bytes, 32 needed`);
    this.#encryptionKey = createSecretKey(subkey(key, 'xcore/seal/encrypt/1'));
    this.#macKey = createSecretKey(subkey(key, 'xcore/seal/authenticate/1'));
    const pool = new RandomPool();
    this.#random = random ?? ((sizeBytes) => pool.take(sizeBytes));
  }

  /** Returns version | nonce | ciphertext | tag, SEAL_OVERHEAD_BYTES longer than the plaintext; the caller owns it. */
  seal(plaintext: Uint8Array, associated: Uint8Array): Buffer {
    const nonce = this.#random(NONCE_SIZE_BYTES);
    if (nonce.length !== NONCE_SIZE_BYTES) throw new RangeError(`nonce of ${nonce.length} bytes, 16 needed`);
    const tagStart = HEADER_SIZE_BYTES + plaintext.length;
    const sealed = Buffer.allocUnsafe(tagStart + TAG_SIZE_BYTES);
    sealed[0] = VERSION;
    sealed.set(nonce, 1);
    // CTR holds nothing back, so final() would only return an empty buffer.
    sealed.set(createCipheriv('aes-256-ctr', this.#encryptionKey, nonce).update(plaintext), HEADER_SIZE_BYTES);
    this.#mac(associated, sealed.subarray(0, tagStart)).digest().copy(sealed, tagStart, 0, TAG_SIZE_BYTES);
    return sealed;
  }

  /**
   * Returns the plaintext of a sealed record. Throws CORRUPT_RECORD when key, associated data or any
   * byte is wrong, and BAD_FORMAT for a version this program does not know.
   */
  open(sealed: Uint8Array, associated: Uint8Array): Buffer {
    const version = sealed[0];
    if (version !== undefined && version !== VERSION) {
      throw new XcoreError('BAD_FORMAT', `sealed record has version ${version}, this program reads version ${VERSION}`);
    }
    const tagStart = sealed.length - TAG_SIZE_BYTES;
    if (tagStart < HEADER_SIZE_BYTES) {
      throw new XcoreError('CORRUPT_RECORD', `sealed record of ${sealed.length} bytes is cut off`);
    }
    const tag = this.#mac(associated, sealed.subarray(0, tagStart)).digest().subarray(0, TAG_SIZE_BYTES);
    if (!timingSafeEqual(tag, sealed.subarray(tagStart))) {
      throw new XcoreError('CORRUPT_RECORD', 'sealed record fails its check: altered, or sealed for another place');
    }
    return createDecipheriv('aes-256-ctr', this.#encryptionKey, sealed.subarray(1, HEADER_SIZE_BYTES)).update(
      sealed.subarray(HEADER_SIZE_BYTES, tagStart),
    );
  }

  // The length first: without it, bytes could move between associated data and record.
  #mac(associated: Uint8Array, record: Uint8Array): ReturnType<typeof createHmac> {
    this.#lengthPrefix.writeUInt32BE(associated.length);
    return createHmac('sha256', this.#macKey).update(this.#lengthPrefix).update(associated).update(record);
  }
}

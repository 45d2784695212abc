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

/** A sealed record, and 8 bytes more of its MAC that lie nowhere: whoever lacks the key cannot foretell them. */
export interface Stamped {
  /** Sealed bytes from sealStamped(), the plaintext from openStamped(). */
  readonly bytes: Buffer;
  /** Bytes 16 to 23 of the MAC, as an unsigned number. */
  readonly stamp: bigint;
}

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
    return this.sealStamped(plaintext, associated).bytes;
  }

  /** As seal(), with the stamp of what it makes. */
  sealStamped(plaintext: Uint8Array, associated: Uint8Array): Stamped {
    const nonce = this.#random(NONCE_SIZE_BYTES);
    if (nonce.length !== NONCE_SIZE_BYTES) throw new RangeError(`nonce of ${nonce.length} bytes, 16 needed`);
    const tagStart = HEADER_SIZE_BYTES + plaintext.length;
    const sealed = Buffer.allocUnsafe(tagStart + TAG_SIZE_BYTES);
    sealed[0] = VERSION;
    sealed.set(nonce, 1);
    // CTR holds nothing back, so final() would only return an empty buffer.
    sealed.set(createCipheriv('aes-256-ctr', this.#encryptionKey, nonce).update(plaintext), HEADER_SIZE_BYTES);
    const mac = this.#mac(associated, sealed.subarray(0, tagStart)).digest();
    mac.copy(sealed, tagStart, 0, TAG_SIZE_BYTES);
    return { bytes: sealed, stamp: mac.readBigUInt64BE(TAG_SIZE_BYTES) };
  }

  /**
   * Returns the plaintext of a sealed record. Throws CORRUPT_RECORD when key, associated data or any
   * byte is wrong, and BAD_FORMAT for a version this program does not know.
   */
  open(sealed: Uint8Array, associated: Uint8Array): Buffer {
    return this.openStamped(sealed, associated).bytes;
  }

  /** As open(), with the stamp that sealStamped() gave. */
  openStamped(sealed: Uint8Array, associated: Uint8Array): Stamped {
    const version = sealed[0];
    if (version !== undefined && version !== VERSION) {
      throw new XcoreError('BAD_FORMAT', `sealed record has version ${version}, this program reads version ${VERSION}`);
    }
    const tagStart = sealed.length - TAG_SIZE_BYTES;
    if (tagStart < HEADER_SIZE_BYTES) {
      throw new XcoreError('CORRUPT_RECORD', `sealed record of ${sealed.length} bytes is cut off`);
    }
    const mac = this.#mac(associated, sealed.subarray(0, tagStart)).digest();
    if (!timingSafeEqual(mac.subarray(0, TAG_SIZE_BYTES), sealed.subarray(tagStart))) {
      throw new XcoreError('CORRUPT_RECORD', 'sealed record fails its check: altered, or sealed for another place');
    }
    const decipher = createDecipheriv('aes-256-ctr', this.#encryptionKey, sealed.subarray(1, HEADER_SIZE_BYTES));
    const bytes = decipher.update(sealed.subarray(HEADER_SIZE_BYTES, tagStart));
    return { bytes, stamp: mac.readBigUInt64BE(TAG_SIZE_BYTES) };
  }

  // The length first: without it, bytes could move between associated data and record.
  #mac(associated: Uint8Array, record: Uint8Array): ReturnType<typeof createHmac> {
    this.#lengthPrefix.writeUInt32BE(associated.length);
    return createHmac('sha256', this.#macKey).update(this.#lengthPrefix).update(associated).update(record);
  }
}

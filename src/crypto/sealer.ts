// Sealed records: encrypt-then-MAC of small values (index values, log entries, the keystore).
// FORMAT.md, "Sealed record". Knows nothing of what it seals.

import { createCipheriv, createDecipheriv, createHmac, createSecretKey, timingSafeEqual } from 'node:crypto';
import type { Cipheriv, KeyObject } from 'node:crypto';
import { XcoreError } from '../lib/errors.ts';
import { KEY_SIZE_BYTES, subkey } from './hkdf.ts';
import { RandomPool } from './random-pool.ts';

const VERSION = 1;
const NONCE_SIZE_BYTES = 16;
const TAG_SIZE_BYTES = 16;
const HEADER_SIZE_BYTES = 1 + NONCE_SIZE_BYTES;
const BLOCK_SIZE_BYTES = 16;
/** Records of up to this size share a cipher, and their MAC is taken in one go. */
const SMALL_SIZE_BYTES = 4_096;
/** Records that one cipher encrypts before another begins at a nonce of its own. */
const RECORDS_PER_CIPHER = 65_536;

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
  readonly #recordsPerCipher: number;
  /** Small records are put together here: to be encrypted, then to be authenticated. */
  readonly #scratch = Buffer.alloc(4 + 2 * SMALL_SIZE_BYTES);
  /** Of the records that follow one another in one stream of key bytes; `#nonce` is where the next one begins. */
  #cipher: Cipheriv | null = null;
  #cipherRecords = 0;
  readonly #nonce = Buffer.alloc(NONCE_SIZE_BYTES);

  /** key: 32 bytes, else RangeError; random: source of nonces, the system's unless told. */
  constructor(key: Uint8Array, random?: (sizeBytes: number) => Buffer) {
    if (key.length !== KEY_SIZE_BYTES) throw new RangeError(`sealing key of ${key.length} bytes, 32 needed`);
    this.#encryptionKey = createSecretKey(subkey(key, 'xcore/seal/encrypt/1'));
    this.#macKey = createSecretKey(subkey(key, 'xcore/seal/authenticate/1'));
    const pool = new RandomPool();
    this.#random = random ?? ((sizeBytes) => pool.take(sizeBytes));
    this.#recordsPerCipher = random === undefined ? RECORDS_PER_CIPHER : 1;
  }

  /** Returns version | nonce | ciphertext | tag, SEAL_OVERHEAD_BYTES longer than the plaintext; the caller owns it. */
  seal(plaintext: Uint8Array, associated: Uint8Array): Buffer {
    return this.sealStamped(plaintext, associated).bytes;
  }

  /** As seal(), with the stamp of what it makes. */
  sealStamped(plaintext: Uint8Array, associated: Uint8Array): Stamped {
    const tagStart = HEADER_SIZE_BYTES + plaintext.length;
    const sealed = Buffer.allocUnsafe(tagStart + TAG_SIZE_BYTES);
    sealed[0] = VERSION;
    if (plaintext.length <= SMALL_SIZE_BYTES) this.#encryptSmall(plaintext, sealed);
    else this.#encryptLarge(plaintext, sealed);
    const mac = this.#mac(associated, sealed.subarray(0, tagStart));
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
    const mac = this.#mac(associated, sealed.subarray(0, tagStart));
    if (!timingSafeEqual(mac.subarray(0, TAG_SIZE_BYTES), sealed.subarray(tagStart))) {
      throw new XcoreError('CORRUPT_RECORD', 'sealed record fails its check: altered, or sealed for another place');
    }
    const decipher = createDecipheriv('aes-256-ctr', this.#encryptionKey, sealed.subarray(1, HEADER_SIZE_BYTES));
    const bytes = decipher.update(sealed.subarray(HEADER_SIZE_BYTES, tagStart));
    return { bytes, stamp: mac.readBigUInt64BE(TAG_SIZE_BYTES) };
  }

  #freshNonce(): Uint8Array {
    const nonce = this.#random(NONCE_SIZE_BYTES);
    if (nonce.length !== NONCE_SIZE_BYTES) throw new RangeError(`nonce of ${nonce.length} bytes, 16 needed`);
    return nonce;
  }

  #encryptLarge(plaintext: Uint8Array, sealed: Buffer): void {
    const nonce = this.#freshNonce();
    sealed.set(nonce, 1);
    // CTR holds nothing back, so final() would only return an empty buffer.
    sealed.set(createCipheriv('aes-256-ctr', this.#encryptionKey, nonce).update(plaintext), HEADER_SIZE_BYTES);
  }

  /**
   * A cipher costs more to make than a small record to encrypt. So records follow one another in one
   * CTR stream, whole blocks each: the counter at which a record begins is its nonce, and no counter
   * occurs twice.
   */
  #encryptSmall(plaintext: Uint8Array, sealed: Buffer): void {
    if (this.#cipher === null || this.#cipherRecords >= this.#recordsPerCipher) {
      this.#nonce.set(this.#freshNonce());
      this.#cipher = createCipheriv('aes-256-ctr', this.#encryptionKey, this.#nonce);
      this.#cipherRecords = 0;
    }
    const blocks = Math.max(1, Math.ceil(plaintext.length / BLOCK_SIZE_BYTES));
    this.#scratch.set(plaintext);
    const encrypted = this.#cipher.update(this.#scratch.subarray(0, blocks * BLOCK_SIZE_BYTES));
    this.#nonce.copy(sealed, 1);
    encrypted.copy(sealed, HEADER_SIZE_BYTES, 0, plaintext.length);
    this.#cipherRecords++;
    let carry = blocks;
    for (let at = NONCE_SIZE_BYTES - 4; at >= 0 && carry > 0; at -= 4) {
      const sum = this.#nonce.readUInt32BE(at) + carry;
      this.#nonce.writeUInt32BE(sum >>> 0, at);
      carry = sum > 0xffff_ffff ? 1 : 0;
    }
  }

  // The length first: without it, bytes could move between associated data and record.
  #mac(associated: Uint8Array, record: Uint8Array): Buffer {
    const hmac = createHmac('sha256', this.#macKey);
    const recordStart = 4 + associated.length;
    this.#scratch.writeUInt32BE(associated.length);
    if (recordStart + record.length > this.#scratch.length) {
      return hmac.update(this.#scratch.subarray(0, 4)).update(associated).update(record).digest();
    }
    this.#scratch.set(associated, 4);
    this.#scratch.set(record, recordStart);
    return hmac.update(this.#scratch.subarray(0, recordStart + record.length)).digest();
  }
}

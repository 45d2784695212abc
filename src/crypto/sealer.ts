// Sealed records: encrypt-then-MAC of small values (index values, log entries, the keystore).
// FORMAT.md, "Sealed record". Knows nothing of what it seals.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { XcoreError } from '../lib/errors.ts';
import { ctrFrom } from './ctr.ts';
import { KEY_SIZE_BYTES, subkey } from './hkdf.ts';
import { hmacInto } from './hmac.ts';
import { RandomPool } from './random-pool.ts';
import { secretKeyOf } from './secret-key.ts';

const VERSION = 1;
const NONCE_SIZE_BYTES = 16;
const TAG_SIZE_BYTES = 16;
const HEADER_SIZE_BYTES = 1 + NONCE_SIZE_BYTES;
const BLOCK_SIZE_BYTES = 16;
/** Records of up to this size follow one another in one stream, and their MAC is taken in one go. */
const SMALL_SIZE_BYTES = 4_096;
/** Records of one stream before another begins at a nonce of its own. */
const RECORDS_PER_STREAM = 65_536;
const MAC_SIZE_BYTES = 32;

// Reused between calls: nothing here runs while another call is half-way.
const smallMac = Buffer.alloc(MAC_SIZE_BYTES);

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
  readonly #encryptionKey: Buffer;
  readonly #macKey: Buffer;
  readonly #random: (sizeBytes: number) => Uint8Array;
  readonly #recordsPerStream: number;
  /** Small records are put together here to be authenticated. */
  readonly #scratch = Buffer.alloc(4 + 2 * SMALL_SIZE_BYTES);
  /** Records that may still follow in the stream of key bytes; `#nonce` is where the next one begins. */
  #recordsLeft = 0;
  readonly #nonce = Buffer.alloc(NONCE_SIZE_BYTES);

  /** key: 32 bytes, else RangeError; random: source of nonces, the system's unless told. */
  constructor(key: Uint8Array, random?: (sizeBytes: number) => Uint8Array) {
    if (key.length !== KEY_SIZE_BYTES) throw new RangeError(`sealing key of ${key.length} bytes, 32 needed`);
    this.#encryptionKey = subkey(key, 'xcore/seal/encrypt/1');
    this.#macKey = subkey(key, 'xcore/seal/authenticate/1');
    const pool = new RandomPool();
    this.#random = random ?? ((sizeBytes) => pool.take(sizeBytes));
    this.#recordsPerStream = random === undefined ? RECORDS_PER_STREAM : 1;
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
    const bytes = Buffer.allocUnsafe(tagStart - HEADER_SIZE_BYTES);
    const ciphertext = sealed.subarray(HEADER_SIZE_BYTES, tagStart);
    ctrFrom(this.#encryptionKey, sealed.subarray(1, HEADER_SIZE_BYTES), ciphertext, bytes);
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
    ctrFrom(this.#encryptionKey, nonce, plaintext, sealed.subarray(HEADER_SIZE_BYTES));
  }

  /**
   * A nonce of its own costs a record as much as its encryption. So small records follow one another in
   * one CTR stream, whole blocks each: the counter at which a record begins is its nonce, and no counter
   * occurs twice.
   */
  #encryptSmall(plaintext: Uint8Array, sealed: Buffer): void {
    if (this.#recordsLeft === 0) {
      this.#nonce.set(this.#freshNonce());
      this.#recordsLeft = this.#recordsPerStream;
    }
    this.#recordsLeft--;
    this.#nonce.copy(sealed, 1);
    ctrFrom(this.#encryptionKey, this.#nonce, plaintext, sealed.subarray(HEADER_SIZE_BYTES));
    const blocks = Math.max(1, Math.ceil(plaintext.length / BLOCK_SIZE_BYTES));
    let carry = blocks;
    for (let at = NONCE_SIZE_BYTES - 4; at >= 0 && carry > 0; at -= 4) {
      const sum = this.#nonce.readUInt32BE(at) + carry;
      this.#nonce.writeUInt32BE(sum >>> 0, at);
      carry = sum > 0xffff_ffff ? 1 : 0;
    }
  }

  // The length first: without it, bytes could move between associated data and record.
  /** The MAC of a record; lent until the next call. */
  #mac(associated: Uint8Array, record: Uint8Array): Buffer {
    const recordStart = 4 + associated.length;
    const length = recordStart + record.length;
    this.#scratch.writeUInt32BE(associated.length);
    if (length > this.#scratch.length) {
      const hmac = createHmac('sha256', secretKeyOf(this.#macKey));
      return hmac.update(this.#scratch.subarray(0, 4)).update(associated).update(record).digest();
    }
    this.#scratch.set(associated, 4);
    this.#scratch.set(record, recordStart);
    hmacInto(this.#macKey, this.#scratch, length, smallMac);
    return smallMac;
  }
}

// AES-256-CTR of shard contents (NIST SP 800-38A §6.5): initial counter 0, so the counter block of
// byte `offset` is offset / 16 as a 128-bit big-endian number. Knows no files and no shards.

import { createCipheriv } from 'node:crypto';
import { KEY_SIZE_BYTES } from './hkdf.ts';
import { nativeCtr } from './native-ctr.ts';
import type { CtrCall } from './native-ctr.ts';
import { secretKeyOf } from './secret-key.ts';

const CIPHER = 'aes-256-ctr';
const BLOCK_SIZE_BYTES = 16;

/** The same by node:crypto. */
const slowCtr: CtrCall = (key, iv, data, target) => {
  target.set(createCipheriv(CIPHER, secretKeyOf(key), iv).update(data));
};

/** Encrypts or decrypts from any counter block on: key 32 bytes, the counter 16, `target` no shorter than the data. */
export const ctrFrom: CtrCall = nativeCtr() ?? slowCtr;

// Reused between calls: nothing here runs while another call is half-way.
const counter = Buffer.alloc(BLOCK_SIZE_BYTES);
const block = Buffer.alloc(BLOCK_SIZE_BYTES);

/**
 * Encrypts a growing segment from offset 0 on, call by call. A key serves one stream ever: two
 * streams under one key give away the difference of their plaintexts.
 */
export class CtrStream {
  readonly #key: Uint8Array;
  #offset = 0;

  /** key: 32 bytes, fresh. */
  constructor(key: Uint8Array) {
    checkKey(key);
    this.#key = key;
  }

  /** Returns the ciphertext, as long as data, of the bytes that follow all earlier calls. */
  encrypt(data: Uint8Array): Buffer {
    const target = Buffer.allocUnsafeSlow(data.length);
    this.encryptInto(data, target);
    return target;
  }

  /** As encrypt(), into the first bytes of `target`. */
  encryptInto(data: Uint8Array, target: Uint8Array): void {
    ctrInto(this.#key, this.#offset, data, target);
    this.#offset += data.length;
  }
}

/**
 * Decrypts (or encrypts, which is the same) the bytes that stand at an offset, aligned or not.
 * key: 32 bytes; offset: bytes from the start of the shard, a safe integer from 0, else RangeError.
 */
export function ctrAt(key: Uint8Array, offset: number, data: Uint8Array): Buffer {
  const target = Buffer.allocUnsafeSlow(data.length);
  ctrInto(key, offset, data, target);
  return target;
}

/** As ctrAt(), into the first bytes of `target`; RangeError where they are too few. */
export function ctrInto(key: Uint8Array, offset: number, data: Uint8Array, target: Uint8Array): void {
  checkKey(key);
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError(`offset ${offset} in a shard`);
  if (target.length < data.length) throw new RangeError(`${data.length} bytes into ${target.length}`);
  const skip = offset % BLOCK_SIZE_BYTES;
  const head = skip === 0 ? 0 : Math.min(BLOCK_SIZE_BYTES - skip, data.length);
  if (head > 0) {
    // the block in which the bytes begin, with zeros where others are
    block.fill(0);
    block.set(data.subarray(0, head), skip);
    setCounter(offset - skip);
    ctrFrom(key, counter, block, block);
    target.set(block.subarray(skip, skip + head));
    block.fill(0);
  }
  if (head === data.length) return;
  setCounter(offset + head);
  ctrFrom(key, counter, head === 0 ? data : data.subarray(head), head === 0 ? target : target.subarray(head));
}

function setCounter(offset: number): void {
  const number = offset / BLOCK_SIZE_BYTES;
  counter.writeUInt32BE(Math.floor(number / 2 ** 32), 8);
  counter.writeUInt32BE(number % 2 ** 32, 12);
}

function checkKey(key: Uint8Array): void {
  if (key.length !== KEY_SIZE_BYTES) throw new RangeError(`key of ${key.length} bytes, ${KEY_SIZE_BYTES} needed`);
}

// Length-prefixed frames: an unsigned LEB128 length, then so many bytes. Knows nothing of what is inside.

import { XcoreError } from '../lib/errors.ts';

/** Longest prefix of a frame. */
export const MAX_PREFIX_BYTES = 4;
/** Bytes that come in less are gathered: who sends them one by one must not make us keep an object for each. */
const MIN_PART_BYTES = 1024;
const GATHERED_BYTES = 4 * 1024;
/** Frames up to this length are copied into and out of the network's buffers. */
export const MAX_COPIED_BYTES = 64 * 1024;

/** One frame, ready to be sent; empty ones do not exist. */
export function encodeFrame(payload: Uint8Array): Buffer {
  return Buffer.concat([encodePrefix(payload.length), payload]);
}

/** What stands before a frame of this length; RangeError for none and for one that is too long. */
export function encodePrefix(length: number): Buffer {
  if (length === 0) throw new RangeError('empty frame');
  let prefixBytes = 1;
  for (let rest = length >>> 7; rest > 0; rest >>>= 7) prefixBytes += 1;
  if (prefixBytes > MAX_PREFIX_BYTES) throw new RangeError('frame too long');
  const prefix = Buffer.allocUnsafe(prefixBytes);
  for (let at = 0, rest = length; at < prefixBytes; at++, rest >>>= 7) {
    prefix[at] = (rest & 0x7f) | (at < prefixBytes - 1 ? 0x80 : 0);
  }
  return prefix;
}

/** Cuts a byte stream into frames, one at a time and only when asked. */
export class FrameDecoder {
  #maxFrameBytes: number;
  #parts: Uint8Array[] = [];
  /** Where small parts are gathered, and up to where; the last of the parts is its end, or it is not in use. */
  #gathering: Buffer | null = null;
  #gatheredBytes = 0;
  #pendingBytes = 0;
  /** Length of the frame that comes next, or -1 while its prefix is incomplete. */
  #length = -1;

  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Takes longer frames, or only shorter ones, from the next one on. */
  limitTo(maxFrameBytes: number): void {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Bytes pushed and not yet returned in a frame. */
  get pendingBytes(): number {
    return this.#pendingBytes + (this.#length >= 0 ? 1 : 0);
  }

  /** Adds bytes, which are kept; only few at a time are copied. */
  push(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#pendingBytes += data.length;
    if (data.length < MIN_PART_BYTES) return this.#gather(data);
    this.#gathering = null;
    this.#parts.push(data);
  }

  /** The next whole frame, which may share memory with what was pushed, or null. PROTOCOL for a malformed length or an empty frame, TOO_LARGE for one over the limit. */
  next(): Buffer | null {
    const parts = this.nextParts();
    return parts && joinParts(parts);
  }

  /** The next whole frame as views of what was pushed, or null. Errors as next(). */
  nextParts(): Uint8Array[] | null {
    if (this.#length < 0 && !this.#takePrefix()) return null;
    if (this.#pendingBytes < this.#length) return null;
    const parts = this.#take(this.#length);
    this.#length = -1;
    return parts;
  }

  #gather(data: Uint8Array): void {
    let buffer = this.#gathering;
    const last = this.#parts.at(-1);
    if (!buffer || !last || this.#gatheredBytes + data.length > GATHERED_BYTES) {
      // A first small part is most often a whole frame: nothing is gained by copying it.
      this.#gathering = last && last.length < MIN_PART_BYTES ? Buffer.allocUnsafeSlow(GATHERED_BYTES) : null;
      this.#gatheredBytes = 0;
      buffer = this.#gathering;
      if (!buffer) {
        this.#parts.push(data);
        return;
      }
      this.#parts.push(buffer.subarray(0, 0));
    }
    const end = this.#gatheredBytes + data.length;
    buffer.set(data, this.#gatheredBytes);
    this.#gatheredBytes = end;
    const part = this.#parts.at(-1)!;
    this.#parts[this.#parts.length - 1] = buffer.subarray(part.byteOffset - buffer.byteOffset, end);
  }

  #takePrefix(): boolean {
    let length = 0;
    let at = 0;
    for (const part of this.#parts) {
      for (const byte of part.subarray(0, MAX_PREFIX_BYTES)) {
        length |= (byte & 0x7f) << (7 * at);
        at += 1;
        if (byte < 0x80) {
          if (byte === 0) throw new XcoreError('PROTOCOL', 'malformed frame length');
          if (length > this.#maxFrameBytes) {
            throw new XcoreError('TOO_LARGE', `a frame of ${length} bytes is over the limit of ${this.#maxFrameBytes}`);
          }
          this.#take(at);
          this.#length = length;
          return true;
        }
        if (at === MAX_PREFIX_BYTES) throw new XcoreError('PROTOCOL', 'malformed frame length');
      }
    }
    return false;
  }

  #take(sizeBytes: number): Uint8Array[] {
    const taken: Uint8Array[] = [];
    let missing = sizeBytes;
    let used = 0;
    while (missing > 0) {
      const part = this.#parts[used] as Uint8Array;
      if (part.length <= missing) {
        taken.push(part);
        used += 1;
      } else {
        taken.push(part.subarray(0, missing));
        this.#parts[used] = part.subarray(missing);
      }
      missing -= taken[taken.length - 1]?.length ?? 0;
    }
    this.#parts.splice(0, used);
    this.#pendingBytes -= sizeBytes;
    return taken;
  }
}

/** The bytes of one frame; those of a short one are copied. */
export function joinParts(parts: Uint8Array[]): Buffer {
  const [only] = parts;
  // A small frame is copied: who keeps a part of it must not keep a whole network buffer alive.
  if (only && parts.length === 1 && only.length > MAX_COPIED_BYTES) {
    return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
  }
  return Buffer.concat(parts);
}

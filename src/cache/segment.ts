// One segment from its first byte to its seal: held in memory while it grows, written behind to
// its file, read from memory until the file is complete and its shard id known.

import { crc32 } from 'node:zlib';
import { CtrStream, ctrInto } from '../crypto/ctr.ts';
import { DIRECT_BYTES } from '../lib/direct-file.ts';
import type { Disk, DiskFile } from '../lib/disk.ts';
import { XcoreError } from '../lib/errors.ts';
import { forgetPages } from '../lib/resident-read.ts';
import type { Hasher } from './hasher.ts';

/** Encrypted at once: what the checksum finds in the processor's cache. */
const STEP_BYTES = 64 * 1024;

/** Bytes up to which flushNow() writes them. */
const MAX_NOW_BYTES = 128 * 1024;
/** Written by a thread with one call: for 2 MiB, Linux takes fresh memory in one run, which may cost ten times as much. */
const MAX_WRITE_BYTES = 1024 * 1024;
/** Zeros written behind the bytes of a file that is synced again and again. */
const GROWTH = Buffer.alloc(256 * 1024);

/** What sealing a segment found. */
export interface SealedSegment {
  readonly id: Buffer;
  readonly sizeBytes: number;
}

/** An append-only encrypted buffer with a file behind it. Its key and salt serve this one segment. */
export class Segment {
  readonly shard: number;
  readonly capacityBytes: number;
  readonly memory: Uint8Array<SharedArrayBuffer>;
  readonly startedMs: number;
  lastAppendMs: number;
  #bytes: Uint8Array;
  readonly #key: Uint8Array;
  readonly #cipher: CtrStream;
  readonly #prepare: () => Promise<string>;
  readonly #disk: Disk;
  #length = 0;
  #crc32 = 0;
  #file: DiskFile | null = null;
  #written = 0;
  #synced = 0;
  /** Up to where the file was written, zeros behind its bytes included. */
  #grown = 0;
  /** More of the file than odd ends was written through the kernel's memory. */
  #hasPages = false;
  #isEnding = false;
  /** Bytes from the start that a power cut cannot take, in the file or in a journal. */
  #safe = 0;
  /** A sync failed: the kernel may call clean what never reached the disk, so it must be written again. */
  #isDoubtful = false;
  #isInMemory = true;
  #work: Promise<void> = Promise.resolve();
  /** Parts of #work that have not ended. */
  #pending = 0;

  /** `key`: 32 bytes, fresh; `memory` is this segment's until it is done with; `prepare` makes the folder and returns the path. */
  constructor(
    shard: number,
    key: Uint8Array,
    memory: Uint8Array<SharedArrayBuffer>,
    capacityBytes: number,
    prepare: () => Promise<string>,
    disk: Disk,
    nowMs: number,
  ) {
    this.shard = shard;
    this.#key = key;
    this.memory = memory;
    this.capacityBytes = capacityBytes;
    this.#bytes = memory;
    this.#cipher = new CtrStream(key);
    this.#prepare = prepare;
    this.#disk = disk;
    this.startedMs = nowMs;
    this.lastAppendMs = nowMs;
  }

  get length(): number {
    return this.#length;
  }

  /** CRC-32 of all ciphertext so far. */
  get crc32(): number {
    return this.#crc32;
  }

  get roomBytes(): number {
    return this.capacityBytes - this.#length;
  }

  /** Bytes that are not in the file yet. */
  get unwrittenBytes(): number {
    return this.#length - this.#written;
  }

  /** Bytes that are safe: in the file and its folder, or in a journal. */
  get safeBytes(): number {
    return this.#safe;
  }

  /** Notes that so many bytes are safe. */
  noteSafe(upTo: number): void {
    this.#safe = Math.max(this.#safe, upTo);
  }

  /** Ciphertext that is not safe yet, empty when all is; null when it is no longer in memory. */
  tail(): Uint8Array | null {
    if (this.#safe >= this.#length) return new Uint8Array(0);
    return this.#isInMemory ? this.#bytes.subarray(this.#safe, this.#length) : null;
  }

  /** Encrypts `data`, which must fit, behind all earlier bytes; returns where it begins. */
  append(data: Uint8Array, nowMs: number): number {
    if (data.length > this.roomBytes) throw new RangeError('a segment is full');
    const offset = this.#length;
    for (let done = 0; done < data.length; done += STEP_BYTES) {
      const part = data.subarray(done, done + STEP_BYTES);
      const sealed = this.#bytes.subarray(offset + done, offset + done + part.length);
      this.#cipher.encryptInto(part, sealed);
      this.#crc32 = crc32(sealed, this.#crc32);
    }
    this.#length += data.length;
    this.lastAppendMs = nowMs;
    return offset;
  }

  /** Decrypts bytes from memory, as many as `target` takes. */
  read(offset: number, target: Buffer): void {
    ctrInto(this.#key, offset, this.#bytes.subarray(offset, offset + target.length), target);
  }

  /** Resolves when all bytes appended before are in the file; `sync`: on the disk. */
  flush(sync: boolean): Promise<void> {
    const upTo = this.#length;
    this.#pending++;
    const work = this.#work
      .catch(() => undefined)
      .then(() => this.#flush(upTo, sync))
      .finally(() => this.#pending--);
    this.#work = work;
    return work;
  }

  /** Writes the few bytes that are not in the file yet at once; false where that is for flush() to do. */
  flushNow(): boolean {
    const file = this.#file;
    if (file === null || this.#pending > 0 || this.#isDoubtful || this.unwrittenBytes > MAX_NOW_BYTES) return false;
    this.#hasPages = true;
    try {
      while (this.#written < this.#length) {
        this.#written += file.writeSync(this.#bytes, this.#written, this.unwrittenBytes, this.#written);
      }
    } catch {
      // flush() meets the same disk, and tells
      return false;
    }
    return true;
  }

  async #flush(upTo: number, sync: boolean): Promise<void> {
    if (this.#written >= upTo && (!sync || this.#synced >= upTo)) return;
    if (this.#isDoubtful) await this.#writeAgain();
    // whatever lies there under this number was never committed; what this segment wrote must stay
    this.#file ??= await this.#disk.open(await this.#prepare(), this.#written === 0 ? 'w+' : 'r+', 0o600);
    while (this.#written < upTo) {
      this.#written += await this.#write(this.#file, Math.min(upTo - this.#written, MAX_WRITE_BYTES));
    }
    if (sync && this.#synced < upTo) {
      await this.#grow(this.#file, upTo);
      this.#isDoubtful = true;
      await this.#file.datasync();
      this.#isDoubtful = false;
      this.#synced = upTo;
    }
  }

  /** Writes some of the next `length` bytes, many of them past the kernel's memory; returns how many. */
  async #write(file: DiskFile, length: number): Promise<number> {
    const at = this.#written;
    this.#hasPages ||= length >= DIRECT_BYTES && length <= MAX_NOW_BYTES;
    if (length <= MAX_NOW_BYTES) return file.writeSync(this.#bytes, at, length, at);
    const ahead = -at & (DIRECT_BYTES - 1);
    if (ahead > 0 && file.writeDirect !== undefined) return file.writeSync(this.#bytes, at, ahead, at);
    const direct = await file.writeDirect?.(this.#bytes, at, length & -DIRECT_BYTES, at);
    if (direct !== undefined && direct > 0) return direct;
    this.#hasPages = true;
    return (await file.write(this.#bytes, at, length, at)).bytesWritten;
  }

  /**
   * Writes zeros behind the bytes of a file that is synced every few bytes: a sync of bytes that lie within what the
   * file system has given the file already takes a third of the time.
   */
  async #grow(file: DiskFile, upTo: number): Promise<void> {
    const isRepeated = this.#synced > 0 && upTo - this.#synced <= GROWTH.length;
    if (!isRepeated || this.#isEnding || upTo <= this.#grown) return;
    const { bytesWritten } = await file.write(GROWTH, 0, Math.min(GROWTH.length, this.capacityBytes - upTo), upTo);
    this.#grown = upTo + bytesWritten;
  }

  /** Makes the kernel take all bytes anew; EIO when they are neither in memory nor whole in the file. */
  async #writeAgain(): Promise<void> {
    if (this.#isInMemory) {
      this.#written = 0;
      return;
    }
    const bytes = Buffer.alloc(this.#length);
    const bytesRead = (await this.#file?.read(bytes, 0, bytes.length, 0))?.bytesRead;
    if (bytesRead !== bytes.length || crc32(bytes) !== this.#crc32) {
      throw new XcoreError('EIO', `the disk has lost bytes of shard ${this.shard}`);
    }
    await this.#file?.write(bytes, 0, bytes.length, 0);
    this.#written = this.#length;
  }

  /** All bytes are in the file; resolves when its memory may be used for something else. */
  async letGoOfMemory(): Promise<void> {
    this.#isInMemory = false;
    // a sync that failed before may be writing them again
    await this.#work.catch(() => undefined);
    this.#bytes = new Uint8Array(0);
  }

  /** Completes the file with its leaf hashes and computes the shard id; nothing may be appended any more. */
  async seal(hasher: Pick<Hasher, 'hash'>): Promise<SealedSegment> {
    this.#isEnding = true;
    const [{ leaves, id }] = await Promise.all([hasher.hash(this.memory, this.#length), this.flush(false)]);
    if (this.#grown > this.#length) await this.#file?.truncate(this.#length);
    this.#grown = 0;
    for (let done = 0; done < leaves.length;) {
      done += this.#file?.writeSync(leaves, done, leaves.length - done, this.#length + done) ?? leaves.length;
    }
    return { id, sizeBytes: this.#length };
  }

  /**
   * Lets the kernel use the memory of a large file for the next one: its bytes are among the mount's own pages already.
   * To be called once they are on the disk.
   */
  async forgetPages(): Promise<void> {
    const fd = this.#file?.fd;
    if (this.#hasPages && this.roomBytes === 0 && fd !== undefined && fd >= 0) await forgetPages(fd);
  }

  /** Closes the file. */
  async close(): Promise<void> {
    await this.#work.catch(() => undefined);
    await this.#file?.close();
    this.#file = null;
  }
}

// Builds one reply to the kernel in a buffer of its own and sends it. Knows structures, no operations.

import {
  ATTR,
  ATTR_OUT,
  DIRENT,
  ENTRY_OUT,
  MAX_IO_BYTES,
  OPEN_OUT,
  OUT_HEADER,
  STATX_BASIC_AND_BTIME,
  STATX_OUT,
} from './abi.ts';
import { freeSent, isEndToSend } from '../lib/free-buffer.ts';
import { addressOf, allocate, writeFrom, writevFrom } from './native.ts';
import type { Memory } from './native.ts';
import type { Attributes, DirectoryEntry } from '../vfs/filesystem.ts';

/** Data up to here is copied behind the header: cheaper than looking up addresses for writev. */
const COPY_BYTES = 16 * 1024;
/** IOV_MAX of Linux. */
const MAX_VECTORS = 1024;
/** st_blksize. */
const BLOCK_BYTES = 4096;
const NANOSECONDS = 1_000_000_000n;

/** How long the kernel may believe a reply, split as the protocol wants it. */
export interface Validity {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** Splits milliseconds for the protocol. */
export function validity(milliseconds: number): Validity {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds, nanoseconds: Math.round((milliseconds - seconds * 1000) * 1e6) };
}

/** Timeouts that go into replies. */
export interface Validities {
  readonly entry: Validity;
  readonly attributes: Validity;
  readonly negative: Validity;
}

/**
 * Encodes replies one after the other: begin(), any of the put methods, send(). All of that happens
 * without a pause in between, which is why one buffer serves every request.
 */
export class ReplyWriter {
  readonly #fd: number;
  readonly #validities: Validities;
  readonly #memory: Memory = allocate(OUT_HEADER.size + MAX_IO_BYTES + 4096);
  readonly #buffer: Buffer = this.#memory.buffer;
  readonly #vectors: Memory = allocate(MAX_VECTORS * 16);
  #cursor: number = OUT_HEADER.size;
  #parts: Buffer[] | null = null;

  constructor(fd: number, validities: Validities) {
    this.#fd = fd;
    this.#validities = validities;
  }

  /** Starts a successful reply. */
  begin(unique: number): void {
    this.#buffer.writeInt32LE(0, OUT_HEADER.error);
    this.#writeU64(OUT_HEADER.unique, unique);
    this.#cursor = OUT_HEADER.size;
    this.#parts = null;
  }

  /** Sends what was put since begin(); returns 0 or a negative errno. */
  send(): number {
    if (this.#parts !== null) return this.#sendParts(this.#parts);
    this.#buffer.writeUInt32LE(this.#cursor, OUT_HEADER.len);
    return Math.min(0, writeFrom(this.#fd, this.#memory.address, this.#cursor));
  }

  /** Sends an error reply; `errno` is positive. */
  sendError(unique: number, errno: number): number {
    this.begin(unique);
    this.#buffer.writeInt32LE(-errno, OUT_HEADER.error);
    return this.send();
  }

  /** Zeroed room for a structure; returns a window on it. */
  putStruct(sizeBytes: number): Buffer {
    const start = this.#cursor;
    this.#cursor += sizeBytes;
    return this.#buffer.fill(0, start, this.#cursor).subarray(start, this.#cursor);
  }

  putBytes(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#cursor);
    this.#cursor += bytes.length;
  }

  /** Data of a read, sent in order; it is the whole body of the reply. Parts that are marked so are freed once they are sent. */
  putParts(parts: Buffer[], totalBytes: number): void {
    if (totalBytes > COPY_BYTES && parts.length < MAX_VECTORS) this.#parts = parts;
    else for (const part of parts) this.putBytes(part);
  }

  /** struct fuse_attr_out. */
  putAttributes(attributes: Attributes): void {
    const start = this.#cursor;
    this.#writeU64(start + ATTR_OUT.attrValid, this.#validities.attributes.seconds);
    this.#buffer.writeUInt32LE(this.#validities.attributes.nanoseconds, start + ATTR_OUT.attrValidNsec);
    this.#buffer.writeUInt32LE(0, start + ATTR_OUT.dummy);
    this.#writeAttributes(start + ATTR_OUT.attr, attributes);
    this.#cursor += ATTR_OUT.size;
  }

  /** struct fuse_statx_out. */
  putStatx(attributes: Attributes): void {
    const start = this.#cursor;
    const out = this.putStruct(STATX_OUT.bytes);
    this.#writeU64(start + STATX_OUT.attrValid, this.#validities.attributes.seconds);
    out.writeUInt32LE(this.#validities.attributes.nanoseconds, STATX_OUT.attrValidNsec);
    out.writeUInt32LE(STATX_BASIC_AND_BTIME, STATX_OUT.mask);
    out.writeUInt32LE(BLOCK_BYTES, STATX_OUT.blksize);
    out.writeUInt32LE(attributes.nlink, STATX_OUT.nlink);
    out.writeUInt32LE(attributes.uid, STATX_OUT.uid);
    out.writeUInt32LE(attributes.gid, STATX_OUT.gid);
    out.writeUInt16LE(attributes.mode, STATX_OUT.mode);
    this.#writeU64(start + STATX_OUT.ino, attributes.ino);
    this.#writeU64(start + STATX_OUT.size, attributes.sizeBytes);
    this.#writeU64(start + STATX_OUT.blocks, attributes.blocks);
    for (const [at, timeNs] of [
      [STATX_OUT.atime, attributes.atimeNs],
      [STATX_OUT.btime, attributes.btimeNs],
      [STATX_OUT.ctime, attributes.ctimeNs],
      [STATX_OUT.mtime, attributes.mtimeNs],
    ] as const) {
      this.#writeTime(start + at, start + at + 8, timeNs);
    }
    // as linux/kdev_t.h packs them: 12 bits of major, 20 of minor around it
    out.writeUInt32LE((attributes.rdev >>> 8) & 0xfff, STATX_OUT.rdevMajor);
    out.writeUInt32LE((attributes.rdev & 0xff) | ((attributes.rdev >>> 12) & 0xfff00), STATX_OUT.rdevMinor);
  }

  /** struct fuse_entry_out. */
  putEntry(attributes: Attributes): void {
    const { entry, attributes: attribute } = this.#validities;
    const start = this.#cursor;
    this.#writeU64(start + ENTRY_OUT.nodeid, attributes.ino);
    this.#writeU64(start + ENTRY_OUT.generation, 0);
    this.#writeU64(start + ENTRY_OUT.entryValid, entry.seconds);
    this.#writeU64(start + ENTRY_OUT.attrValid, attribute.seconds);
    this.#buffer.writeUInt32LE(entry.nanoseconds, start + ENTRY_OUT.entryValidNsec);
    this.#buffer.writeUInt32LE(attribute.nanoseconds, start + ENTRY_OUT.attrValidNsec);
    this.#writeAttributes(start + ENTRY_OUT.attr, attributes);
    this.#cursor += ENTRY_OUT.size;
  }

  /** struct fuse_entry_out for "no such name", which the kernel remembers for the negative timeout. */
  putNegativeEntry(): void {
    const { negative } = this.#validities;
    const start = this.#cursor;
    this.#buffer.fill(0, start, start + ENTRY_OUT.size);
    this.#writeU64(start + ENTRY_OUT.entryValid, negative.seconds);
    this.#buffer.writeUInt32LE(negative.nanoseconds, start + ENTRY_OUT.entryValidNsec);
    this.#cursor += ENTRY_OUT.size;
  }

  /** struct fuse_open_out. */
  putOpen(handle: number, openFlags: number): void {
    const start = this.#cursor;
    this.#writeU64(start + OPEN_OUT.fh, handle);
    this.#writeU64(start + OPEN_OUT.openFlags, openFlags);
    this.#cursor += OPEN_OUT.size;
  }

  /**
   * One struct fuse_dirent, with a struct fuse_entry_out in front when `plus`. False when it does not
   * fit into `limit` bytes of body: then nothing is put.
   */
  putDirectoryEntry(entry: DirectoryEntry, plus: boolean, limit: number): boolean {
    const nameStart = (plus ? ENTRY_OUT.size : 0) + DIRENT.name;
    const bytes = (nameStart + entry.name.length + 7) & ~7;
    if (this.#cursor - OUT_HEADER.size + bytes > limit) return false;
    if (plus) {
      // a nodeid of 0 tells the kernel that this entry counts as no lookup: '.' and '..' must be so
      if (entry.attributes === undefined || entry.name === '.' || entry.name === '..') this.putNegativeEntry();
      else this.putEntry(entry.attributes);
    }
    const start = this.#cursor;
    const end = start + ((DIRENT.name + entry.name.length + 7) & ~7);
    this.#writeU64(start + DIRENT.ino, entry.ino);
    this.#buffer.writeBigUInt64LE(entry.cookie, start + DIRENT.off);
    this.#buffer.writeUInt32LE(entry.name.length, start + DIRENT.namelen);
    this.#buffer.writeUInt32LE(entry.type >>> 12, start + DIRENT.type);
    this.#buffer.write(entry.name, start + DIRENT.name, 'latin1');
    this.#buffer.fill(0, start + DIRENT.name + entry.name.length, end);
    this.#cursor = end;
    return true;
  }

  #sendParts(parts: Buffer[]): number {
    let totalBytes = OUT_HEADER.size;
    let count = 1;
    for (const part of parts) {
      if (part.length === 0) continue;
      this.#writeVector(count++, addressOf(part), part.length);
      totalBytes += part.length;
    }
    this.#buffer.writeUInt32LE(totalBytes, OUT_HEADER.len);
    this.#writeVector(0, this.#memory.address, OUT_HEADER.size);
    this.#parts = null;
    const result = writevFrom(this.#fd, this.#vectors.address, count);
    for (const part of parts) if (isEndToSend(part)) freeSent(part);
    return Math.min(0, result);
  }

  #writeVector(index: number, address: number, sizeBytes: number): void {
    writeU64(this.#vectors.buffer, index * 16, address);
    writeU64(this.#vectors.buffer, index * 16 + 8, sizeBytes);
  }

  #writeAttributes(start: number, attributes: Attributes): void {
    const buffer = this.#buffer;
    this.#writeU64(start + ATTR.ino, attributes.ino);
    this.#writeU64(start + ATTR.size, attributes.sizeBytes);
    this.#writeU64(start + ATTR.blocks, attributes.blocks);
    this.#writeTime(start + ATTR.atime, start + ATTR.atimensec, attributes.atimeNs);
    this.#writeTime(start + ATTR.mtime, start + ATTR.mtimensec, attributes.mtimeNs);
    this.#writeTime(start + ATTR.ctime, start + ATTR.ctimensec, attributes.ctimeNs);
    buffer.writeUInt32LE(attributes.mode, start + ATTR.mode);
    buffer.writeUInt32LE(attributes.nlink, start + ATTR.nlink);
    buffer.writeUInt32LE(attributes.uid, start + ATTR.uid);
    buffer.writeUInt32LE(attributes.gid, start + ATTR.gid);
    buffer.writeUInt32LE(attributes.rdev, start + ATTR.rdev);
    buffer.writeUInt32LE(BLOCK_BYTES, start + ATTR.blksize);
    buffer.writeUInt32LE(0, start + ATTR.flags);
  }

  #writeTime(secondsStart: number, nanosecondsStart: number, timeNs: bigint): void {
    let seconds = timeNs / NANOSECONDS;
    let nanoseconds = Number(timeNs % NANOSECONDS);
    if (nanoseconds < 0) {
      seconds -= 1n;
      nanoseconds += 1e9;
    }
    this.#buffer.writeBigInt64LE(seconds, secondsStart);
    this.#buffer.writeUInt32LE(nanoseconds, nanosecondsStart);
  }

  #writeU64(offset: number, value: number): void {
    writeU64(this.#buffer, offset, value);
  }
}

/** Writes a number below 2^53 as 64 bits. */
export function writeU64(buffer: Buffer, offset: number, value: number): void {
  buffer.writeUInt32LE(value >>> 0, offset);
  buffer.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

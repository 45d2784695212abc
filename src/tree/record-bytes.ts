// The protobuf bytes of the records that operations make by the thousand, written and read field by
// field: the generic encoder costs more than sealing them does. tree.proto says what they are.

import type { Window } from './extents.ts';
import type { Counters, Dentry, Inode, Shard } from './records.ts';

/** One changed record of a change set: no value is a deletion. */
export interface KeyChange {
  readonly key: Uint8Array;
  readonly value: Uint8Array | null;
}

/** What a tally says (Tally). */
export interface TallyNumbers {
  readonly batch: number;
  readonly records: number;
  readonly sum: bigint;
  readonly lastCommit: number;
  readonly firstUnpublished: number;
  readonly journal: number;
  readonly journalId: bigint;
}

const NO_BYTES = new Uint8Array(0);
const MAX_VARINT_BYTES = 10;

/** Where records are put together; one is copied out before the next begins. */
let out = Buffer.allocUnsafeSlow(4096);
let at = 0;

function begin(maxBytes: number): void {
  if (maxBytes > out.length) out = Buffer.allocUnsafeSlow(maxBytes);
  at = 0;
}

function finish(): Buffer {
  const bytes = Buffer.allocUnsafe(at);
  out.copy(bytes, 0, 0, at);
  return bytes;
}

function putVarint(value: number): void {
  if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) throw new RangeError(`${value} in a record`);
  let rest = value;
  while (rest >= 0x8000_0000) {
    out[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  while (rest >= 128) {
    out[at++] = (rest & 127) | 128;
    rest >>>= 7;
  }
  out[at++] = rest;
}

/** A number, unless it is 0, which absence means. */
function putNumber(tag: number, value: number): void {
  if (value === 0) return;
  out[at++] = tag;
  putVarint(value);
}

function putTime(tag: number, value: bigint): void {
  if (value === 0n) return;
  out[at++] = tag;
  at = out.writeBigInt64LE(value, at);
}

function putFixed32(tag: number, value: number): void {
  if (value === 0) return;
  out[at++] = tag;
  at = out.writeUInt32LE(value, at);
}

function putFixed64(tag: number, value: bigint): void {
  if (value === 0n) return;
  out[at++] = tag;
  at = out.writeBigUInt64LE(value, at);
}

function putBytes(tag: number, value: Uint8Array): void {
  if (value.length === 0) return;
  out[at++] = tag;
  putVarint(value.length);
  out.set(value, at);
  at += value.length;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

/** Bytes left for the length of a list, before it is known. */
const LENGTH_BYTES = 4;

function putList(tag: number, values: readonly number[]): void {
  if (values.length === 0) return;
  out[at++] = tag;
  const start = at;
  const from = start + LENGTH_BYTES;
  // a window may hold hundreds of each list: a few local variables and no calls, as long as the numbers are usual ones
  const bytes = out;
  let to = from;
  for (const value of values) {
    if (!(value >= 0 && value < 0x20_0000)) {
      at = to;
      putVarint(value);
      to = at;
      continue;
    }
    if (value >= 0x80) bytes[to++] = (value & 127) | 128;
    if (value >= 0x4000) bytes[to++] = ((value >>> 7) & 127) | 128;
    bytes[to++] = value >= 0x4000 ? value >>> 14 : value >= 0x80 ? value >>> 7 : value;
  }
  at = start;
  putVarint(to - from);
  out.copyWithin(at, from, to);
  at += to - from;
}

/** Bytes of an InodeRecord. */
export function inodeBytes(inode: Inode): Buffer {
  begin(256 + inode.symlinkTarget.length);
  putNumber(0x08, inode.mode);
  putNumber(0x10, inode.uid);
  putNumber(0x18, inode.gid);
  putNumber(0x20, inode.nlink);
  putNumber(0x28, inode.sizeBytes);
  putTime(0x31, inode.atimeNs);
  putTime(0x39, inode.mtimeNs);
  putTime(0x41, inode.ctimeNs);
  putTime(0x49, inode.btimeNs);
  putNumber(0x50, inode.rdev);
  putBytes(0x5a, inode.symlinkTarget);
  putNumber(0x60, inode.hasXattrs ? 1 : 0);
  putNumber(0x68, inode.parent);
  putNumber(0x70, inode.entries);
  putNumber(0x78, inode.storedBytes);
  return finish();
}

/** Bytes of a DentryRecord. */
export function dentryBytes(dentry: Dentry): Buffer {
  begin(64 + dentry.name.length);
  if (dentry.name.length > 0) {
    out[at++] = 0x0a;
    putVarint(dentry.name.length);
    at += out.write(dentry.name, at, 'latin1');
  }
  putNumber(0x10, dentry.ino);
  putNumber(0x18, dentry.type);
  return finish();
}

/** Bytes of a WindowRecord. */
export function windowBytes(window: Window): Buffer {
  begin(64 + window.offsets.length * 4 * MAX_VARINT_BYTES);
  putList(0x0a, window.offsets);
  putList(0x12, window.lengths);
  putList(0x1a, window.shards);
  putList(0x22, window.shardOffsets);
  return finish();
}

/** Bytes of a ShardRecord. */
export function shardBytes(shard: Shard): Buffer {
  begin(128 + shard.salt.length + shard.id.length);
  putBytes(0x0a, shard.salt);
  putNumber(0x10, shard.sizeBytes);
  putBytes(0x1a, shard.id);
  putNumber(0x20, shard.liveBytes);
  putFixed32(0x2d, shard.crc32);
  putNumber(0x30, shard.syncedBytes);
  putFixed32(0x3d, shard.syncedCrc32);
  return finish();
}

/** Bytes of a TallyRecord. */
export function tallyBytes(tally: TallyNumbers): Buffer {
  begin(96);
  putNumber(0x08, tally.batch);
  putNumber(0x10, tally.records);
  putFixed64(0x19, tally.sum);
  putNumber(0x20, tally.lastCommit);
  putNumber(0x28, tally.firstUnpublished);
  putNumber(0x30, tally.journal);
  putFixed64(0x39, tally.journalId);
  return finish();
}

/** Bytes of a CountersRecord. */
export function countersBytes(counters: Counters): Buffer {
  begin(64);
  putNumber(0x08, counters.nextIno);
  putNumber(0x10, counters.nextShard);
  putNumber(0x18, counters.inodes);
  putNumber(0x20, counters.storedBytes);
  return finish();
}

/** Bytes of a ChangeSet without a checkpoint. */
export function changeSetBytes(changes: readonly KeyChange[], lineage: Uint8Array, lastCommit: number): Buffer {
  let maxBytes = 64 + lineage.length;
  for (const { key, value } of changes) maxBytes += 32 + key.length + (value?.length ?? 0);
  begin(maxBytes);
  for (const { key, value } of changes) {
    let bytes = 1 + varintBytes(key.length) + key.length;
    if (value !== null) bytes += 1 + varintBytes(value.length) + value.length;
    out[at++] = 0x0a;
    putVarint(bytes);
    putBytes(0x0a, key);
    if (value === null) continue;
    // an empty value is one that is there
    out[at++] = 0x12;
    putVarint(value.length);
    out.set(value, at);
    at += value.length;
  }
  putBytes(0x12, lineage);
  putNumber(0x18, lastCommit);
  const bytes = finish();
  if (out.length > 1 << 20) out = Buffer.allocUnsafeSlow(4096);
  return bytes;
}

let position = 0;

/** NaN past the end, and for what no safe integer holds. */
function takeVarint(bytes: Buffer): number {
  let value = 0;
  let scale = 1;
  for (let n = 0; n < MAX_VARINT_BYTES; n++) {
    const byte = bytes[position++];
    if (byte === undefined) return NaN;
    value += (byte & 127) * scale;
    if (byte < 128) return value <= Number.MAX_SAFE_INTEGER ? value : NaN;
    scale *= 128;
  }
  return NaN;
}

function takeTime(bytes: Buffer): bigint | null {
  position += 8;
  return position <= bytes.length ? bytes.readBigInt64LE(position - 8) : null;
}

/** The inode in the bytes of an InodeRecord; null when they are not just what inodeBytes() makes. */
export function readInode(bytes: Buffer, ino: number): Inode | null {
  const inode: Inode = {
    ino,
    mode: 0,
    uid: 0,
    gid: 0,
    nlink: 0,
    sizeBytes: 0,
    atimeNs: 0n,
    mtimeNs: 0n,
    ctimeNs: 0n,
    btimeNs: 0n,
    rdev: 0,
    symlinkTarget: NO_BYTES,
    hasXattrs: false,
    parent: 0,
    entries: 0,
    storedBytes: 0,
  };
  for (position = 0; position < bytes.length;) {
    const tag = bytes[position++];
    if (tag === 0x31 || tag === 0x39 || tag === 0x41 || tag === 0x49) {
      const time = takeTime(bytes);
      if (time === null) return null;
      if (tag === 0x31) inode.atimeNs = time;
      else if (tag === 0x39) inode.mtimeNs = time;
      else if (tag === 0x41) inode.ctimeNs = time;
      else inode.btimeNs = time;
      continue;
    }
    const value = takeVarint(bytes);
    if (Number.isNaN(value)) return null;
    if (tag === 0x08) inode.mode = value;
    else if (tag === 0x10) inode.uid = value;
    else if (tag === 0x18) inode.gid = value;
    else if (tag === 0x20) inode.nlink = value;
    else if (tag === 0x28) inode.sizeBytes = value;
    else if (tag === 0x50) inode.rdev = value;
    else if (tag === 0x60) inode.hasXattrs = value !== 0;
    else if (tag === 0x68) inode.parent = value;
    else if (tag === 0x70) inode.entries = value;
    else if (tag === 0x78) inode.storedBytes = value;
    else if (tag === 0x5a && position + value <= bytes.length) {
      inode.symlinkTarget = Uint8Array.prototype.slice.call(bytes, position, position + value);
      position += value;
    } else return null;
  }
  return inode;
}

/** The dentry in the bytes of a DentryRecord; null when they are not just what dentryBytes() makes. */
export function readDentry(bytes: Buffer): Dentry | null {
  let name = '';
  let ino = 0;
  let type = 0;
  for (position = 0; position < bytes.length;) {
    const tag = bytes[position++];
    const value = takeVarint(bytes);
    if (Number.isNaN(value)) return null;
    if (tag === 0x0a && position + value <= bytes.length) {
      name = bytes.toString('latin1', position, position + value);
      position += value;
    } else if (tag === 0x10) ino = value;
    else if (tag === 0x18) type = value;
    else return null;
  }
  return { name, ino, type };
}

function takeList(bytes: Buffer, lengthBytes: number): number[] | null {
  const end = position + lengthBytes;
  if (end > bytes.length) return null;
  const values: number[] = [];
  while (position < end) {
    const value = takeVarint(bytes);
    if (Number.isNaN(value)) return null;
    values.push(value);
  }
  return position === end ? values : null;
}

/** The window in the bytes of a WindowRecord; null when they are not just what windowBytes() makes. */
export function readWindow(bytes: Buffer): Window | null {
  const lists: (number[] | undefined)[] = [];
  for (position = 0; position < bytes.length;) {
    const tag = bytes[position++] ?? 0;
    const list = takeList(bytes, takeVarint(bytes));
    const index = (tag - 0x0a) / 8;
    if (list === null || !Number.isInteger(index) || index < 0 || index > 3 || lists[index] !== undefined) return null;
    lists[index] = list;
  }
  const [offsets = [], lengths = [], shards = [], shardOffsets = []] = lists;
  return { offsets, lengths, shards, shardOffsets };
}

// Whether the tables of a LevelDB are as they were written: every block against its checksum. LevelDB itself takes
// blocks as they come, and ends the process over some that are damaged. Knows the format of tables
// (LevelDB's doc/table_format.md), and nothing of what they hold.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

/** Last in a table: handles of two blocks, padded, and a magic number. */
const FOOTER_BYTES = 48;
const MAGIC = 0xdb4775248b80fb57n;
/** Behind each block: how it is compressed, and a checksum of both. */
const TRAILER_BYTES = 5;
const SNAPPY = 1;
/** A block that is unpacked is no longer than this. */
const MAX_BLOCK_BYTES = 64 * 1024 * 1024;
/** Checked in one turn of the event loop, within a millisecond. */
const PAUSE_BYTES = 256 * 1024;

/** CRC-32C (RFC 3720, B.4) by eight bytes at a time: row n tells what a byte does that n more bytes follow. */
const CRC_TABLE = new Int32Array(8 * 256);
for (let n = 0; n < 256; n++) {
  let crc = n;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f63b78;
  CRC_TABLE[n] = crc;
}
for (let n = 256; n < CRC_TABLE.length; n++) {
  const before = CRC_TABLE[n - 256]!;
  CRC_TABLE[n] = (before >>> 8) ^ CRC_TABLE[before & 255]!;
}

function crc32c(bytes: Buffer): number {
  const at = CRC_TABLE;
  let [crc, i] = [-1, 0];
  for (const end = bytes.length - 7; i < end; i += 8) {
    crc ^= bytes.readInt32LE(i);
    crc =
      at[1792 + (crc & 255)]! ^
      at[1536 + ((crc >>> 8) & 255)]! ^
      at[1280 + ((crc >>> 16) & 255)]! ^
      at[1024 + (crc >>> 24)]! ^
      at[768 + bytes[i + 4]!]! ^
      at[512 + bytes[i + 5]!]! ^
      at[256 + bytes[i + 6]!]! ^
      at[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) crc = at[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** As LevelDB stores it (util/crc32c.h). */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** What a table that is damaged is refused with. */
class Damage extends Error {}

/** Reads numbers one after the other. */
class Cursor {
  readonly bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  varint(): number {
    let [value, factor] = [0, 1];
    for (; factor < 2 ** 53; factor *= 128) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new Damage('a number that does not end');
  }

  take(length: number): Buffer {
    if (this.at + length > this.bytes.length) throw new Damage('an entry that is too long');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}

/** Unpacks Snappy's block format (google/snappy, format_description.txt). */
function unpack(packed: Buffer): Buffer {
  const cursor = new Cursor(packed);
  const length = cursor.varint();
  if (length > MAX_BLOCK_BYTES) throw new Damage('a block that is too large');
  const out = Buffer.alloc(length);
  let end = 0;
  while (cursor.at < packed.length) {
    const tag = cursor.take(1)[0]!;
    const kind = tag & 3;
    if (kind === 0) {
      const extra = Math.max(0, (tag >> 2) - 59);
      const size = (extra === 0 ? tag >> 2 : cursor.take(extra).readUIntLE(0, extra)) + 1;
      end += cursor.take(size).copy(out, end);
      continue;
    }
    const size = kind === 1 ? ((tag >> 2) & 7) + 4 : (tag >> 2) + 1;
    const [high, width] = [kind === 1 ? (tag >> 5) << 8 : 0, kind === 3 ? 4 : kind];
    const from = end - (high + cursor.take(width).readUIntLE(0, width));
    if (from < 0 || from >= end || end + size > length) throw new Damage('a block that cannot be unpacked');
    // what is copied may overlap itself
    for (let n = 0; n < size; n++) out[end++] = out[from + n]!;
  }
  if (end !== length) throw new Damage('a block that cannot be unpacked');
  return out;
}

/** The bytes of a block, unpacked if they are wanted. */
function block(table: Buffer, offset: number, length: number, wanted: boolean): Buffer {
  const end = offset + length + 1;
  if (end + 4 > table.length - FOOTER_BYTES) throw new Damage('a block behind its end');
  if (masked(crc32c(table.subarray(offset, end))) !== table.readUInt32LE(end)) {
    throw new Damage(`the block at ${offset} does not match its checksum`);
  }
  const bytes = table.subarray(offset, offset + length);
  return wanted && table[end - 1] === SNAPPY ? unpack(bytes) : bytes;
}

/** Handles of the blocks that an index names. */
function* handles(index: Buffer): Generator<[offset: number, length: number]> {
  if (index.length < 4) throw new Damage('an index that is too short');
  const end = index.length - 4 - 4 * index.readUInt32LE(index.length - 4);
  if (end < 0) throw new Damage('an index that is too short');
  const cursor = new Cursor(index.subarray(0, end));
  while (cursor.at < end) {
    cursor.varint();
    const key = cursor.varint();
    const size = cursor.varint();
    cursor.take(key);
    const value = new Cursor(cursor.take(size));
    yield [value.varint(), value.varint()];
  }
}

/** Throws Damage; lets others work in between. */
async function checkTable(table: Buffer): Promise<void> {
  const footer = table.subarray(-FOOTER_BYTES);
  if (footer.length < FOOTER_BYTES || footer.readBigUInt64LE(FOOTER_BYTES - 8) !== MAGIC) {
    throw new Damage('its end is gone');
  }
  const cursor = new Cursor(footer);
  let covered = 0;
  let nextPause = PAUSE_BYTES;
  const visit = (wanted: boolean, offset = cursor.varint(), length = cursor.varint()): Buffer => {
    covered += length + TRAILER_BYTES;
    return block(table, offset, length, wanted);
  };
  // the first names filters, the second what the table holds
  for (const index of [visit(true), visit(true)]) {
    for (const [offset, length] of handles(index)) {
      visit(false, offset, length);
      if (covered < nextPause) continue;
      nextPause = covered + PAUSE_BYTES;
      await setImmediate();
    }
  }
  if (covered !== table.length - FOOTER_BYTES) throw new Damage('some of its blocks are not in its index');
}

/** A table that is not as it was written. */
export interface DamagedTable {
  readonly name: string;
  readonly reason: string;
}

/** Names of the tables in a folder: `now`, the smallest first, as many as have `maxBytes` together; `later`, the others. */
export function tablesIn(dir: string, maxBytes = Infinity): { now: string[]; later: string[] } {
  const names = existsSync(dir) ? readdirSync(dir).filter((name) => /\.(?:ldb|sst)$/.test(name)) : [];
  const tables = names.map((name) => ({ name, sizeBytes: statSync(join(dir, name)).size }));
  const found = { now: [] as string[], later: [] as string[] };
  let left = maxBytes;
  for (const { name, sizeBytes } of tables.sort((a, b) => a.sizeBytes - b.sizeBytes)) {
    left -= sizeBytes;
    (left >= 0 ? found.now : found.later).push(name);
  }
  return found;
}

/**
 * Reads tables; the first that is damaged, or null. Those that go meanwhile are nobody's any more; none may be half
 * written.
 */
export async function findDamagedTable(
  dir: string,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<DamagedTable | null> {
  for (const name of names) {
    if (signal?.aborted === true) return null;
    const table = await readFile(join(dir, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    try {
      if (table !== null) await checkTable(table);
    } catch (error) {
      if (error instanceof Damage) return { name, reason: error.message };
      throw error;
    }
  }
  return null;
}

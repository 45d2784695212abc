// Bytes of the sync journal: records of whole pages, each with batches of the index, entries of its journal and ends of
// segments. FORMAT.md, "Sync journal". Pure functions.

import { crc32 } from 'node:zlib';
import { XcoreError } from '../lib/errors.ts';
import type { BatchOperation } from './index-database.ts';

/** What a record is a multiple of: pages that hold one record are never written for another. */
export const PAGE_BYTES = 4_096;
const MAGIC = Buffer.from('XCJ2');
/** Versions that are read, the digits at the end of the magic. */
const KNOWN_VERSIONS: readonly number[] = [...Buffer.from('12')];
const HEADER_BYTES = 28;
const AT = { magic: 0, generation: 4, sequence: 12, payloadBytes: 16, headerCrc32: 20, payloadCrc32: 24 } as const;
const ITEM = { batch: 1, put: 2, delete: 3, uncheckedTail: 4, entry: 5, tail: 6 } as const;

/** The end of a segment as it lies in its file. */
export interface Tail {
  readonly shard: number;
  /** In the shard. */
  readonly offset: number;
  /** Ciphertext. */
  readonly bytes: Uint8Array;
  /** CRC-32 of all ciphertext of the shard up to its end; null where the first version of the journal did not tell. */
  readonly crc32: number | null;
}

/** One batch of the index under its number. */
export interface NumberedBatch {
  readonly number: number;
  readonly operations: readonly BatchOperation[];
}

/** What a journal holds, in order. */
export interface SyncJournalContent {
  readonly batches: readonly NumberedBatch[];
  /** As the journal of the index has them; a start also finds those of records out of turn. */
  readonly entries: readonly Uint8Array[];
  readonly tails: readonly Tail[];
}

/** What a start finds of a journal. */
export interface LeftSyncJournal extends SyncJournalContent {
  /** Number of the newest batch in any whole record of the file, also one that is out of turn; 0 where there is none. */
  readonly newest: number;
}

/** About the bytes that a batch takes in a journal. */
export function sizeOfBatch(operations: readonly BatchOperation[]): number {
  let bytes = 16;
  for (const operation of operations) {
    bytes += 7 + operation.key.length + (operation.type === 'put' ? operation.value.length : 0);
  }
  return bytes;
}

/** One record in memory that `allocate` gives; `generation` has 8 bytes, `sequence` counts from 0 in it. */
export function encodeRecord(
  generation: Uint8Array,
  sequence: number,
  content: SyncJournalContent,
  allocate: (sizeBytes: number) => Buffer = (sizeBytes) => Buffer.allocUnsafe(sizeBytes),
): Buffer {
  const items: Uint8Array[] = [];
  for (const { number, operations } of content.batches) {
    const head = Buffer.alloc(13);
    head.writeUInt8(ITEM.batch, 0);
    head.writeBigUInt64LE(BigInt(number), 1);
    head.writeUInt32LE(operations.length, 9);
    items.push(head, ...operations.flatMap(encodeOperation));
  }
  for (const entry of content.entries) {
    const head = Buffer.alloc(5);
    head.writeUInt8(ITEM.entry, 0);
    head.writeUInt32LE(entry.length, 1);
    items.push(head, entry);
  }
  for (const tail of content.tails) items.push(encodeTailHead(tail), tail.bytes);
  let payloadBytes = 0;
  for (const item of items) payloadBytes += item.length;
  const end = HEADER_BYTES + payloadBytes;
  const record = allocate(Math.ceil(end / PAGE_BYTES) * PAGE_BYTES);
  let at = HEADER_BYTES;
  for (const item of items) {
    record.set(item, at);
    at += item.length;
  }
  record.fill(0, end);
  record.set(MAGIC, AT.magic);
  record.set(generation, AT.generation);
  record.writeUInt32LE(sequence, AT.sequence);
  record.writeUInt32LE(payloadBytes, AT.payloadBytes);
  record.writeUInt32LE(crc32(record.subarray(0, AT.headerCrc32)), AT.headerCrc32);
  record.writeUInt32LE(crc32(record.subarray(HEADER_BYTES, end)), AT.payloadCrc32);
  return record;
}

function encodeTailHead({ shard, offset, bytes, crc32: sum }: Tail): Buffer {
  const head = Buffer.alloc(sum === null ? 17 : 21);
  head.writeUInt8(sum === null ? ITEM.uncheckedTail : ITEM.tail, 0);
  head.writeBigUInt64LE(BigInt(shard), 1);
  head.writeUInt32LE(offset, 9);
  head.writeUInt32LE(bytes.length, 13);
  if (sum !== null) head.writeUInt32LE(sum, 17);
  return head;
}

function encodeOperation(operation: BatchOperation): Uint8Array[] {
  const head = Buffer.alloc(7);
  head.writeUInt8(operation.type === 'put' ? ITEM.put : ITEM.delete, 0);
  head.writeUInt16LE(operation.key.length, 1);
  if (operation.type === 'del') return [head, operation.key];
  head.writeUInt32LE(operation.value.length, 3);
  return [head, operation.key, operation.value];
}

function isMagic(header: Buffer): boolean {
  return header.subarray(0, 3).equals(MAGIC.subarray(0, 3)) && KNOWN_VERSIONS.includes(header[3] ?? 0);
}

/** The header of the record that begins at `start`, and its items; null where it is not whole. */
function recordAt(file: Buffer, start: number): { header: Buffer; payload: Buffer; end: number } | null {
  const header = file.subarray(start, start + HEADER_BYTES);
  if (header.length < HEADER_BYTES || !isMagic(header)) return null;
  if (header.readUInt32LE(AT.headerCrc32) !== crc32(header.subarray(0, AT.headerCrc32))) return null;
  const end = start + HEADER_BYTES + header.readUInt32LE(AT.payloadBytes);
  const payload = file.subarray(start + HEADER_BYTES, end);
  if (end > file.length || header.readUInt32LE(AT.payloadCrc32) !== crc32(payload)) return null;
  return { header, payload, end: Math.ceil(end / PAGE_BYTES) * PAGE_BYTES };
}

/** All whole records of the first generation in a file, up to the first that is torn, of another one or out of turn; BAD_FORMAT for another version. */
export function decodeSyncJournal(file: Buffer): LeftSyncJournal {
  const content = { batches: [] as NumberedBatch[], entries: [] as Uint8Array[], tails: [] as Tail[] };
  const isForeign = file.length < MAGIC.length || !file.subarray(0, 3).equals(MAGIC.subarray(0, 3));
  if (!isForeign && !isMagic(file)) {
    throw new XcoreError('BAD_FORMAT', 'the sync journal was written by a newer xcore');
  }
  const generation = file.subarray(AT.generation, AT.sequence);
  let start = 0;
  for (let sequence = 0; ; sequence++) {
    const record = recordAt(file, start);
    if (record === null) break;
    const { header, payload, end } = record;
    const isNext =
      header.subarray(AT.generation, AT.sequence).equals(generation) && header.readUInt32LE(AT.sequence) === sequence;
    if (!isNext) break;
    decodePayload(payload, content);
    start = end;
  }
  const { batches, entries } = contentFrom(file, start);
  const newest = Math.max(0, ...[...content.batches, ...batches].map(({ number }) => number));
  // the journal to which entries belong tells which of them follow, and misses those that should
  return { ...content, entries: [...content.entries, ...entries], newest };
}

/** What whole records from `start` on hold, of whatever generation. */
function contentFrom(file: Buffer, start: number): SyncJournalContent {
  const content = { batches: [] as NumberedBatch[], entries: [] as Uint8Array[], tails: [] as Tail[] };
  for (let at = start; at < file.length;) {
    const record = recordAt(file, at);
    if (record !== null) decodePayload(record.payload, content);
    at = record === null ? at + PAGE_BYTES : record.end;
  }
  return content;
}

/** Its checksum is right: what is malformed all the same was not written by this version. */
function decodePayload(
  payload: Buffer,
  content: { batches: NumberedBatch[]; entries: Uint8Array[]; tails: Tail[] },
): void {
  let at = 0;
  const take = (length: number): Buffer => {
    if (at + length > payload.length) throw new XcoreError('BAD_FORMAT', 'an item of the sync journal is cut off');
    at += length;
    return payload.subarray(at - length, at);
  };
  while (at < payload.length) {
    const kind = take(1)[0];
    if (kind === ITEM.batch) {
      const number = Number(take(8).readBigUInt64LE());
      const operations: BatchOperation[] = [];
      for (let left = take(4).readUInt32LE(); left > 0; left--) operations.push(decodeOperation(take));
      content.batches.push({ number, operations });
    } else if (kind === ITEM.entry) {
      content.entries.push(take(take(4).readUInt32LE()));
    } else if (kind === ITEM.tail || kind === ITEM.uncheckedTail) {
      const shard = Number(take(8).readBigUInt64LE());
      const offset = take(4).readUInt32LE();
      const lengthBytes = take(4).readUInt32LE();
      const sum = kind === ITEM.tail ? take(4).readUInt32LE() : null;
      content.tails.push({ shard, offset, bytes: take(lengthBytes), crc32: sum });
    } else {
      throw new XcoreError('BAD_FORMAT', `an item of the unknown kind ${kind} in the sync journal`);
    }
  }
}

function decodeOperation(take: (length: number) => Buffer): BatchOperation {
  const kind = take(1)[0];
  const keyBytes = take(2).readUInt16LE();
  const valueBytes = take(4).readUInt32LE();
  const key = take(keyBytes);
  if (kind === ITEM.put) return { type: 'put', key, value: take(valueBytes) };
  if (kind === ITEM.delete) return { type: 'del', key };
  throw new XcoreError('BAD_FORMAT', `an operation of the unknown kind ${kind} in the sync journal`);
}

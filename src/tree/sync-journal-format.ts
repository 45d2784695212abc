// Bytes of the sync journal: records of whole pages, each with batches of the index and ends of segments. FORMAT.md,
// "Sync journal". Pure functions.

import { crc32 } from 'node:zlib';
import { XcoreError } from '../lib/errors.ts';
import type { BatchOperation } from './index-database.ts';

/** What a record is a multiple of: pages that hold one record are never written for another. */
export const PAGE_BYTES = 4_096;
const MAGIC = Buffer.from('XCJ1');
const HEADER_BYTES = 28;
const AT = { magic: 0, generation: 4, sequence: 12, payloadBytes: 16, headerCrc32: 20, payloadCrc32: 24 } as const;
const ITEM = { batch: 1, put: 2, delete: 3, tail: 4 } as const;

/** The end of a segment as it lies in its file. */
export interface Tail {
  readonly shard: number;
  /** In the shard. */
  readonly offset: number;
  /** Ciphertext. */
  readonly bytes: Uint8Array;
}

/** One batch of the index under its number. */
export interface NumberedBatch {
  readonly number: number;
  readonly operations: readonly BatchOperation[];
}

/** What a journal holds, in order. */
export interface SyncJournalContent {
  readonly batches: readonly NumberedBatch[];
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

/** One record; `generation` has 8 bytes, `sequence` counts from 0 in it. */
export function encodeRecord(generation: Uint8Array, sequence: number, content: SyncJournalContent): Buffer {
  const items: Uint8Array[] = [];
  for (const { number, operations } of content.batches) {
    const head = Buffer.alloc(13);
    head.writeUInt8(ITEM.batch, 0);
    head.writeBigUInt64LE(BigInt(number), 1);
    head.writeUInt32LE(operations.length, 9);
    items.push(head, ...operations.flatMap(encodeOperation));
  }
  for (const { shard, offset, bytes } of content.tails) {
    const head = Buffer.alloc(17);
    head.writeUInt8(ITEM.tail, 0);
    head.writeBigUInt64LE(BigInt(shard), 1);
    head.writeUInt32LE(offset, 9);
    head.writeUInt32LE(bytes.length, 13);
    items.push(head, bytes);
  }
  let payloadBytes = 0;
  for (const item of items) payloadBytes += item.length;
  const record = Buffer.alloc(Math.ceil((HEADER_BYTES + payloadBytes) / PAGE_BYTES) * PAGE_BYTES);
  let at = HEADER_BYTES;
  for (const item of items) {
    record.set(item, at);
    at += item.length;
  }
  record.set(MAGIC, AT.magic);
  record.set(generation, AT.generation);
  record.writeUInt32LE(sequence, AT.sequence);
  record.writeUInt32LE(payloadBytes, AT.payloadBytes);
  record.writeUInt32LE(crc32(record.subarray(0, AT.headerCrc32)), AT.headerCrc32);
  record.writeUInt32LE(crc32(record.subarray(HEADER_BYTES, at)), AT.payloadCrc32);
  return record;
}

function encodeOperation(operation: BatchOperation): Uint8Array[] {
  const head = Buffer.alloc(7);
  head.writeUInt8(operation.type === 'put' ? ITEM.put : ITEM.delete, 0);
  head.writeUInt16LE(operation.key.length, 1);
  if (operation.type === 'del') return [head, operation.key];
  head.writeUInt32LE(operation.value.length, 3);
  return [head, operation.key, operation.value];
}

/** The header of the record that begins at `start`, and its items; null where it is not whole. */
function recordAt(file: Buffer, start: number): { header: Buffer; payload: Buffer; end: number } | null {
  const header = file.subarray(start, start + HEADER_BYTES);
  if (header.length < HEADER_BYTES || !header.subarray(AT.magic, AT.generation).equals(MAGIC)) return null;
  if (header.readUInt32LE(AT.headerCrc32) !== crc32(header.subarray(0, AT.headerCrc32))) return null;
  const end = start + HEADER_BYTES + header.readUInt32LE(AT.payloadBytes);
  const payload = file.subarray(start + HEADER_BYTES, end);
  if (end > file.length || header.readUInt32LE(AT.payloadCrc32) !== crc32(payload)) return null;
  return { header, payload, end: Math.ceil(end / PAGE_BYTES) * PAGE_BYTES };
}

/** All whole records of the first generation in a file, up to the first that is torn, of another one or out of turn; BAD_FORMAT for another version. */
export function decodeSyncJournal(file: Buffer): LeftSyncJournal {
  const batches: NumberedBatch[] = [];
  const tails: Tail[] = [];
  const isKnown =
    file.length < MAGIC.length || !file.subarray(0, 3).equals(MAGIC.subarray(0, 3)) || file[3] === MAGIC[3];
  if (!isKnown) throw new XcoreError('BAD_FORMAT', 'the sync journal was written by a newer xcore');
  const generation = file.subarray(AT.generation, AT.sequence);
  let start = 0;
  for (let sequence = 0; ; sequence++) {
    const record = recordAt(file, start);
    if (record === null) break;
    const { header, payload, end } = record;
    const isNext =
      header.subarray(AT.generation, AT.sequence).equals(generation) && header.readUInt32LE(AT.sequence) === sequence;
    if (!isNext) break;
    decodePayload(payload, batches, tails);
    start = end;
  }
  return { batches, tails, newest: Math.max(0, ...batches.map(({ number }) => number), newestFrom(file, start)) };
}

/** Number of the newest batch in whole records from `start` on, of whatever generation. */
function newestFrom(file: Buffer, start: number): number {
  let newest = 0;
  for (let at = start; at < file.length;) {
    const record = recordAt(file, at);
    const batches: NumberedBatch[] = [];
    if (record !== null) decodePayload(record.payload, batches, []);
    newest = Math.max(newest, ...batches.map(({ number }) => number));
    at = record === null ? at + PAGE_BYTES : record.end;
  }
  return newest;
}

/** Its checksum is right: what is malformed all the same was not written by this version. */
function decodePayload(payload: Buffer, batches: NumberedBatch[], tails: Tail[]): void {
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
      batches.push({ number, operations });
    } else if (kind === ITEM.tail) {
      const shard = Number(take(8).readBigUInt64LE());
      const offset = take(4).readUInt32LE();
      tails.push({ shard, offset, bytes: take(take(4).readUInt32LE()) });
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

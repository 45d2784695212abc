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

/** All whole records of the first generation in a file, up to the first that is torn, of another one or out of turn; BAD_FORMAT for another version. */
export function decodeSyncJournal(file: Buffer): SyncJournalContent {
  const batches: NumberedBatch[] = [];
  const tails: Tail[] = [];
  const isKnown =
    file.length < MAGIC.length || !file.subarray(0, 3).equals(MAGIC.subarray(0, 3)) || file[3] === MAGIC[3];
  if (!isKnown) throw new XcoreError('BAD_FORMAT', 'the sync journal was written by a newer xcore');
  const generation = file.subarray(AT.generation, AT.sequence);
  for (let start = 0, sequence = 0; start + HEADER_BYTES <= file.length; sequence++) {
    const record = file.subarray(start);
    const isNext =
      record.subarray(AT.magic, AT.generation).equals(MAGIC) &&
      record.readUInt32LE(AT.headerCrc32) === crc32(record.subarray(0, AT.headerCrc32)) &&
      record.subarray(AT.generation, AT.sequence).equals(generation) &&
      record.readUInt32LE(AT.sequence) === sequence;
    if (!isNext) break;
    const end = HEADER_BYTES + record.readUInt32LE(AT.payloadBytes);
    const payload = record.subarray(HEADER_BYTES, end);
    if (end > record.length || record.readUInt32LE(AT.payloadCrc32) !== crc32(payload)) break;
    decodePayload(payload, batches, tails);
    start += Math.ceil(end / PAGE_BYTES) * PAGE_BYTES;
  }
  return { batches, tails };
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

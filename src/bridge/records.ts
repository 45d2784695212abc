// Between stored bytes and the records of src/bridge/proto/records.proto, and checks of what peers put into messages.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { XcoreError } from '../lib/errors.ts';
import {
  DeleteRecordSchema,
  HostRecordSchema,
  MirrorRecordSchema,
  OrderRecordSchema,
  ShardRecordSchema,
  StockRecordSchema,
  VolumeRecordSchema,
} from './proto/records_pb.ts';
import { MAX_SHARD_BYTES } from './policy.ts';

/** How one kind of record is made, written and read. */
export interface RecordCodec<S extends DescMessage> {
  make(fields: MessageInitShape<S>): MessageShape<S>;
  encode(record: MessageShape<S>): Uint8Array;
  /** BAD_FORMAT when the bytes are no such record. */
  decode(bytes: Uint8Array): MessageShape<S>;
}

/** What the bridge knows of a host. */
export const hostRecord = codecOf(HostRecordSchema);
/** A volume's log, quota and lease. */
export const volumeRecord = codecOf(VolumeRecordSchema);
/** A shard and its mirrors. */
export const shardRecord = codecOf(ShardRecordSchema);
/** One mirror inside a shard's record. */
export const mirrorRecord = codecOf(MirrorRecordSchema);
/** Store orders without a receipt yet. */
export const orderRecord = codecOf(OrderRecordSchema);
/** A mirror that its host is to delete. */
export const deleteRecord = codecOf(DeleteRecordSchema);
/** Hashed keys of a shard that were not used yet. */
export const stockRecord = codecOf(StockRecordSchema);

/** A shard id's or volume's 32 bytes as a key of a Map. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Whether two byte strings are equal. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** A peer's uint64 as a number; PROTOCOL above 2^53. */
export function toNumber(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new XcoreError('PROTOCOL', 'a number is out of range');
  return Number(value);
}

/** Throws PROTOCOL unless the id has 32 bytes. */
export function checkShardId(id: Uint8Array): void {
  if (id.length !== 32) throw new XcoreError('PROTOCOL', 'a shard id has 32 bytes');
}

/** Throws PROTOCOL or TOO_LARGE unless id and size can be those of a shard. */
export function checkShard(shard: { readonly shardId: Uint8Array; readonly sizeBytes: number }): void {
  checkShardId(shard.shardId);
  if (shard.sizeBytes < 1) throw new XcoreError('PROTOCOL', 'a shard has at least one byte');
  if (shard.sizeBytes > MAX_SHARD_BYTES) {
    throw new XcoreError('TOO_LARGE', `a shard has at most ${MAX_SHARD_BYTES} bytes`);
  }
}

/** Throws PROTOCOL when an id comes twice. */
export function checkDistinct(ids: readonly Uint8Array[]): void {
  if (new Set(ids.map(hexOf)).size !== ids.length) throw new XcoreError('PROTOCOL', 'a shard is named twice');
}

function codecOf<S extends DescMessage>(schema: S): RecordCodec<S> {
  return {
    make: (fields) => create(schema, fields),
    encode: (record) => toBinary(schema, record),
    decode: (bytes) => {
      try {
        return fromBinary(schema, bytes);
      } catch (cause) {
        throw new XcoreError('BAD_FORMAT', `a stored ${schema.name} cannot be read`, { cause });
      }
    },
  };
}

// Records of a tree to bytes and back.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { XcoreError } from '../lib/errors.ts';
import {
  CheckpointRecordSchema,
  CountersRecordSchema,
  DentryRecordSchema,
  HeadRecordSchema,
  InodeRecordSchema,
  ShardRecordSchema,
  WindowRecordSchema,
  XattrsRecordSchema,
} from './proto/tree_pb.ts';
import type { Window } from './extents.ts';
import { KIND } from './keys.ts';
import {
  countersBytes,
  dentryBytes,
  inodeBytes,
  readDentry,
  readInode,
  readWindow,
  shardBytes,
  windowBytes,
} from './record-bytes.ts';
import { MARK } from './records.ts';
import type {
  Inode,
  Dentry,
  Shard,
  Xattrs,
  Counters,
  HeadState,
  Upload,
  CheckpointShards,
  TreeRecord,
} from './records.ts';

function pack<S extends DescMessage>(schema: S, init: MessageInitShape<S>): Uint8Array {
  return toBinary(schema, create(schema, init));
}

/** Decodes a protobuf message, turning malformed input into CORRUPT_RECORD. */
export function unpack<S extends DescMessage>(schema: S, bytes: Uint8Array): MessageShape<S> {
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    throw new XcoreError('CORRUPT_RECORD', `malformed ${schema.typeName}`, { cause: error });
  }
}

const NO_BYTES = new Uint8Array(0);

/** Plaintext bytes of a record; its kind is the first character of its key. */
export function encodeRecord(kind: string, record: TreeRecord): Uint8Array {
  switch (kind) {
    case KIND.inode:
      return inodeBytes(record as Inode);
    case KIND.dentry:
      return dentryBytes(record as Dentry);
    case KIND.window:
      return windowBytes(record as Window);
    case KIND.shard:
      return shardBytes(record as Shard);
    case KIND.xattrs:
      return pack(XattrsRecordSchema, {
        xattrs: [...(record as Xattrs)].map(([name, value]) => ({ name: Buffer.from(name, 'latin1'), value })),
      });
    case KIND.counters:
      return countersBytes(record as Counters);
    case KIND.meta: {
      const head = record as HeadState;
      return pack(HeadRecordSchema, {
        seq: BigInt(head.seq),
        hash: head.hash,
        epoch: BigInt(head.epoch),
        lastCommit: BigInt(head.lastCommit),
        checkpointSeq: BigInt(head.checkpointSeq),
        logBytes: BigInt(head.logBytes),
        seenSeq: BigInt(head.seenSeq),
        seenHash: head.seenHash,
        sent: [...head.sent],
      });
    }
    case KIND.checkpoint:
      return pack(CheckpointRecordSchema, { ids: [...(record as CheckpointShards).ids] });
    case KIND.upload:
      return Uint8Array.of((record as Upload).lost === true ? 2 : (record as Upload).durable ? 1 : 0);
    case KIND.orphan:
      return NO_BYTES;
    default:
      throw new TypeError(`no record of kind ${kind}`);
  }
}

/** Reverses encodeRecord; `ino` is the inode number that the key of an inode holds. */
export function decodeRecord(kind: string, bytes: Uint8Array, ino: number): TreeRecord {
  return readUsual(kind, bytes, ino) ?? decodeAny(kind, bytes, ino);
}

/** Records as this program writes them; null for others, which may be right as well. */
function readUsual(kind: string, bytes: Uint8Array, ino: number): TreeRecord | null {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (kind === KIND.inode) return readInode(buffer, ino);
  if (kind === KIND.dentry) return readDentry(buffer);
  const window = kind === KIND.window ? readWindow(buffer) : null;
  return window !== null && isEven(window) ? window : null;
}

function isEven({ offsets, lengths, shards, shardOffsets }: Window): boolean {
  const { length } = offsets;
  return lengths.length === length && shards.length === length && shardOffsets.length === length;
}

function decodeAny(kind: string, bytes: Uint8Array, ino: number): TreeRecord {
  switch (kind) {
    case KIND.inode: {
      const r = unpack(InodeRecordSchema, bytes);
      return {
        ino,
        mode: r.mode,
        uid: r.uid,
        gid: r.gid,
        nlink: r.nlink,
        sizeBytes: Number(r.sizeBytes),
        atimeNs: r.atimeNs,
        mtimeNs: r.mtimeNs,
        ctimeNs: r.ctimeNs,
        btimeNs: r.btimeNs,
        rdev: r.rdev,
        symlinkTarget: r.symlinkTarget,
        hasXattrs: r.hasXattrs,
        parent: Number(r.parent),
        entries: Number(r.entries),
        storedBytes: Number(r.storedBytes),
      };
    }
    case KIND.dentry: {
      const r = unpack(DentryRecordSchema, bytes);
      return { name: Buffer.from(r.name).toString('latin1'), ino: Number(r.ino), type: r.type };
    }
    case KIND.window: {
      const r = unpack(WindowRecordSchema, bytes);
      const { offsets, lengths, shardOffsets } = r;
      const counts = [lengths.length, r.shards.length, shardOffsets.length];
      if (counts.some((count) => count !== offsets.length)) {
        throw new XcoreError('CORRUPT_RECORD', 'uneven lists of extents');
      }
      return { offsets, lengths, shards: r.shards.map(Number), shardOffsets };
    }
    case KIND.shard: {
      const r = unpack(ShardRecordSchema, bytes);
      const { salt, sizeBytes, id, liveBytes, crc32, syncedBytes, syncedCrc32 } = r;
      return { salt, sizeBytes, id, liveBytes: Number(liveBytes), crc32, syncedBytes, syncedCrc32 };
    }
    case KIND.xattrs: {
      const r = unpack(XattrsRecordSchema, bytes);
      return new Map(r.xattrs.map(({ name, value }) => [Buffer.from(name).toString('latin1'), value]));
    }
    case KIND.counters: {
      const r = unpack(CountersRecordSchema, bytes);
      return {
        nextIno: Number(r.nextIno),
        nextShard: Number(r.nextShard),
        inodes: Number(r.inodes),
        storedBytes: Number(r.storedBytes),
      };
    }
    case KIND.meta: {
      const r = unpack(HeadRecordSchema, bytes);
      return {
        seq: Number(r.seq),
        hash: r.hash,
        epoch: Number(r.epoch),
        lastCommit: Number(r.lastCommit),
        checkpointSeq: Number(r.checkpointSeq),
        logBytes: Number(r.logBytes),
        seenSeq: Number(r.seenSeq),
        seenHash: r.seenHash,
        sent: r.sent,
      };
    }
    case KIND.checkpoint:
      return { ids: unpack(CheckpointRecordSchema, bytes).ids };
    case KIND.upload:
      return bytes[0] === 2 ? { durable: false, lost: true } : { durable: bytes[0] === 1 };
    case KIND.orphan:
      return MARK;
    default:
      throw new XcoreError('BAD_FORMAT', `a record of the unknown kind ${JSON.stringify(kind)}`);
  }
}

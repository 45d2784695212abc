// A copy of the whole tree as ordinary shards, from which a new device starts instead of replaying
// the log from its beginning.

import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { sizeDelimitedDecodeStream, sizeDelimitedEncode } from '@bufbuild/protobuf/wire';
import { CtrStream, ctrAt } from '../crypto/ctr.ts';
import { shardKey } from '../crypto/keys.ts';
import { leafHashes, MAX_SHARD_SIZE_BYTES, shardIdOf } from '../crypto/merkle.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { XcoreError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { Network } from '../net/network.ts';
import { decodeNumber, KIND, keyBytes, PUBLISHED_KINDS } from '../tree/keys.ts';
import { ChangeSchema, CheckpointSchema } from '../tree/proto/tree_pb.ts';
import type { Change, Checkpoint } from '../tree/proto/tree_pb.ts';
import { decodeRecord, encodeRecord } from '../tree/record-codec.ts';
import type { Shard } from '../tree/records.ts';
import type { StoreSnapshot } from '../tree/record-store.ts';
import type { Tree } from '../tree/tree.ts';

/** What checkpoints are written with and read from. */
export interface CheckpointComponents {
  readonly network: Network;
  readonly dataKey: Buffer;
  /** Folder for the shard that is under way. */
  readonly dir: string;
  /** This machine's unless told. */
  readonly disk?: Disk;
  /** Salts of keys; the system's unless told. */
  readonly randomBytes?: RandomBytes;
}

/** The published records of a snapshot, each as a length-delimited Change. */
async function* encodedRecords(tree: Tree, snapshot: StoreSnapshot): AsyncGenerator<Uint8Array> {
  for (const kind of PUBLISHED_KINDS) {
    for await (const { key, value } of tree.store.plaintexts(kind, { snapshot })) {
      const bytes = kind === KIND.shard ? completeShard(tree, key, value) : value;
      yield sizeDelimitedEncode(ChangeSchema, create(ChangeSchema, { key: keyBytes(key), value: bytes }));
    }
  }
}

/** A segment that was open at the snapshot has its id now. */
function completeShard(tree: Tree, key: string, value: Uint8Array): Uint8Array {
  const shard = decodeNumber(key, 1);
  const then = decodeRecord(KIND.shard, value, shard) as Shard;
  const now = tree.shard(shard);
  if (then.id.length > 0 || now === undefined) return value;
  return encodeRecord(KIND.shard, { ...then, id: now.id, sizeBytes: now.sizeBytes });
}

/** Joins parts of any length into blocks of one shard's size; the last may be shorter. */
async function* intoShards(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let block = Buffer.alloc(MAX_SHARD_SIZE_BYTES);
  let length = 0;
  for await (const part of parts) {
    for (let done = 0; done < part.length;) {
      const taken = Math.min(part.length - done, block.length - length);
      block.set(part.subarray(done, done + taken), length);
      done += taken;
      length += taken;
      if (length === block.length) {
        yield block;
        block = Buffer.alloc(MAX_SHARD_SIZE_BYTES);
        length = 0;
      }
    }
  }
  if (length > 0) yield block.subarray(0, length);
}

async function writeWhole(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const file = await disk.open(path, 'w', 0o600);
  try {
    await file.writeFile(bytes);
  } finally {
    await file.close();
  }
}

/**
 * Stores the tree of a snapshot, which is as after entry `seq`; resolves when all its shards are durable. `onShard` is
 * told of each before it is stored.
 */
export async function writeCheckpoint(
  { network, dataKey, dir, disk = systemDisk, randomBytes: random = randomBytes }: CheckpointComponents,
  tree: Tree,
  snapshot: StoreSnapshot,
  seq: number,
  signal: AbortSignal,
  onShard: (id: Uint8Array) => void = () => undefined,
): Promise<Checkpoint> {
  await disk.mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, 'shard');
  const hash = createHash('sha256');
  let records = 0n;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const bytes of encodedRecords(tree, snapshot)) {
      records++;
      hash.update(bytes);
      yield bytes;
    }
  }
  const shards: { salt: Uint8Array; sizeBytes: number; id: Buffer }[] = [];
  try {
    for await (const block of intoShards(counted())) {
      const salt = random(32);
      const ciphertext = new CtrStream(shardKey(dataKey, salt)).encrypt(block);
      const id = shardIdOf(leafHashes(ciphertext), ciphertext.length);
      await writeWhole(disk, path, ciphertext);
      onShard(id);
      await network.upload({ id, sizeBytes: ciphertext.length, path }, signal);
      shards.push({ salt, sizeBytes: ciphertext.length, id });
    }
  } finally {
    await disk.rm(path, { force: true });
  }
  return create(CheckpointSchema, { seq: BigInt(seq), shards, records, hash: hash.digest() });
}

/** The records of a checkpoint, in order; CORRUPT_RECORD after the last one if any is missing or wrong. */
export async function* readCheckpoint(
  { network, dataKey, dir, disk = systemDisk }: CheckpointComponents,
  checkpoint: Checkpoint,
): AsyncGenerator<Change> {
  await disk.mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, 'shard');
  const hash = createHash('sha256');
  async function* plaintext(): AsyncGenerator<Uint8Array> {
    for (const { id, salt, sizeBytes } of checkpoint.shards) {
      await network.fetchShard(id, sizeBytes, path);
      const ciphertext = (await disk.readFile(path)).subarray(0, sizeBytes);
      const bytes = ctrAt(shardKey(dataKey, salt), 0, ciphertext);
      hash.update(bytes);
      yield bytes;
    }
  }
  let records = 0n;
  try {
    for await (const change of changesIn(plaintext())) {
      records++;
      yield change;
    }
  } finally {
    await disk.rm(path, { force: true });
  }
  if (records !== checkpoint.records || !hash.digest().equals(checkpoint.hash)) {
    throw new XcoreError('CORRUPT_RECORD', 'the checkpoint of the volume is incomplete');
  }
}

/** What a decoder says is the bytes' fault; what was thrown while they were fetched stays as it is. */
async function* changesIn(plaintext: AsyncIterable<Uint8Array>): AsyncGenerator<Change> {
  let fetching: unknown;
  async function* noting(): AsyncGenerator<Uint8Array> {
    try {
      yield* plaintext;
    } catch (error) {
      fetching = error;
      throw error;
    }
  }
  try {
    yield* sizeDelimitedDecodeStream(ChangeSchema, noting());
  } catch (error) {
    if (error === fetching) throw error;
    throw new XcoreError('CORRUPT_RECORD', 'the checkpoint of the volume is malformed', { cause: error });
  }
}

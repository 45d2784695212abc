// One entry of the volume log: sealing, signing, and the checks that catch a bridge that lies.

import { createHash } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { VolumeKeys } from '../crypto/keys.ts';
import { Sealer } from '../crypto/sealer.ts';
import { sign, verify } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { ENTRY_LABEL, ENTRY_VERSION, entryHash } from '../net/entry-hash.ts';
import type { WireEntry } from '../net/network.ts';
import { EntryHeaderSchema } from '../net/proto/wire_pb.ts';
import type { EntryHeader } from '../net/proto/wire_pb.ts';
import { ChangeSetSchema } from '../tree/proto/tree_pb.ts';
import type { ChangeSet } from '../tree/proto/tree_pb.ts';
import { changeSetBytes } from '../tree/record-bytes.ts';
import { unpack } from '../tree/record-codec.ts';

/** What goes into an entry. */
export interface NewEntry {
  readonly seq: number;
  readonly prevHash: Uint8Array;
  readonly epoch: number;
  readonly device: string;
  readonly timeMs: number;
  readonly changeSet: ChangeSet;
  readonly added: readonly { id: Uint8Array; sizeBytes: number }[];
  readonly freed: readonly Uint8Array[];
  /** Above 0: the entry says where a copy of the whole tree lies, as after entry `checkpointSeq`. */
  readonly checkpointSeq: number;
}

/** An entry that was checked. */
export interface OpenedEntry {
  readonly header: EntryHeader;
  readonly hash: Buffer;
  readonly seq: number;
  readonly sizeBytes: number;
  /** Null where a later checkpoint replaced the body. */
  readonly changeSet: ChangeSet | null;
}

function bytesOf(changeSet: ChangeSet): Uint8Array {
  if (changeSet.checkpoint !== undefined) return toBinary(ChangeSetSchema, changeSet);
  const { changes, lineage, lastCommit } = changeSet;
  return changeSetBytes(
    changes.map(({ key, value }) => ({ key, value: value ?? null })),
    lineage,
    Number(lastCommit),
  );
}

/** Writes and reads the entries of one volume. */
export class EntryCodec {
  readonly #keys: VolumeKeys;
  readonly #sealer: Sealer;

  /** `random`: as a Sealer's. */
  constructor(keys: VolumeKeys, random?: RandomBytes) {
    this.#keys = keys;
    this.#sealer = new Sealer(keys.logKey, random);
  }

  /** Seals and signs an entry. */
  build(entry: NewEntry): { wire: WireEntry; hash: Buffer } {
    const body = this.#sealer.seal(bytesOf(entry.changeSet), this.#place(entry.seq, entry.prevHash));
    const header = toBinary(
      EntryHeaderSchema,
      create(EntryHeaderSchema, {
        version: ENTRY_VERSION,
        volume: this.#keys.ownerPublicKey,
        seq: BigInt(entry.seq),
        prevHash: entry.prevHash,
        epoch: BigInt(entry.epoch),
        device: entry.device,
        bodyHash: createHash('sha256').update(body).digest(),
        bodySizeBytes: body.length,
        shardsAdded: entry.added.map(({ id, sizeBytes }) => ({ shardId: id, sizeBytes })),
        shardsFreed: [...entry.freed],
        timeMs: BigInt(entry.timeMs),
        checkpointSeq: BigInt(entry.checkpointSeq),
      }),
    );
    const signature = sign(this.#keys.ownerSeed, ENTRY_LABEL, header);
    return { wire: { header, signature, body }, hash: entryHash(header) };
  }

  /** What a sealed body is bound to: its place in the log. */
  #place(seq: number, prevHash: Uint8Array): Buffer {
    const place = Buffer.alloc(8 + prevHash.length);
    place.writeBigUInt64BE(BigInt(seq));
    place.set(prevHash, 8);
    return place;
  }

  /**
   * Checks an entry as the bridge gave it: signed by the owner, number `seq`, and, if `prevHash` is
   * given, following that entry. FORKED_LOG when any of it is wrong.
   */
  open(wire: WireEntry, seq: number, prevHash: Uint8Array | null): OpenedEntry {
    if (!verify(this.#keys.ownerPublicKey, ENTRY_LABEL, wire.header, wire.signature)) {
      throw new XcoreError('FORKED_LOG', `entry ${seq} of the volume log is not signed by its owner`);
    }
    let header: EntryHeader;
    try {
      header = fromBinary(EntryHeaderSchema, wire.header);
    } catch (cause) {
      throw new XcoreError('BAD_FORMAT', `entry ${seq} of the volume log is malformed`, { cause });
    }
    if (header.version !== ENTRY_VERSION) {
      throw new XcoreError('BAD_FORMAT', `log entries of version ${header.version} are unknown; update xcore`);
    }
    const isOurs = Buffer.from(header.volume).equals(this.#keys.ownerPublicKey);
    const follows = prevHash === null || Buffer.from(header.prevHash).equals(prevHash);
    if (!isOurs || Number(header.seq) !== seq || !follows) {
      throw new XcoreError('FORKED_LOG', `the bridge shows an entry ${seq} that does not follow from what was seen`);
    }
    const sizeBytes = wire.header.length + header.bodySizeBytes;
    const hash = entryHash(wire.header);
    if (wire.body.length === 0) return { header, hash, seq, sizeBytes, changeSet: null };
    if (!createHash('sha256').update(wire.body).digest().equals(header.bodyHash)) {
      throw new XcoreError('FORKED_LOG', `the body of entry ${seq} is not the one that was signed`);
    }
    const plaintext = this.#sealer.open(wire.body, this.#place(seq, header.prevHash));
    return { header, hash, seq, sizeBytes, changeSet: unpack(ChangeSetSchema, plaintext) };
  }
}

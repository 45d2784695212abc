// Publishes local commits as log entries, in order, once every shard they name is durable.

import { create } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Network } from '../net/network.ts';
import { KIND, decodeNumber, shardKeyOf } from '../tree/keys.ts';
import { ChangeSetSchema } from '../tree/proto/tree_pb.ts';
import type { Change, ChangeSet } from '../tree/proto/tree_pb.ts';
import { decodeRecord } from '../tree/record-codec.ts';
import type { HeadState, Shard } from '../tree/records.ts';
import type { HandIn } from './hand-in.ts';
import type { EntryCodec, OpenedEntry } from './log-entry.ts';
import type { LocalVolume } from './local-volume.ts';
import { ENTRY_TARGET_BYTES, isAlive, nextPublication } from './outbox.ts';
import { forgetShard } from './replay.ts';
import { splitPublication } from './split-publication.ts';

/** A body may be a little over the target: one commit is one entry. The bridge takes 3 MiB. */
const MAX_BODY_BYTES = 2.5 * 1024 * 1024;
/** Tries to append after one entry of the log that are remembered: any of them may be in the log when its answer was lost. */
const MAX_SENT = 64;

/** What a publisher is built from. */
export interface PublisherComponents {
  readonly network: Network;
  readonly codec: EntryCodec;
  readonly handIn: HandIn;
  readonly clock: Clock;
  readonly log: Logger;
  readonly device: string;
  /** Dead shards that must be uploaded all the same, because entries before their death wait for them. */
  readonly onNeeded: (shards: readonly number[]) => void;
  /** An entry is about to free these shards; once this resolves, none of them is stored any more. */
  readonly onFreeing: (shards: readonly number[]) => Promise<void>;
}

/** Bounds of what is published at once; the constants of this file unless told. */
export interface PublisherOptions {
  readonly maxBodyBytes?: number;
  readonly entryTargetBytes?: number;
}

/** Appends to the volume log; only the holder of the lease may. */
export class Publisher {
  readonly #c: PublisherComponents;
  readonly #limits: Required<PublisherOptions>;
  #blockedOn: readonly number[] = [];
  #isClaiming = false;

  constructor(components: PublisherComponents, options: PublisherOptions = {}) {
    this.#c = components;
    const { maxBodyBytes = MAX_BODY_BYTES, entryTargetBytes = ENTRY_TARGET_BYTES } = options;
    this.#limits = { maxBodyBytes, entryTargetBytes };
  }

  /** Whether the next entry claims shards. */
  get isClaiming(): boolean {
    return this.#isClaiming;
  }

  /**
   * What is published next claims its shards: the bridge has forgotten their mirrors, and is to look for them. Only a
   * device that has just made sure of its lease may go on to publish it.
   */
  claim(): void {
    this.#isClaiming = true;
  }

  /** Publishes one entry, of commits up to `boundary`; false when there is nothing that can be. */
  async publish(volume: LocalVolume, epoch: number, boundary = Infinity): Promise<boolean> {
    const { tree, store } = volume;
    // until one of these changes, reading the outbox again would find the same
    if (this.#blockedOn.some((shard) => isAlive(tree, shard))) return false;
    await store.commit();
    const limit = Math.min(boundary, store.lastCommit);
    const next = await nextPublication(tree, limit, this.#limits.entryTargetBytes);
    this.#blockedOn = [];
    if (next === null) return false;
    if ('waitsFor' in next) {
      this.#blockedOn = next.firstWaitsFor;
      const dead = next.isFull
        ? next.waitsFor.filter((shard) => tree.isStaged(shard) && tree.shard(shard)?.liveBytes === 0)
        : [];
      if (dead.length > 0) this.#c.onNeeded(dead);
      return false;
    }
    // what is stored behind the entry that frees it nobody would ever free
    await this.#c.onFreeing(next.freed.map(({ shard }) => shard));
    const parts = splitPublication(next, this.#limits);
    for (const [index, part] of parts.entries()) {
      const changeSet = create(ChangeSetSchema, {
        changes: part.changes as Change[],
        lineage: volume.store.lineage,
        lastCommit: BigInt(index === parts.length - 1 ? next.lastCommit : volume.tree.head.lastCommit),
      });
      await this.append(volume, epoch, changeSet, part.added, part.freed, 0);
    }
    this.#isClaiming = false;
    return true;
  }

  /** Appends one entry and settles what it published. */
  async append(
    volume: LocalVolume,
    epoch: number,
    changeSet: ChangeSet,
    added: readonly { id: Uint8Array; sizeBytes: number }[],
    freed: readonly { id: Uint8Array }[],
    checkpointSeq: number,
  ): Promise<void> {
    const { tree, store } = volume;
    const { head } = tree;
    const { wire, hash } = this.#c.codec.build({
      seq: head.seq + 1,
      prevHash: head.hash,
      epoch,
      device: this.#c.device,
      timeMs: this.#c.clock.now(),
      changeSet,
      added,
      freed: freed.map(({ id }) => id),
      checkpointSeq,
    });
    tree.putHead({ ...head, sent: [...head.sent, hash].slice(-MAX_SENT) });
    // what others may see must survive a power cut here, ids of shards too that were sealed since the last commit; so must
    // what tells this entry from one that a copy of this index wrote
    await store.commit(true);
    await this.#c.network.append(wire, this.#isClaiming);
    await this.#c.handIn.keep(wire);
    await this.#c.handIn.sync();
    await settleEntry(volume, {
      seq: head.seq + 1,
      hash,
      sizeBytes: wire.header.length + wire.body.length,
      changeSet,
      added: added.map(({ id }) => id),
      checkpointSeq,
    });
    this.#c.log.debug({ seq: head.seq + 1, commits: Number(changeSet.lastCommit) }, 'published an entry');
  }
}

/** An own entry that is in the log. */
export interface SettledEntry {
  readonly seq: number;
  readonly hash: Uint8Array;
  readonly sizeBytes: number;
  readonly changeSet: ChangeSet;
  /** Ids of the shards that it added. */
  readonly added: readonly Uint8Array[];
  readonly checkpointSeq: number;
}

/** An own entry whose answer was lost, as found in the log. */
export function settledFrom(entry: OpenedEntry): SettledEntry {
  if (entry.changeSet === null) throw new XcoreError('FORKED_LOG', `entry ${entry.seq} has lost its body`);
  return {
    seq: entry.seq,
    hash: entry.hash,
    sizeBytes: entry.sizeBytes,
    changeSet: entry.changeSet,
    added: entry.header.shardsAdded.map(({ shardId }) => shardId),
    checkpointSeq: Number(entry.header.checkpointSeq),
  };
}

/** Whether this index wrote the entry of this hash, which comes next in the log: a copy of it may go on with the same lineage. */
export function isSent({ sent }: HeadState, hash: Uint8Array): boolean {
  return sent.some((each) => Buffer.from(each).equals(hash));
}

/**
 * Notes locally that an entry of this index is in the log: in one commit, so that a crash repeats
 * nothing.
 */
export async function settleEntry(volume: LocalVolume, entry: SettledEntry): Promise<void> {
  const { tree, store } = volume;
  const added = new Set(entry.added.map((id) => Buffer.from(id).toString('hex')));
  for (const { key: bytes, value } of entry.changeSet.changes) {
    const key = Buffer.from(bytes).toString('latin1');
    if (!key.startsWith(KIND.shard)) continue;
    const shard = decodeNumber(key, 1);
    if (value !== undefined) {
      const { id } = decodeRecord(KIND.shard, value, shard) as Shard;
      if (added.has(Buffer.from(id).toString('hex'))) tree.deleteUpload(shard);
    } else {
      if (tree.shard(shard) !== undefined) store.deletePublished(shardKeyOf(shard));
      forgetShard(volume, shard);
    }
  }
  const { head } = tree;
  const isCheckpoint = entry.checkpointSeq > 0;
  tree.putHead({
    ...head,
    seq: entry.seq,
    hash: entry.hash,
    lastCommit: Math.max(head.lastCommit, Number(entry.changeSet.lastCommit)),
    checkpointSeq: isCheckpoint ? entry.checkpointSeq : head.checkpointSeq,
    logBytes: isCheckpoint ? 0 : head.logBytes + entry.sizeBytes,
    sent: [],
  });
  if (isCheckpoint) tree.putCheckpoint((entry.changeSet.checkpoint?.shards ?? []).map(({ id }) => id));
  await store.published(Number(entry.changeSet.lastCommit));
}

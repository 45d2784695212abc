// When a volume gets a checkpoint, and how one gets into the log. One that fails keeps no entry waiting, and gives back
// the room on the network that it took.

import { create } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { ChangeSetSchema } from '../tree/proto/tree_pb.ts';
import type { Checkpoint } from '../tree/proto/tree_pb.ts';
import type { StoreSnapshot } from '../tree/record-store.ts';
import { writeCheckpoint } from './checkpoint.ts';
import type { CheckpointComponents } from './checkpoint.ts';
import type { LocalVolume } from './local-volume.ts';
import type { Problems } from './problems.ts';
import type { Publisher } from './publisher.ts';
import type { WriteLease } from './write-lease.ts';

/** The log may grow to this, or to half of the last checkpoint's size, before the next one. */
const CHECKPOINT_LOG_BYTES = 8 * 1024 * 1024;
const SHARD_SIZE_BYTES = 2_097_152;
/** After one that failed. */
const AGAIN_AFTER_MS = 5 * 60_000;
const PROBLEM = 'checkpoint';

/** What checkpoints are published with. */
export interface CheckpointingComponents {
  readonly publisher: Publisher;
  readonly lease: WriteLease;
  readonly checkpoints: CheckpointComponents;
  readonly clock: Clock;
  readonly log: Logger;
  readonly problems: Problems;
}

/** The checkpoints of one volume's log. */
export class Checkpointing {
  readonly #c: CheckpointingComponents;
  readonly #logBytes: number | undefined;
  #isWanted = false;
  #notBeforeMs = -Infinity;

  /** `logBytes`: log after which one is due; unless told, 8 MiB or half of the last one. */
  constructor(components: CheckpointingComponents, logBytes?: number) {
    this.#c = components;
    this.#logBytes = logBytes;
  }

  /** One is due, however short the log is. */
  want(): void {
    this.#isWanted = true;
  }

  /** Whether one is to be written now. */
  isDue({ tree }: LocalVolume): boolean {
    if (this.#c.clock.monotonicMs() < this.#notBeforeMs) return false;
    const usual = Math.max(CHECKPOINT_LOG_BYTES, (tree.checkpointShards.length * SHARD_SIZE_BYTES) / 2);
    return this.#isWanted || tree.head.logBytes > (this.#logBytes ?? usual);
  }

  /** Publishes what is there, and then a checkpoint of it. Fails as publishing does; a checkpoint that fails alone is only told. */
  async write(volume: LocalVolume, stopping: AbortSignal): Promise<void> {
    const { publisher, lease } = this.#c;
    const { store } = volume;
    await store.commit();
    const snapshot = store.snapshot();
    const boundary = store.lastCommit;
    try {
      while (store.firstUnpublished <= boundary) {
        // the rest waits for shards: the checkpoint is tried again when they are durable
        if (!(await publisher.publish(volume, lease.epoch, boundary))) return;
      }
      await this.#writeCopy(volume, snapshot, stopping);
    } finally {
      await snapshot.close();
    }
  }

  async #writeCopy(volume: LocalVolume, snapshot: StoreSnapshot, stopping: AbortSignal): Promise<void> {
    const { publisher, lease, checkpoints, problems, log } = this.#c;
    const { tree, store } = volume;
    const { seq } = tree.head;
    const old = tree.checkpointShards.map((id) => ({ id }));
    const stored: { id: Uint8Array }[] = [];
    const write = (signal: AbortSignal): Promise<Checkpoint> =>
      writeCheckpoint(checkpoints, tree, snapshot, seq, signal, (id) => stored.push({ id }));
    const changeSet = { lineage: store.lineage, lastCommit: BigInt(tree.head.lastCommit) };
    try {
      const checkpoint = await lease.keepDuring(write, stopping);
      const entry = create(ChangeSetSchema, { ...changeSet, checkpoint });
      await publisher.append(volume, lease.epoch, entry, checkpoint.shards, old, seq);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#notBeforeMs = this.#c.clock.monotonicMs() + AGAIN_AFTER_MS;
      log.warn({ error: asError(error) }, 'a checkpoint could not be written');
      const message = `a copy of the whole tree could not be stored: ${error.message}`;
      problems.set(PROBLEM, error.code, message, 'tried again in a while; new devices start more slowly until then');
      // nobody would ever name them
      if (stored.length > 0) {
        await publisher.append(volume, lease.epoch, create(ChangeSetSchema, changeSet), [], stored, 0);
      }
      return;
    }
    this.#isWanted = false;
    problems.clear(PROBLEM);
    log.info({ seq, shards: stored.length }, 'wrote a checkpoint of the volume');
  }
}

/** Whether an attempt has failed for good, and certainly is not in the log. */
function isRefusal(error: unknown): error is XcoreError {
  if (!(error instanceof XcoreError)) return false;
  return !hasCode(error, 'LEASE_LOST', 'LEASE_HELD', 'STALE_HEAD', 'UNREACHABLE', 'TIMEOUT', 'ABORTED', 'CLOSED');
}

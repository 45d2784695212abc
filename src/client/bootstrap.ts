// Starts a local volume from the newest checkpoint of its log.

import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Network } from '../net/network.ts';
import { PUBLISHED_KINDS } from '../tree/keys.ts';
import { readCheckpoint } from './checkpoint.ts';
import type { CheckpointComponents } from './checkpoint.ts';
import { newestSeen } from './hand-in.ts';
import type { EntryCodec } from './log-entry.ts';
import type { LocalVolume } from './local-volume.ts';
import { applyChanges } from './replay.ts';

const TRIES = 3;
const READ_LOG_BYTES = 1024 * 1024;

/** What a bootstrap needs. */
export interface BootstrapComponents {
  readonly network: Network;
  readonly codec: EntryCodec;
  readonly checkpoints: CheckpointComponents;
}

/**
 * Fills the tree from the newest checkpoint and sets the head to where it stands; leaves an empty
 * tree where the log has none and is read from its beginning. Whatever an earlier try left is
 * removed first. Resolves to the number of the entry that told of the checkpoint, 0 without one.
 * FORKED_LOG when the log does not hold what was seen before.
 */
export async function bootstrap(c: BootstrapComponents, volume: LocalVolume): Promise<number> {
  for (let tries = 1; ; tries++) {
    try {
      await removePublished(volume);
      return await load(c, volume);
    } catch (error) {
      // the checkpoint may have been replaced meanwhile
      if (tries === TRIES || !hasCode(error, 'NO_MIRROR', 'NOT_FOUND')) throw error;
    }
  }
}

/** Whether the log has a newer checkpoint than that of entry `entrySeq`, which the bridge then may have dropped entries behind. */
export async function isReplaced({ network }: BootstrapComponents, entrySeq: number): Promise<boolean> {
  return (await network.readLog(1, 1, true)).head.checkpointEntrySeq > entrySeq;
}

/** Removes what a log could have brought. */
async function removePublished({ store, tree }: LocalVolume): Promise<void> {
  store.setRecording(false);
  const { head } = tree;
  if (head.seq > 0) {
    // first, so that what a crash leaves half removed is no state
    const { seq, hash } = newestSeen(head);
    tree.putHead({ ...head, seq: 0, hash: new Uint8Array(32), seenSeq: seq, seenHash: hash });
  }
  await store.commit();
  for (const kind of PUBLISHED_KINDS) {
    for await (const { key } of store.plaintexts(kind)) {
      store.delete(key);
      await store.settle();
    }
  }
  tree.forgetNames();
  await store.commit();
}

async function load(c: BootstrapComponents, volume: LocalVolume): Promise<number> {
  const { network, codec, checkpoints } = c;
  const { head } = await network.readLog(1, 1, true);
  const entrySeq = head.checkpointEntrySeq;
  if (entrySeq === 0) return 0;
  const { entries } = await network.readLog(entrySeq, 1);
  const [wire] = entries;
  if (wire === undefined) throw new XcoreError('FORKED_LOG', 'the bridge does not show the checkpoint that it names');
  const { changeSet } = codec.open(wire, entrySeq, null);
  if (changeSet === null && (await isReplaced(c, entrySeq))) {
    throw new XcoreError('NOT_FOUND', 'the checkpoint of the volume was replaced while it was looked for');
  }
  const checkpoint = changeSet?.checkpoint;
  if (checkpoint === undefined) throw new XcoreError('FORKED_LOG', 'the bridge names a checkpoint that is none');
  const seq = Number(checkpoint.seq);
  const hash = await provenHash(c, volume, seq);
  const { tree, store } = volume;
  for await (const change of readCheckpoint(checkpoints, checkpoint)) {
    applyChanges(volume, [change]);
    await store.settle();
  }
  tree.putHead({ ...tree.head, seq, hash, epoch: 0, checkpointSeq: seq, logBytes: 0 });
  tree.putCheckpoint(checkpoint.shards.map(({ id }) => id));
  await store.commit(true);
  return entrySeq;
}

/** Hash of entry `seq`, reached by following the headers from what this device saw before. */
async function provenHash({ network, codec }: BootstrapComponents, volume: LocalVolume, seq: number): Promise<Buffer> {
  const { seenSeq, seenHash } = volume.tree.head;
  let at = seenSeq > 0 && seenSeq <= seq ? seenSeq : seq;
  let previous: Buffer | null = null;
  for (;;) {
    const { entries } = await network.readLog(at, READ_LOG_BYTES, true);
    if (entries.length === 0) throw new XcoreError('FORKED_LOG', `the volume log lacks entry ${at}`);
    for (const wire of entries) {
      const { hash } = codec.open(wire, at, previous);
      if (at === seenSeq && !hash.equals(seenHash)) {
        throw new XcoreError('FORKED_LOG', `entry ${at} of the volume log is not the one that this device has seen`);
      }
      if (at === seq) return hash;
      previous = hash;
      at++;
    }
  }
}

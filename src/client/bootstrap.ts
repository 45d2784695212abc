// Starts an empty local volume from the newest checkpoint of its log.

import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Network } from '../net/network.ts';
import { readCheckpoint } from './checkpoint.ts';
import type { CheckpointComponents } from './checkpoint.ts';
import type { EntryCodec } from './log-entry.ts';
import type { LocalVolume } from './local-volume.ts';
import { applyChanges } from './replay.ts';
import type { Invalidations } from './replay.ts';

const TRIES = 3;

/** What a bootstrap needs. */
export interface BootstrapComponents {
  readonly network: Network;
  readonly codec: EntryCodec;
  readonly checkpoints: CheckpointComponents;
}

/**
 * Fills the tree from the newest checkpoint and sets the head to where it stands; null when the log
 * has none, and is read from its beginning. A checkpoint that is replaced meanwhile is left for the newer one.
 */
export async function bootstrap(c: BootstrapComponents, volume: LocalVolume): Promise<Invalidations | null> {
  for (let tries = 1; ; tries++) {
    try {
      return await load(c, volume);
    } catch (error) {
      if (tries === TRIES || !hasCode(error, 'NO_MIRROR', 'NOT_FOUND')) throw error;
    }
  }
}

async function load(
  { network, codec, checkpoints }: BootstrapComponents,
  volume: LocalVolume,
): Promise<Invalidations | null> {
  const { head } = await network.readLog(1, 1, true);
  if (head.checkpointEntrySeq === 0) return null;
  const { entries } = await network.readLog(head.checkpointEntrySeq, 1);
  const [wire] = entries;
  if (wire === undefined) throw new XcoreError('FORKED_LOG', 'the bridge does not show the checkpoint that it names');
  const entry = codec.open(wire, head.checkpointEntrySeq, null);
  const checkpoint = entry.changeSet?.checkpoint;
  if (checkpoint === undefined) throw new XcoreError('FORKED_LOG', 'the bridge names a checkpoint that is none');
  const seq = Number(checkpoint.seq);
  const { entries: bases } = await network.readLog(seq, 1, true);
  const [baseWire] = bases;
  if (baseWire === undefined) throw new XcoreError('FORKED_LOG', `the volume log lacks entry ${seq}`);
  const base = codec.open(baseWire, seq, null);
  const { tree, store } = volume;
  const applied: Invalidations = { inodes: new Set(), names: [] };
  store.setRecording(false);
  for await (const change of readCheckpoint(checkpoints, checkpoint)) {
    for (const ino of applyChanges(volume, [change]).inodes) applied.inodes.add(ino);
    await store.settle();
  }
  tree.putHead({ ...tree.head, seq, hash: base.hash, epoch: 0, checkpointSeq: seq, logBytes: 0 });
  tree.putCheckpoint(checkpoint.shards.map(({ id }) => id));
  await store.commit(true);
  return applied;
}

// Brings a local volume up to the head of its log: checks each entry, settles own ones whose answer
// was lost, applies those of other devices.

import { asError, XcoreError } from '../lib/errors.ts';
import type { Head, WireEntry } from '../net/network.ts';
import { bootstrap, isReplaced } from './bootstrap.ts';
import type { BootstrapComponents } from './bootstrap.ts';
import { newestSeen } from './hand-in.ts';
import type { HandIn } from './hand-in.ts';
import type { OpenedEntry } from './log-entry.ts';
import { hasState } from './local-volume.ts';
import type { LocalVolume } from './local-volume.ts';
import { isSent, settledFrom, settleEntry } from './publisher.ts';
import { applyChanges } from './replay.ts';
import type { Invalidations } from './replay.ts';

/** Checkpoints that others may write while one is being read, before the bridge is doubted. */
const MAX_CHECKPOINTS = 3;
const READ_LOG_BYTES = 2 * 1024 * 1024;

/** What following needs. */
export interface FollowComponents extends BootstrapComponents {
  readonly handIn: HandIn;
  /** Another device's entry is about to be applied to this volume. */
  readonly onForeign: () => void;
  /** Records of it changed. */
  readonly onApplied: (invalidations: Invalidations) => void;
}

/**
 * Reads the log to its head; 'stuck' when the volume cannot get there from where it is, because
 * others wrote over what is staged in it, or because the log no longer tells the way. FORKED_LOG or
 * BAD_FORMAT when the bridge lies; nothing of such an entry is applied.
 */
export async function follow(c: FollowComponents, volume: LocalVolume): Promise<'caught up' | 'stuck'> {
  if (hasState(volume)) return (await readOn(c, volume)) === 'caught up' ? 'caught up' : 'stuck';
  let { head } = await c.network.readLog(1, 1, true);
  if (await isBehind(c, head, volume)) ({ head } = await c.network.readLog(1, 1, true));
  // what was shown in the place of an empty log is replaced, not filled
  if (!volume.tree.isEmpty) return head.seq === 0 ? 'caught up' : 'stuck';
  for (let triesLeft = MAX_CHECKPOINTS; triesLeft > 0; triesLeft--) {
    const checkpoint = await bootstrap(c, volume);
    const end = await readOn(c, volume);
    if (end === 'caught up') return end;
    // a newer checkpoint stands in for entries behind the one that was being read
    if (end !== 'pruned' || !(await isReplaced(c, checkpoint))) break;
  }
  return 'stuck';
}

/** Brings an empty volume to the head of its log, as follow() does; FORKED_LOG also when the log does not tell the way. */
export async function fill(c: FollowComponents, volume: LocalVolume): Promise<void> {
  if ((await follow(c, volume)) === 'caught up') return;
  throw new XcoreError('FORKED_LOG', 'the bridge shows a volume log that has lost entries');
}

/** How the reading of a log ended: at its head, before an entry of which only the header is left, or before staged work. */
type End = 'caught up' | 'pruned' | 'staged';

async function readOn(c: FollowComponents, volume: LocalVolume): Promise<End> {
  const { tree } = volume;
  for (;;) {
    const { seq, hash } = tree.head;
    const { entries, head } = await c.network.readLog(seq + 1, READ_LOG_BYTES);
    if (await isBehind(c, head, volume)) continue;
    if (entries.length === 0 && head.seq > seq) {
      throw new XcoreError('FORKED_LOG', `the bridge names entry ${head.seq} but does not show entry ${seq + 1}`);
    }
    const { opened, failure } = openAll(c, entries, seq, hash);
    // kept before the index says that they were seen, whatever a power cut takes
    for (const { wire } of opened) await c.handIn.keep(wire);
    await c.handIn.sync();
    for (const { entry } of opened) {
      const obstacle = await take(c, volume, entry);
      if (obstacle !== null) return obstacle;
    }
    // a power cut must not make this device forget what it saw: it would write over it, should the bridge have lost it
    if (opened.length > 0) await volume.store.commit(true);
    if (failure !== null) throw failure;
    if (tree.head.seq >= head.seq) return 'caught up';
  }
}

/** Checks entries, up to the first that is not what it should be. */
function openAll(
  { codec }: FollowComponents,
  entries: readonly WireEntry[],
  seq: number,
  hash: Uint8Array,
): { opened: { wire: WireEntry; entry: OpenedEntry }[]; failure: Error | null } {
  const opened: { wire: WireEntry; entry: OpenedEntry }[] = [];
  try {
    for (const wire of entries) {
      const entry = codec.open(wire, seq + 1 + opened.length, opened.at(-1)?.entry.hash ?? hash);
      opened.push({ wire, entry });
    }
  } catch (error) {
    return { opened, failure: asError(error) };
  }
  return { opened, failure: null };
}

/** What was seen once must be there: whether it was not, and was handed in again. */
async function isBehind(c: FollowComponents, head: Head, { tree }: LocalVolume): Promise<boolean> {
  const { seq, hash } = tree.head;
  if (head.seq === seq && seq > 0 && !Buffer.from(head.hash).equals(hash)) {
    throw new XcoreError('FORKED_LOG', `the bridge shows another entry ${seq} than the one that this device saw`);
  }
  const seen = newestSeen(tree.head);
  if (head.seq >= seen.seq) return false;
  await c.handIn.handIn(head, seen);
  return true;
}

/** Applies one entry; tells what is in the way when it cannot be. */
async function take(
  c: FollowComponents,
  volume: LocalVolume,
  entry: OpenedEntry,
): Promise<Exclude<End, 'caught up'> | null> {
  const { tree, store } = volume;
  const { head } = tree;
  if (entry.seq === head.seenSeq && !entry.hash.equals(head.seenHash)) {
    throw new XcoreError('FORKED_LOG', `entry ${entry.seq} of the volume log is not the one that this device saw`);
  }
  // a later checkpoint stands in for it
  if (entry.changeSet === null) return 'pruned';
  if (isSent(head, entry.hash)) {
    await settleEntry(volume, settledFrom(entry));
    return null;
  }
  // an index older than what it published itself was restored from somewhere: it reads like any other
  const isOfLineage = Buffer.from(entry.changeSet.lineage).equals(store.lineage);
  c.onForeign();
  if (await isStaged(volume)) return 'staged';
  store.setRecording(false);
  const applied = applyChanges(volume, entry.changeSet.changes);
  const isCheckpoint = entry.header.checkpointSeq > 0n;
  tree.putHead({
    ...head,
    seq: entry.seq,
    hash: entry.hash,
    epoch: 0,
    lastCommit: isOfLineage ? Math.max(head.lastCommit, Number(entry.changeSet.lastCommit)) : head.lastCommit,
    checkpointSeq: isCheckpoint ? Number(entry.header.checkpointSeq) : head.checkpointSeq,
    logBytes: isCheckpoint ? 0 : head.logBytes + entry.sizeBytes,
    sent: [],
  });
  if (isCheckpoint) tree.putCheckpoint((entry.changeSet.checkpoint?.shards ?? []).map(({ id }) => id));
  await store.commit();
  c.onApplied(applied);
  return null;
}

/** Whether a volume holds what was never published. */
export async function isStaged({ segments, store }: LocalVolume): Promise<boolean> {
  await segments.seal();
  await store.commit();
  return store.firstUnpublished <= store.lastCommit;
}

// Builds the index of a volume anew: what was published from the log, and on top of it, in order, the
// changes that only this device has, as far as they can be proven whole.

import { join } from 'node:path';
import { checkShardFile } from '../../cache/check-files.ts';
import type { VolumeKeys } from '../../crypto/keys.ts';
import type { Disk } from '../../lib/disk.ts';
import { ERRNO, errnoOf } from '../../lib/errors.ts';
import type { Network } from '../../net/network.ts';
import { decodeNumber, KIND } from '../../tree/keys.ts';
import type { Change } from '../../tree/proto/tree_pb.ts';
import type { Shard } from '../../tree/records.ts';
import type { Salvage } from '../../tree/salvage.ts';
import { fill } from '../follow.ts';
import { newestSeen } from '../hand-in.ts';
import type { HandIn } from '../hand-in.ts';
import { lineageOf } from '../local-volume.ts';
import type { LocalVolume } from '../local-volume.ts';
import { EntryCodec } from '../log-entry.ts';
import type { OpenedEntry } from '../log-entry.ts';
import { isSent } from '../publisher.ts';
import { applyChanges } from '../replay.ts';

/** What a rebuild works with. */
export interface RebuildComponents {
  readonly network: Network;
  readonly keys: VolumeKeys;
  readonly handIn: HandIn;
  readonly disk: Disk;
  /** Folder for checkpoint shards in transfer. */
  readonly checkpointDir: string;
  /** The log is taken as the bridge shows it, also where this device saw another one: then nothing is carried over. */
  readonly acceptLog?: boolean;
}

/** What became of the work that was never published. */
export interface Rebuilt {
  /** Changes that were carried over. */
  readonly carried: number;
  /** Why that may not be all there was, one sentence each; if there are any, the old folder must be kept. */
  readonly missing: readonly string[];
  readonly entries: number;
}

/** Reads entries as EntryCodec does, and remembers how far each lineage is. */
class ObservedCodec extends EntryCodec {
  /** The last entry of each. */
  readonly last = new Map<string, { readonly seq: number; readonly hash: Uint8Array; readonly commit: number }>();
  newestLineage: string | null = null;

  override open(...args: Parameters<EntryCodec['open']>): OpenedEntry {
    const entry = super.open(...args);
    if (entry.changeSet !== null) {
      this.newestLineage = Buffer.from(entry.changeSet.lineage).toString('hex');
      const { seq, hash } = entry;
      this.last.set(this.newestLineage, { seq, hash, commit: Number(entry.changeSet.lastCommit) });
    }
    return entry;
  }
}

/** Fills the empty volume `next` from the log and from what was saved of the old one in `oldDir`. */
export async function rebuild(
  c: RebuildComponents,
  next: LocalVolume,
  oldDir: string,
  saved: Salvage,
): Promise<Rebuilt> {
  const codec = new ObservedCodec(c.keys);
  const { head } = saved;
  if (head !== null && c.acceptLog !== true) {
    const { seq, hash } = newestSeen(head);
    next.tree.putHead({ ...next.tree.head, seenSeq: seq, seenHash: hash });
  }
  const { network, keys, handIn, checkpointDir } = c;
  await fill(
    {
      ...{ network, codec, handIn, checkpoints: { network, dataKey: keys.dataKey, dir: checkpointDir } },
      onForeign: () => undefined,
      onApplied: () => undefined,
    },
    next,
  );
  const shardsInLog = await shardsOf(next);
  const missing = [...saved.missing];
  if (c.acceptLog === true) {
    missing.push('the log is another one than this device saw: what was published or staged here is not carried over');
    await next.store.commit(true);
    return { carried: 0, missing, entries: next.tree.head.seq };
  }
  const carried = await carryOver(next, saved, codec, await lineageOf(oldDir), missing);
  await takeFiles(next, c.disk, join(oldDir, 'cache'), shardsInLog, saved, missing);
  await next.store.commit(true);
  return { carried, missing, entries: next.tree.head.seq };
}

/** Repeats the commits that the log does not have, and then what only the journal had. */
async function carryOver(
  next: LocalVolume,
  saved: Salvage,
  codec: ObservedCodec,
  ownLineage: string | null,
  missing: string[],
): Promise<number> {
  const { commits, journaled, lastCommit, head } = saved;
  const lineages = new Set([...commits.values()].map(({ lineage }) => Buffer.from(lineage).toString('hex')));
  const lineage = [...lineages][0] ?? ownLineage ?? '';
  const last = codec.last.get(lineage);
  const isAtHead =
    head !== null && head.seq === next.tree.head.seq && Buffer.from(head.hash).equals(next.tree.head.hash);
  // an index that has lost nothing knows what it sent: any other entry of its lineage a copy of it has written
  const isWhole = head !== null && missing.length === 0;
  const isCopied = isWhole && last !== undefined && last.seq > head.seq && !isSent(head, last.hash);
  const published = isCopied ? head.lastCommit : (last?.commit ?? 0);
  const first = Math.max(published + 1, isAtHead ? (saved.firstUnpublished ?? 0) : 0);
  const unpublished = [...commits.keys()].filter((commit) => commit >= first).length;
  if (unpublished === 0 && journaled.length === 0) return 0;
  const isOurs = isAtHead || codec.newestLineage === null || (codec.newestLineage === lineage && !isCopied);
  if (lineages.size > 1 || !isOurs) {
    const who = isCopied ? 'a copy of this folder' : 'another device';
    missing.push(`${who} has written the volume since: what only this machine had is not carried over`);
    return 0;
  }
  next.store.setRecording(true);
  let carried = 0;
  const apply = async (changes: readonly Change[]): Promise<void> => {
    applyChanges(next, changes);
    await next.store.commit();
    carried++;
  };
  let n = first;
  for (let commit = commits.get(n); commit !== undefined; commit = commits.get(++n)) await apply(commit.changes);
  if (n <= lastCommit) {
    const left = unpublished - carried + (journaled.length > 0 ? 1 : 0);
    missing.push(`change ${n}, which was never published, is gone: ${left} changes after it are not carried over`);
  } else if (journaled.length > 0 && n === lastCommit + 1) {
    await apply(journaled);
  } else if (journaled.length > 0) {
    missing.push('the log has changes of this machine that the index lost: what its journal holds may be older');
  }
  return carried;
}

async function shardsOf({ store }: LocalVolume): Promise<Set<number>> {
  const shards = new Set<number>();
  for await (const { key } of store.range(KIND.shard)) shards.add(decodeNumber(key, 1));
  return shards;
}

/** Takes over the files that are whole, with what the sync journal kept of them, and as much as there is of those that nobody else has. */
async function takeFiles(
  next: LocalVolume,
  disk: Disk,
  oldCache: string,
  shardsInLog: ReadonlySet<number>,
  saved: Salvage,
  missing: string[],
): Promise<void> {
  const inOld = (path: string): string => join(oldCache, ...path.split('/').slice(-2));
  const isDurable = (shard: number): boolean => shardsInLog.has(shard) || saved.uploads.get(shard)?.durable === true;
  const copied = new Set<number>();
  for (const { shard } of saved.tails) {
    if (copied.has(shard) || next.tree.shard(shard) === undefined || isDurable(shard)) continue;
    copied.add(shard);
    const to = await next.files.prepare(shard);
    await copy(disk, inOld(to), to);
  }
  await next.segments.restore(saved.tails, (shard) => copied.has(shard));
  for await (const { key, record } of next.store.range(KIND.shard)) {
    const shard = decodeNumber(key, 1);
    const entry = record as Shard;
    const to = await next.files.prepare(shard);
    const from = inOld(to);
    const state = await checkShardFile(disk, copied.has(shard) ? to : from, entry);
    const isSafe = isDurable(shard) && entry.id.length > 0;
    // what is not whole is cut to what an fsync acknowledged, and a segment that was open to what was committed of it:
    // neither must touch the old folder
    const isCut = entry.id.length === 0 || (state === 'damaged' && !isSafe);
    if (!copied.has(shard) && isCut) await copy(disk, from, to);
    else if (!copied.has(shard) && state === 'whole') await disk.link(from, to);
    if (shardsInLog.has(shard)) continue;
    if (state !== 'whole' && entry.liveBytes > 0 && !isSafe) {
      missing.push(`the only copy of shard ${shard}, on this disk, is ${state}`);
    }
    const isGone = state !== 'whole' && entry.liveBytes === 0 && !isSafe;
    next.tree.putUpload(shard, isGone ? { durable: false, lost: true } : { durable: isSafe });
  }
}

/** Copies a file, if it is there, and lets the copy reach the disk: it is to take the place of what did. */
async function copy(disk: Disk, from: string, to: string): Promise<void> {
  const bytes = await disk.readFile(from).catch((error: unknown) => {
    if (errnoOf(error) === ERRNO.ENOENT) return null;
    throw error;
  });
  if (bytes === null) return;
  const file = await disk.open(to, 'wx', 0o600);
  try {
    await file.write(bytes, 0, bytes.length, 0);
    await file.datasync();
  } finally {
    await file.close();
  }
}

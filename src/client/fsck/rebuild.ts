// Builds the index of a volume anew: what was published from the log, and on top of it, in order, the
// changes that only this device has, as far as they can be proven whole.

import { join } from 'node:path';
import { checkShardFile } from '../../cache/check-files.ts';
import type { VolumeKeys } from '../../crypto/keys.ts';
import type { Disk } from '../../lib/disk.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { Network } from '../../net/network.ts';
import { decodeNumber, KIND } from '../../tree/keys.ts';
import type { Shard } from '../../tree/records.ts';
import type { Salvage } from '../../tree/salvage.ts';
import { follow } from '../follow.ts';
import type { LocalVolume } from '../local-volume.ts';
import { EntryCodec } from '../log-entry.ts';
import type { OpenedEntry } from '../log-entry.ts';
import { applyChanges } from '../replay.ts';

/** What a rebuild works with. */
export interface RebuildComponents {
  readonly network: Network;
  readonly keys: VolumeKeys;
  readonly disk: Disk;
  /** Folder for checkpoint shards in transfer. */
  readonly checkpointDir: string;
}

/** What became of the work that was never published. */
export interface Rebuilt {
  /** Changes that were carried over. */
  readonly carried: number;
  /** Whether that is all there was; if not, the old folder must be kept. */
  readonly isComplete: boolean;
  readonly entries: number;
}

/** Reads entries as EntryCodec does, and remembers how far each lineage is. */
class ObservedCodec extends EntryCodec {
  readonly lastCommits = new Map<string, number>();
  newestLineage: string | null = null;

  override open(...args: Parameters<EntryCodec['open']>): OpenedEntry {
    const entry = super.open(...args);
    if (entry.changeSet !== null) {
      this.newestLineage = Buffer.from(entry.changeSet.lineage).toString('hex');
      this.lastCommits.set(this.newestLineage, Number(entry.changeSet.lastCommit));
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
  if (head !== null) {
    const seen =
      head.seq >= head.seenSeq
        ? { seenSeq: head.seq, seenHash: head.hash }
        : { seenSeq: head.seenSeq, seenHash: head.seenHash };
    next.tree.putHead({ ...next.tree.head, ...seen });
  }
  const { network, keys, checkpointDir } = c;
  const result = await follow(
    {
      ...{ network, codec, checkpoints: { network, dataKey: keys.dataKey, dir: checkpointDir } },
      onForeign: () => undefined,
      onApplied: () => undefined,
    },
    next,
  );
  if (result === 'stuck') throw new XcoreError('FORKED_LOG', 'the bridge shows a volume log that has lost entries');
  const shardsInLog = await shardsOf(next);
  const carried = await carryOver(next, saved, codec);
  const filesWhole = await takeFiles(next, c.disk, join(oldDir, 'cache'), shardsInLog, saved);
  await next.store.commit(true);
  return { ...carried, isComplete: carried.isComplete && filesWhole, entries: next.tree.head.seq };
}

/** Repeats the commits that the log does not have. */
async function carryOver(
  next: LocalVolume,
  { commits, lastCommit, isWhole }: Salvage,
  codec: ObservedCodec,
): Promise<{ carried: number; isComplete: boolean }> {
  const lineages = new Set([...commits.values()].map(({ lineage }) => Buffer.from(lineage).toString('hex')));
  const [lineage] = lineages;
  if (lineage === undefined) return { carried: 0, isComplete: isWhole };
  const published = codec.lastCommits.get(lineage) ?? 0;
  const isUnpublished = [...commits.keys()].some((commit) => commit > published);
  // another device wrote since: what is here can never be published
  const isOvertaken = lineages.size > 1 || (codec.newestLineage !== null && codec.newestLineage !== lineage);
  if (isOvertaken) return { carried: 0, isComplete: !isUnpublished && isWhole };
  next.store.setRecording(true);
  let carried = 0;
  for (let n = published + 1; ; n++) {
    const changeSet = commits.get(n);
    if (changeSet === undefined) return { carried, isComplete: isWhole && n > lastCommit };
    applyChanges(next, changeSet.changes);
    await next.store.commit();
    carried++;
  }
}

async function shardsOf({ store }: LocalVolume): Promise<Set<number>> {
  const shards = new Set<number>();
  for await (const { key } of store.range(KIND.shard)) shards.add(decodeNumber(key, 1));
  return shards;
}

/** Takes over the files that are whole; false when bytes that nobody else has are not. */
async function takeFiles(
  next: LocalVolume,
  disk: Disk,
  oldCache: string,
  shardsInLog: ReadonlySet<number>,
  saved: Salvage,
): Promise<boolean> {
  let isWhole = true;
  for await (const { key, record } of next.store.range(KIND.shard)) {
    const shard = decodeNumber(key, 1);
    const entry = record as Shard;
    const to = await next.files.prepare(shard);
    const from = join(oldCache, ...to.split('/').slice(-2));
    const state = await checkShardFile(disk, from, entry);
    // a segment that was open is cut to what was committed of it, which must not touch the old folder
    if (state === 'whole') await (entry.id.length === 0 ? copy(disk, from, to) : disk.link(from, to));
    if (shardsInLog.has(shard)) continue;
    const isDurable = saved.uploads.get(shard)?.durable === true && entry.id.length > 0;
    if (state !== 'whole' && entry.liveBytes > 0 && !isDurable) isWhole = false;
    next.tree.putUpload(shard, { durable: isDurable });
  }
  return isWhole;
}

async function copy(disk: Disk, from: string, to: string): Promise<void> {
  const bytes = await disk.readFile(from);
  const file = await disk.open(to, 'wx', 0o600);
  try {
    await file.write(bytes, 0, bytes.length, 0);
  } finally {
    await file.close();
  }
}

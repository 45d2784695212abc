// Looks at one open volume as a whole: its index, its files, the mirrors of what is not here, the log.

import { checkShardFile } from '../../cache/check-files.ts';
import type { Network } from '../../net/network.ts';
import { TreeCheck } from '../../tree/check-tree.ts';
import type { Findings } from '../../tree/findings.ts';
import { decodeNumber, KIND } from '../../tree/keys.ts';
import { inodesUsing, pathsOf } from '../../tree/names.ts';
import type { Shard } from '../../tree/records.ts';
import type { EntryCodec } from '../log-entry.ts';
import type { LocalVolume } from '../local-volume.ts';
import { checkLog } from './check-log.ts';

/** Questions to the bridge that are under way at once. */
const PARALLEL_QUESTIONS = 64;
/** Files with lost bytes that are named. */
const MAX_NAMED_FILES = 1_000;

/** What is looked at now, how much of it is done, and how much there is. */
export type FsckProgress = (what: 'index' | 'files' | 'mirrors' | 'log', done: number, total: number) => void;

/** What a check is made with. */
export interface CheckComponents {
  /** Null while the bridge cannot be reached: mirrors and log are not looked at. */
  readonly network: Network | null;
  readonly codec: EntryCodec;
  readonly nameKey: Buffer;
  readonly progress: FsckProgress;
}

/** What a check saw. */
export interface Checked {
  readonly records: number;
  readonly inodes: number;
  readonly shards: number;
  readonly localFiles: number;
  readonly logEntries: number;
  readonly unpublished: number;
}

/** A volume's check. */
export interface VolumeCheck {
  readonly checked: Checked;
  /** Shards whose local file is damaged and which hosts have. */
  readonly refetchable: readonly number[];
  /** Paths of files that have lost bytes for good. */
  readonly lostFiles: readonly string[];
}

/** Checks all of a volume. */
export async function checkVolume(c: CheckComponents, volume: LocalVolume, findings: Findings): Promise<VolumeCheck> {
  const { store, tree } = volume;
  await store.commit();
  const summary = await new TreeCheck(store, c.nameKey, findings).run((done, total) =>
    c.progress('index', done, total),
  );
  const lost = new Set(summary.lostShards);
  for (const shard of lost) findings.add('shards', `bytes of shard ${shard} were lost with the power`, 'none');
  const { refetchable, absent } = await checkFiles(c, volume, findings, lost);
  if (c.network !== null) await checkMirrors(c.network, absent, findings, lost, c.progress);
  const logEntries =
    c.network === null
      ? 0
      : await checkLog(c.network, c.codec, tree.head, findings, (done, total) => c.progress('log', done, total));
  const { records, inodes, shards, unpublished } = summary;
  const localFiles = volume.files.shards().length;
  return {
    checked: { records, inodes, shards, localFiles, logEntries, unpublished },
    refetchable,
    lostFiles: await namesOf(volume, lost),
  };
}

/** Looks at every local file; returns the shards that hosts must have. */
async function checkFiles(
  { progress }: CheckComponents,
  { files, tree, store }: LocalVolume,
  findings: Findings,
  lost: Set<number>,
): Promise<{ refetchable: number[]; absent: Map<number, Uint8Array> }> {
  const refetchable: number[] = [];
  const absent = new Map<number, Uint8Array>();
  const total = files.usedBytes;
  let done = 0;
  for await (const { key, record } of store.range(KIND.shard)) {
    const shard = decodeNumber(key, 1);
    const entry = record as Shard;
    if (lost.has(shard) || entry.liveBytes === 0) continue;
    const staged = tree.isStaged(shard);
    const state = files.has(shard) ? await checkShardFile(files.disk, files.path(shard), entry) : 'absent';
    progress('files', (done += entry.sizeBytes), Math.max(total, done));
    if (state === 'whole') continue;
    if (staged) {
      lost.add(shard);
      findings.add('files', `the only copy of shard ${shard}, on this disk, is ${state}`, 'none');
    } else {
      absent.set(shard, entry.id);
      if (state === 'absent') continue;
      refetchable.push(shard);
      findings.add('files', `the local copy of shard ${shard} is damaged`, 'refetch');
    }
  }
  return { refetchable, absent };
}

/** Asks the bridge whether anybody has what is not here. */
async function checkMirrors(
  network: Network,
  absent: ReadonlyMap<number, Uint8Array>,
  findings: Findings,
  lost: Set<number>,
  progress: FsckProgress,
): Promise<void> {
  const waiting = [...absent];
  let done = 0;
  const ask = async (): Promise<void> => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [shard, id] = next;
      if ((await network.mirrors(id)) === 0) {
        lost.add(shard);
        findings.add('shards', `no host has shard ${shard}, and this disk has no whole copy`, 'none');
      }
      progress('mirrors', ++done, absent.size);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_QUESTIONS }, ask));
}

async function namesOf({ store }: LocalVolume, lost: ReadonlySet<number>): Promise<string[]> {
  const inodes = [...(await inodesUsing(store, lost))].slice(0, MAX_NAMED_FILES);
  return [...(await pathsOf(store, inodes)).values()].sort();
}

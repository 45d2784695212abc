// One volume on this device's disk: opens index, segments and cache together, closes them together.

import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { Hasher } from '../cache/hasher.ts';
import { Segments } from '../cache/segments.ts';
import type { SegmentOptions } from '../cache/segments.ts';
import { ShardFiles } from '../cache/shard-files.ts';
import { ShardReader } from '../cache/shard-reader.ts';
import type { ShardFetcher } from '../cache/remote-shards.ts';
import type { VolumeKeys } from '../crypto/keys.ts';
import { Sealer } from '../crypto/sealer.ts';
import { syncFolder, writeFileAtomic } from '../lib/atomic-file.ts';
import type { Clock } from '../lib/clock.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { IndexGuard } from '../tree/index-database.ts';
import type { OpenDatabase } from '../tree/open-database.ts';
import { RecordStore } from '../tree/record-store.ts';
import type { StoreOptions } from '../tree/record-store.ts';
import { Tree } from '../tree/tree.ts';
import type { VolumeParts } from '../vfs/volume.ts';

const INDEX = 'index';
const CACHE = 'cache';
const VERSION = 3;
/** Its index has no journal yet. */
const UNJOURNALED_VERSION = 2;
/** Its index has no tallies yet. */
const UNCOUNTED_VERSION = 1;
const SEAL: SegmentOptions = { idleMs: 2_000, maxAgeMs: 15_000 };

/** The machine on which a volume lies; the one that this runs on unless told. */
export interface Surroundings {
  readonly disk?: Disk;
  readonly guard?: IndexGuard;
  readonly openDatabase?: OpenDatabase;
  readonly randomBytes?: RandomBytes;
  readonly hasher?: Pick<Hasher, 'hash' | 'load' | 'stop'>;
}

/** What a local volume is built from. */
export interface LocalVolumeComponents extends Surroundings {
  readonly keys: VolumeKeys;
  readonly fetcher: ShardFetcher;
  readonly clock: Clock;
  readonly log: Logger;
  readonly cacheBytes: number;
  /** A shard was sealed and can be uploaded. */
  readonly onSealed: (shard: number) => void;
  /** Staged bytes were lost with the power: no host has them either. */
  readonly onLost: (shard: number) => void;
  /** A local file does not match its shard id; `lost` when there is no other copy. */
  readonly onDamaged: (shard: number, lost: boolean) => void;
  /** The tables of the index are checked before they are used. */
  readonly verifyIndex?: boolean;
  /** Changes cannot be committed to this disk; null when they can again. */
  readonly onHealth?: (failure: Error | null) => void;
  /** A record of the index is damaged. */
  readonly onIndexDamaged?: (error: Error) => void;
}

/** The stores of one volume, open. */
export interface LocalVolume extends VolumeParts {
  readonly store: RecordStore;
  readonly dir: string;
  /** Seals, commits and closes everything. */
  close(): Promise<void>;
}

/** Whether a volume holds anything: entries of the log that were read to their end, or own work. */
export function hasState({ tree, store }: Pick<LocalVolume, 'tree' | 'store'>): boolean {
  return tree.head.seq > 0 || store.firstUnpublished <= store.lastCommit;
}

interface VolumeFile {
  readonly version: number;
  /** Owner's public key, hexadecimal. */
  readonly volume: string;
  /** Of the index, 32 hexadecimal digits. */
  readonly lineage: string;
}

function writeVolumeFile(path: string, content: VolumeFile, disk: Disk): Promise<void> {
  return writeFileAtomic(path, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600, disk });
}

/** All that a new volume lies in, so that no power cut takes it from under what is synced in it: `volume.json` comes next. */
async function makeFolders(dir: string, disk: Disk): Promise<void> {
  for (const name of [INDEX, CACHE]) await disk.mkdir(join(dir, name), { recursive: true, mode: 0o700 });
  for (const parent of [dirname(dir), dirname(dirname(dir))]) await syncFolder(parent, disk);
}

/** What `volume.json` of a folder says; made with the folder. FOREIGN_HOME for another owner's. */
async function readVolumeFile(dir: string, components: LocalVolumeComponents): Promise<VolumeFile> {
  const { keys, disk = systemDisk, randomBytes: random = randomBytes } = components;
  const path = join(dir, 'volume.json');
  const owner = keys.ownerPublicKey.toString('hex');
  const bytes = await disk.readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (bytes === null) {
    await makeFolders(dir, disk);
    const made = { version: VERSION, volume: owner, lineage: Buffer.from(random(16)).toString('hex') };
    await writeVolumeFile(path, made, disk);
    return made;
  }
  const content = parse(path, bytes.toString());
  if (![VERSION, UNJOURNALED_VERSION, UNCOUNTED_VERSION].includes(content.version)) {
    throw new XcoreError('BAD_FORMAT', `${path} has version ${content.version}, this program reads ${VERSION}`);
  }
  if (content.volume !== owner) {
    throw new XcoreError(
      'FOREIGN_HOME',
      `${dir} holds another volume than the 24 words of this home; use another XCORE_HOME, or move that folder away`,
    );
  }
  return content;
}

/** Lineage of the index in a folder, hexadecimal; null where its `volume.json` does not tell. */
export async function lineageOf(dir: string): Promise<string | null> {
  const path = join(dir, 'volume.json');
  try {
    return parse(path, (await systemDisk.readFile(path)).toString()).lineage;
  } catch {
    return null;
  }
}

function parse(path: string, text: string): VolumeFile {
  try {
    const content = JSON.parse(text) as { version?: unknown; volume?: unknown; lineage?: unknown };
    const { version, volume, lineage } = content;
    if (typeof version === 'number' && typeof volume === 'string' && typeof lineage === 'string') {
      return { version, volume, lineage };
    }
  } catch {
    // said below
  }
  throw new XcoreError('BAD_FORMAT', `${path} is damaged; to start over from the log: xcore fsck --repair`);
}

/** Takes all steps, whatever fails; the first failure is thrown at the end. */
async function endAll(steps: readonly (() => Promise<void>)[]): Promise<void> {
  const failures: Error[] = [];
  for (const step of steps) await step().catch((error: unknown) => failures.push(asError(error)));
  if (failures[0] !== undefined) throw failures[0];
}

/** Opens the index of a volume; counts one that has no tallies yet. */
async function openStore(dir: string, components: LocalVolumeComponents): Promise<RecordStore> {
  const { keys, clock, disk, guard, openDatabase, randomBytes: random } = components;
  const { verifyIndex = false, onHealth, onIndexDamaged } = components;
  const file = await readVolumeFile(dir, components);
  const adopt = file.version === UNCOUNTED_VERSION;
  const lineage = Buffer.from(file.lineage, 'hex');
  const options: StoreOptions = {
    adopt,
    clock,
    verify: verifyIndex,
    syncJournal: join(dir, 'sync-journal'),
    ...(guard && { guard }),
    ...(disk && { disk }),
    ...(openDatabase && { openDatabase }),
    ...(random && { randomBytes: random }),
    ...(onHealth && { onHealth }),
    ...(onIndexDamaged && { onDamaged: onIndexDamaged }),
  };
  const store = await RecordStore.open(join(dir, INDEX), new Sealer(keys.indexKey, random), lineage, options).catch(
    (error: unknown) => {
      if (!hasCode(error, 'HOME_LOCKED')) throw error;
      throw new XcoreError('HOME_LOCKED', 'another xcore process uses this home; see xcore status', { cause: error });
    },
  );
  if (file.version !== VERSION) {
    await writeVolumeFile(join(dir, 'volume.json'), { ...file, version: VERSION }, disk ?? systemDisk);
  }
  return store;
}

/**
 * Opens the volume in `dir`, making it where absent, and seals what a crash left open. HOME_LOCKED
 * when another process has it, FOREIGN_HOME when it is another owner's.
 */
export async function openLocalVolume(
  dir: string,
  components: LocalVolumeComponents,
  seal: SegmentOptions = SEAL,
): Promise<LocalVolume> {
  const { keys, clock, log, disk = systemDisk, randomBytes: random, hasher = new Hasher() } = components;
  await disk.mkdir(dir, { recursive: true, mode: 0o700 });
  const store = await openStore(dir, components);
  try {
    const tree = new Tree(store, keys.nameKey);
    const files = await ShardFiles.open(join(dir, CACHE), components.cacheBytes, log, disk, clock);
    const { dataKey } = keys;
    const segments = new Segments(
      {
        table: tree,
        files,
        dataKey,
        hasher,
        clock,
        ...(random && { randomBytes: random }),
        log,
        commit: () => store.commit(),
        onSealed: components.onSealed,
        onLost: (shard, keptBytes) => {
          // what is lost is not waited for: reads of these bytes fail, and the log goes on
          if (keptBytes === 0) tree.putUpload(shard, { durable: false, lost: true });
          components.onLost(shard);
        },
      },
      seal,
    );
    store.setBarrier(segments.barrier);
    const reader = new ShardReader({
      table: tree,
      files,
      segments,
      fetcher: components.fetcher,
      loader: hasher,
      dataKey,
      clock,
      log,
      onDamaged: components.onDamaged,
    });
    const { head } = tree;
    store.setRecording(head.epoch > 0 || store.firstUnpublished <= store.lastCommit, head.lastCommit);
    const staged = (await tree.uploads()).filter(({ upload }) => !upload.durable).map(({ shard }) => shard);
    await store.restoreTails((tails) => segments.restore(tails, (shard) => staged.includes(shard)));
    await segments.recover(staged);
    segments.start();
    const close = (): Promise<void> =>
      endAll([() => segments.stop(), () => reader.stop(), () => store.close(), () => hasher.stop()]);
    return { store, tree, files, segments, reader, dir, close };
  } catch (error) {
    await store.close().catch(() => undefined);
    await hasher.stop();
    throw error;
  }
}

// xcore fsck, without its command line: checks a volume that is not mounted and, if asked, repairs it.

import { join } from 'node:path';
import type { VolumeKeys } from '../../crypto/keys.ts';
import { Sealer } from '../../crypto/sealer.ts';
import type { Clock } from '../../lib/clock.ts';
import { systemDisk } from '../../lib/disk.ts';
import type { Disk } from '../../lib/disk.ts';
import { asError, hasCode, XcoreError } from '../../lib/errors.ts';
import type { Logger } from '../../lib/log.ts';
import type { Network } from '../../net/network.ts';
import { Findings } from '../../tree/findings.ts';
import type { Finding } from '../../tree/findings.ts';
import type { IndexGuard } from '../../tree/index-database.ts';
import { salvage } from '../../tree/salvage.ts';
import { HandIn } from '../hand-in.ts';
import type { HandedIn } from '../hand-in.ts';
import { KeptEntries } from '../kept-entries.ts';
import { openLocalVolume } from '../local-volume.ts';
import type { LocalVolume } from '../local-volume.ts';
import { EntryCodec } from '../log-entry.ts';
import { VolumeFolders } from '../volume-folders.ts';
import { checkVolume } from './check-volume.ts';
import type { Checked, FsckProgress, VolumeCheck } from './check-volume.ts';
import { rebuild } from './rebuild.ts';
import type { Rebuilt } from './rebuild.ts';

/** What a check is made with. */
export interface FsckComponents {
  /** Connected, or null while the bridge cannot be reached. */
  readonly network: Network | null;
  readonly keys: VolumeKeys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly progress: FsckProgress;
  /** This machine's unless told. */
  readonly disk?: Disk;
  readonly guard?: IndexGuard;
}

/** What is to be checked. */
export interface FsckOptions {
  /** Folder of all that belongs to the volume. */
  readonly dir: string;
  readonly repair: boolean;
  /** With `repair`: where the log lacks what this device saw, or is another one, it is accepted, and what is here set aside. */
  readonly acceptLog?: boolean;
}

/** What was found and done; `xcore fsck --json` prints it as it is. */
export interface FsckReport {
  /** `repaired`: something was wrong, and nothing is any more; `damaged`: something still is. */
  readonly state: 'clean' | 'repaired' | 'damaged';
  readonly checked: Checked | null;
  /** Before any repair; the first 1,000. */
  readonly findings: readonly Finding[];
  readonly findingsCount: number;
  readonly repairs: readonly string[];
  /** What is still wrong. */
  readonly left: readonly Finding[];
  /** Paths in the volume of files of which bytes are gone for good. */
  readonly lostFiles: readonly string[];
  /** Why a rebuild may not have carried over all that only this machine had. */
  readonly notCarried: readonly string[];
  /** Where work is kept that could not be carried over. */
  readonly setAside: string | null;
  /** What could not be looked at, and why. */
  readonly notChecked: readonly string[];
}

/** A check leaves the cache as it is, however large. */
const CACHE_BYTES = Number.MAX_SAFE_INTEGER;

/**
 * Checks the volume, repairs it if told, and checks again. HOME_LOCKED when it is mounted;
 * UNREACHABLE when a repair needs the bridge, and then nothing was changed.
 */
export async function fsck(c: FsckComponents, options: FsckOptions): Promise<FsckReport> {
  return new Fsck(c, options).run();
}

class Fsck {
  readonly #c: FsckComponents;
  readonly #options: FsckOptions;
  readonly #folders: VolumeFolders;
  readonly #repairs: string[] = [];
  #notCarried: readonly string[] = [];
  #setAside: string | null = null;

  constructor(components: FsckComponents, options: FsckOptions) {
    this.#c = components;
    this.#options = options;
    this.#folders = new VolumeFolders(options.dir, components.disk);
  }

  async run(): Promise<FsckReport> {
    await this.#folders.open();
    const first = new Findings();
    let check = await this.#look(first);
    let left = first;
    const { repair, acceptLog = false } = this.#options;
    if (repair && first.count > 0) {
      if (check !== null && check.refetchable.length > 0) await this.#letGo(check.refetchable);
      const mayAccept = acceptLog && first.list.some(({ area }) => area === 'log');
      if (first.rebuildable > 0 || mayAccept) await this.#rebuild(mayAccept);
      left = new Findings();
      check = await this.#look(left);
    }
    return {
      state: left.count > 0 ? 'damaged' : first.count > 0 ? 'repaired' : 'clean',
      checked: check?.checked ?? null,
      findings: first.list,
      findingsCount: first.count,
      repairs: this.#repairs,
      left: left.list,
      lostFiles: check?.lostFiles ?? [],
      notCarried: this.#notCarried,
      setAside: this.#setAside,
      notChecked: this.#c.network === null ? ['the volume log and mirrors, since the bridge cannot be reached'] : [],
    };
  }

  #open(dir: string): Promise<LocalVolume> {
    const { keys, clock, log, disk, guard } = this.#c;
    return openLocalVolume(dir, {
      ...(disk && { disk }),
      ...(guard && { guard }),
      ...{ keys, clock, log, cacheBytes: CACHE_BYTES, verifyIndex: true },
      // nothing is read through the volume
      fetcher: this.#c.network ?? NO_FETCHER,
      onSealed: () => undefined,
      onLost: () => undefined,
      onDamaged: () => undefined,
    });
  }

  /** Checks the volume; null, and a finding, when it cannot even be opened. */
  async #look(findings: Findings): Promise<VolumeCheck | null> {
    const { network, keys, log, progress } = this.#c;
    let volume: LocalVolume;
    try {
      volume = await this.#open(this.#folders.current);
    } catch (error) {
      if (!hasCode(error, 'CORRUPT_RECORD', 'BAD_FORMAT')) throw error;
      findings.add('index', error.message);
      return null;
    }
    try {
      const components = { network, codec: new EntryCodec(keys), nameKey: keys.nameKey, progress };
      return await checkVolume(components, volume, findings);
    } catch (error) {
      if (!hasCode(error, 'CORRUPT_RECORD', 'BAD_FORMAT')) throw error;
      findings.add('index', error.message);
      return null;
    } finally {
      await volume.close().catch((error: unknown) => log.warn({ error: asError(error) }, 'the index did not close'));
    }
  }

  /** Removes local copies that are damaged: they are fetched again when they are read. */
  async #letGo(shards: readonly number[]): Promise<void> {
    const volume = await this.#open(this.#folders.current);
    try {
      for (const shard of shards) await volume.files.drop(shard);
    } finally {
      await volume.close();
    }
    this.#repairs.push(`removed ${shards.length} damaged local copies, which are fetched again when they are read`);
  }

  async #rebuild(mayAccept: boolean): Promise<void> {
    const { network, keys, clock, log, disk = systemDisk } = this.#c;
    if (network === null) {
      throw new XcoreError(
        'UNREACHABLE',
        'the index must be rebuilt from the volume log, and the bridge cannot be reached; nothing was changed',
      );
    }
    const { current, next, checkpoint } = this.#folders;
    const places = {
      index: join(current, 'index'),
      syncJournal: join(current, 'sync-journal'),
      scratch: join(this.#options.dir, 'salvage'),
    };
    const saved = await salvage(places, new Sealer(keys.indexKey));
    const kept = new KeptEntries({ dir: this.#folders.log, log, disk });
    const onHandedIn = ({ firstSeq, lastSeq }: HandedIn): Promise<void> => {
      this.#repairs.push(`handed in entries ${firstSeq} to ${lastSeq} again, which the bridge had lost`);
      return Promise.resolve();
    };
    const handIn = new HandIn({ network, codec: new EntryCodec(keys), kept, clock, log, onHandedIn });
    const build = async (acceptLog: boolean): Promise<Rebuilt> => {
      await this.#folders.clearNext();
      const volume = await this.#open(next);
      const components = { network, keys, handIn, disk, checkpointDir: checkpoint, acceptLog };
      return rebuild(components, volume, current, saved)
        .finally(() => volume.close())
        .catch(async (error: unknown) => {
          await disk.rm(next, { recursive: true, force: true });
          throw asError(error);
        });
    };
    const done = await build(false)
      .catch((error: unknown) => {
        if (!mayAccept || !hasCode(error, 'FORKED_LOG')) throw error;
        return build(true);
      })
      .finally(() => kept.close());
    this.#notCarried = done.missing;
    this.#setAside = await this.#folders.replace(done.missing.length > 0, clock.now());
    this.#repairs.push(
      `rebuilt the index from ${done.entries} entries of the volume log and ${done.carried} changes that only this machine had`,
    );
    if (this.#setAside !== null) {
      this.#repairs.push(`kept the old state in ${this.#setAside}, since not all of it could be carried over`);
    }
  }
}

const NO_FETCHER = {
  fetchShard: (): Promise<never> => Promise.reject(new XcoreError('NO_MIRROR')),
  fetchLeaves: (): Promise<never> => Promise.reject(new XcoreError('NO_MIRROR')),
  expect: (): void => undefined,
  mirrors: (): Promise<never> => Promise.reject(new XcoreError('NO_MIRROR')),
};

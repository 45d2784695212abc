// The volume behind a mount: its stores, uploads, log and filesystem, which are replaced together
// when the device has to start over from the log. Knows no driver, no control socket and no config.

import type { SegmentOptions } from '../cache/segments.ts';
import type { VolumeKeys } from '../crypto/keys.ts';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Network, NetworkSpace } from '../net/network.ts';
import type { Filesystem } from '../vfs/filesystem.ts';
import { Vfs } from '../vfs/vfs.ts';
import type { Room } from '../vfs/volume.ts';
import type { FlushProgress, SetAside } from './control-api.ts';
import { DeadSegments } from './dead-segments.ts';
import type { DeadSegmentsOptions } from './dead-segments.ts';
import { tellDamagedIndex, tellDamagedShard, tellIndexHealth } from './disk-problems.ts';
import { flushVolume } from './flush.ts';
import type { FlushSources } from './flush.ts';
import { Gate } from './gate.ts';
import { HandIn } from './hand-in.ts';
import type { HandedIn } from './hand-in.ts';
import { storeAgain, tellHandedIn } from './handed-in.ts';
import { KeptEntries } from './kept-entries.ts';
import { hasState, openLocalVolume } from './local-volume.ts';
import type { LocalVolume, Surroundings } from './local-volume.ts';
import { EntryCodec } from './log-entry.ts';
import type { Problems } from './problems.ts';
import { Publisher } from './publisher.ts';
import type { PublisherOptions } from './publisher.ts';
import type { Invalidations } from './replay.ts';
import { Quota } from './quota.ts';
import { rootNames, unpublishedNames } from './stale-names.ts';
import { stagedBytesOf } from './status.ts';
import { Uploader } from './uploader.ts';
import { VolumeFolders } from './volume-folders.ts';
import { VolumeSync } from './volume-sync.ts';
import type { SyncOptions } from './volume-sync.ts';

/** What a mounted volume is built from. */
export interface MountedVolumeComponents extends Surroundings {
  readonly network: Network;
  readonly keys: VolumeKeys;
  /** Peer name of this device. */
  readonly device: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly problems: Problems;
  /** Records changed under the filesystem, by another device's hand. */
  readonly onChanged: (invalidations: Invalidations) => void;
}

/** How a volume is kept on this device. */
export interface MountedVolumeOptions extends SyncOptions, PublisherOptions, DeadSegmentsOptions {
  /** Folder of all that belongs to the volume. */
  readonly dir: string;
  readonly cacheBytes: number;
  /** Reading moves atime (relatime); yes unless told. */
  readonly accessTimes?: boolean;
  readonly seal?: SegmentOptions;
}

/** The parts of one volume on this device, and their life. */
export class MountedVolume {
  readonly sync: VolumeSync;
  readonly #c: MountedVolumeComponents;
  readonly #options: MountedVolumeOptions;
  readonly #folders: VolumeFolders;
  readonly #kept: KeptEntries;
  readonly #gate = new Gate();
  readonly #deadSegments: DeadSegments;
  #volume!: LocalVolume;
  #uploader!: Uploader;
  #vfs!: Vfs;
  #filesystem!: Filesystem;
  readonly #quota: Quota;
  #started = false;

  private constructor(components: MountedVolumeComponents, options: MountedVolumeOptions) {
    this.#c = components;
    this.#options = options;
    this.#folders = new VolumeFolders(options.dir, components.disk);
    const { network, clock, log, problems, disk } = components;
    this.#kept = new KeptEntries({ dir: this.#folders.log, log, ...(disk && { disk }) });
    this.sync = this.#newSync();
    const sources = { volume: () => this.#volume, uploader: () => this.#uploader };
    this.#deadSegments = new DeadSegments({ ...sources, clock, log }, options);
    this.#quota = new Quota({
      ...{ network, clock, log, problems },
      isConnected: () => this.sync.connected,
      stagedBytes: () => this.stagedBytes,
      stagedBytesAtMost: () => this.#volume.files.stagedBytes + this.#volume.segments.unsealedBytes,
    });
  }

  /** Opens what is on this disk; nothing runs yet. Errors as those of openLocalVolume(). */
  static async open(components: MountedVolumeComponents, options: MountedVolumeOptions): Promise<MountedVolume> {
    const mounted = new MountedVolume(components, options);
    try {
      await mounted.#begin();
    } catch (error) {
      // a damaged index is found while it is looked at
      await mounted.#volume?.close().catch(() => undefined);
      throw error;
    }
    return mounted;
  }

  async #begin(): Promise<void> {
    const { clock, log } = this.#c;
    await this.#folders.open();
    this.#volume = await this.#open(this.#folders.current);
    if (!this.#volume.tree.isEmpty && !hasState(this.#volume)) {
      // the first reading of the log was cut short: nothing here is ours alone
      await this.#volume.close();
      await this.#folders.discard();
      this.#volume = await this.#open(this.#folders.current);
    }
    this.#uploader = this.#newUploader();
    const writable = (): boolean => this.sync.writer;
    const noAccessTimes = this.#options.accessTimes === false;
    const room = (): Room => this.#room();
    const admit = (sizeBytes: number): void => this.#quota.admit(sizeBytes);
    this.#vfs = new Vfs(this.#volume, { clock, log, writable, room, admit, noAccessTimes });
    this.#filesystem = this.#gate.guard(this.#vfs);
  }

  #newSync(): VolumeSync {
    const { network, keys, device, clock, log, problems, disk, randomBytes } = this.#c;
    const codec = new EntryCodec(keys, randomBytes);
    const onNeeded = (shards: readonly number[]): void => this.#uploader.need(shards);
    const kept = this.#kept;
    const onHandedIn = (what: HandedIn): Promise<void> => this.#handedIn(what);
    const handIn = new HandIn({ network, codec, kept, clock, log, onHandedIn });
    const onFreeing = (shards: readonly number[]): Promise<void> => this.#uploader.cease(shards);
    const publishing = { network, codec, handIn, clock, log, device, onNeeded, onFreeing };
    const publisher = new Publisher(publishing, this.#options);
    return new VolumeSync(
      {
        ...{ network, codec, publisher, handIn, keys, device, clock, log, problems },
        checkpoints: {
          ...{ network, dataKey: keys.dataKey, dir: this.#folders.checkpoint },
          ...(disk && { disk }),
          ...(randomBytes && { randomBytes }),
        },
        volume: () => this.#volume,
        rebuild: (keep, fill) => this.#rebuild(keep, fill),
        onApplied: (invalidations) => this.#c.onChanged(invalidations),
        onForgotten: (shards) => this.#uploader.need(shards),
        isUploading: (shard) => this.#uploader.has(shard),
        onRole: (writer) => this.#roleChanged(writer),
      },
      this.#options,
    );
  }

  #open(dir: string): Promise<LocalVolume> {
    const { keys, network, clock, log, disk, guard, openDatabase, randomBytes, hasher } = this.#c;
    const { cacheBytes, seal } = this.#options;
    return openLocalVolume(
      dir,
      {
        ...{ keys, clock, log, cacheBytes },
        ...(disk && { disk }),
        ...(guard && { guard }),
        ...(openDatabase && { openDatabase }),
        ...(randomBytes && { randomBytes }),
        ...(hasher && { hasher }),
        fetcher: {
          fetchShard: (...args) => network.fetchShard(...args),
          fetchLeaves: (...args) => network.fetchLeaves(...args),
          expect: (ids) => void network.expect(ids).catch(() => undefined),
          // asked for what hardly anybody has: a bridge that is away is not waited for
          mirrors: (id) => (this.sync.connected ? network.mirrors(id) : Promise.reject(new XcoreError('UNREACHABLE'))),
        },
        onSealed: (shard) => this.#uploader.add(shard),
        onLost: (shard) => tellDamagedShard(this.#c, shard, true),
        onDamaged: (shard, lost) => tellDamagedShard(this.#c, shard, lost),
        onHealth: (failure) => tellIndexHealth(this.#c, failure),
        onIndexDamaged: (error) => tellDamagedIndex(this.#c, error),
      },
      seal,
    );
  }

  #newUploader(): Uploader {
    const { network, clock, log, problems } = this.#c;
    const { tree } = this.#volume;
    const onDurable = (shard: number): void => {
      this.#quota.noteUploaded(tree.shard(shard)?.sizeBytes ?? 0);
      this.sync.nudge();
    };
    const onDamaged = (shard: number): void => tellDamagedShard(this.#c, shard, false);
    return new Uploader(this.#volume, { network, clock, log, problems, onDurable, onDamaged });
  }

  /** The stores in use; others after a replacement. */
  get volume(): LocalVolume {
    return this.#volume;
  }

  get uploader(): Uploader {
    return this.#uploader;
  }

  /** What a driver mounts; stays the same when the stores are replaced. */
  get filesystem(): Filesystem {
    return this.#filesystem;
  }

  /** What the bridge last said of the room on the network. */
  get space(): NetworkSpace | null {
    return this.#quota.space;
  }

  /** Work that lost its place in the log. */
  get setAside(): readonly SetAside[] {
    return this.#folders.setAside.list();
  }

  /** Bytes that only this machine has. */
  get stagedBytes(): number {
    return stagedBytesOf(this.#volume, this.#uploader);
  }

  /** Begins uploads and the loop; the filesystem works before, too. */
  async start(): Promise<void> {
    this.#started = true;
    await this.#uploader.start();
    this.sync.start();
    this.#deadSegments.start();
  }

  /** Resolves when all that was written before the call is durable and in the log; errors as those of flushVolume(). */
  flush(progress: (progress: FlushProgress) => void, signal: AbortSignal): Promise<void> {
    const sources = (): FlushSources => ({ volume: this.#volume, uploader: this.#uploader, sync: this.sync });
    return flushVolume(sources, progress, signal, this.#c.clock);
  }

  #roleChanged(writer: boolean): void {
    this.#c.log.info({ writer }, writer ? 'this device writes the volume' : 'this device reads the volume');
    if (writer) void this.#removeOrphans();
  }

  async #handedIn(what: HandedIn): Promise<void> {
    tellHandedIn(this.#c.problems, what);
    if (what.hasCheckpoint) this.sync.wantCheckpoint();
    // what another device frees meanwhile would be stored behind its back, and kept for ever
    if (this.sync.writer) await storeAgain(this.#volume, this.#uploader, what.added);
  }

  /** Removes what was unlinked but open when an earlier run ended. */
  async #removeOrphans(): Promise<void> {
    try {
      const { tree, store } = this.#volume;
      for (const ino of await tree.orphans()) {
        if (!this.sync.writer || tree !== this.#volume.tree) return;
        const inode = tree.inode(ino);
        if (inode !== undefined && inode.nlink === 0 && !this.#vfs.isOpen(ino)) await tree.removeInode(inode);
        await store.settle();
      }
    } catch (error) {
      this.#c.log.error({ error: asError(error) }, 'removed files could not be freed; tried again at the next mount');
    }
  }

  /** Replaces the stores under the filesystem; requests wait only while folders change places. */
  async #rebuild(keep: boolean, fill: (next: LocalVolume) => Promise<void>): Promise<void> {
    await this.#folders.clearNext();
    const next = await this.#open(this.#folders.next);
    try {
      await fill(next);
    } catch (error) {
      await next.close();
      throw error;
    }
    const old = this.#volume;
    const stale = [await unpublishedNames(old.tree), await rootNames(old.tree), await rootNames(next.tree)];
    const open = this.#gate.close();
    try {
      await this.#uploader.stop();
      await this.#deadSegments.stop();
      await next.close();
      await old.close();
      const kept = await this.#folders.replace(keep, this.#c.clock.now());
      if (kept !== null) this.#c.log.warn({ path: kept }, 'staged work is kept');
      this.#volume = await this.#open(this.#folders.current);
      this.#vfs.replaceParts(this.#volume);
    } finally {
      open();
    }
    this.#uploader = this.#newUploader();
    if (this.#started) await this.#uploader.start();
    if (this.#started) this.#deadSegments.start();
    for (const invalidations of stale) this.#c.onChanged(invalidations);
  }

  #room(): Room {
    const usedBytes = this.#volume.tree.totals.storedBytes;
    const freeBytes = this.#quota.freeBytes ?? Math.max(0, this.#volume.files.roomBytes);
    return { totalBytes: usedBytes + freeBytes, freeBytes };
  }

  /** Asks the bridge for room and shard size; keeps what was known when it does not answer. */
  async refresh(): Promise<void> {
    if (!this.sync.connected) return;
    await this.#quota.refresh();
    try {
      const policy = await this.#c.network.announce(this.stagedBytes);
      this.#volume.segments.setSize(policy.shardSizeBytes);
    } catch (error) {
      this.#c.log.debug({ error: asError(error) }, 'the bridge gave no policy');
    }
  }

  /** Ends background work, gives the lease back and closes the stores; the first failure is thrown at the end. */
  async stop(): Promise<void> {
    const failures: Error[] = [];
    for (const step of [
      () => this.#vfs.settled(),
      () => this.#deadSegments.stop(),
      () => this.#uploader.stop(),
      () => this.sync.stop(),
      () => this.sync.release(),
      () => this.#volume.close(),
      () => this.#kept.close(),
    ]) {
      await step().catch((error: unknown) => failures.push(asError(error)));
    }
    if (failures[0] !== undefined) throw failures[0];
  }
}

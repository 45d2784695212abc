// The daemon behind one mount: builds every part, starts them in order and stops them in reverse.

import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { deriveVolumeKeys } from '../crypto/keys.ts';
import type { VolumeKeys } from '../crypto/keys.ts';
import type { Session } from '../fuse/driver.ts';
import { mountKernel } from '../fuse/kernel-driver.ts';
import { systemClock } from '../lib/clock.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Paths } from '../lib/paths.ts';
import type { Network, NetworkSpace } from '../net/network.ts';
import { peerNameOf } from '../net/peer-name.ts';
import { WorkerNetwork } from '../net/worker-network.ts';
import { Vfs } from '../vfs/vfs.ts';
import type { Room } from '../vfs/volume.ts';
import type { FlushProgress, MountStatus } from './control-api.ts';
import { serveControl } from './control.ts';
import type { ControlServer } from './control.ts';
import { flushVolume } from './flush.ts';
import { Gate } from './gate.ts';
import { EntryCodec } from './log-entry.ts';
import { openLocalVolume } from './local-volume.ts';
import type { LocalVolume } from './local-volume.ts';
import { Problems } from './problems.ts';
import { Publisher } from './publisher.ts';
import type { Invalidations } from './replay.ts';
import { SetAsideFolder } from './set-aside.ts';
import { stagedBytesOf, statusOf } from './status.ts';
import { rootNames, unpublishedNames } from './stale-names.ts';
import { Uploader } from './uploader.ts';
import { VolumeSync } from './volume-sync.ts';

/** A home without local state waits this long for its bridge; one with state does not need it. */
const FIRST_CONNECTION_MS = 20_000;
const CONNECTION_MS = 4_000;
const SPACE_INTERVAL_MS = 15_000;
/** The kernel is told what changes, so it may remember for long. */
const KERNEL_CACHE_MS = 3_600_000;

/** How a volume is mounted. */
export interface DaemonOptions {
  readonly mountPoint: string;
  readonly readOnly: boolean;
  readonly allowOther: boolean;
  readonly cacheBytes: number;
  readonly takeOver: boolean;
  /** Multiaddr with /p2p/, or null for the embedded network. */
  readonly bridge: string | null;
  /** 24 words. */
  readonly phrase: string;
  /** 32 bytes. */
  readonly deviceSeed: Buffer;
  readonly driver: 'kernel';
}

/** A running embedded network. */
export interface LocalNetwork {
  readonly bridge: string;
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

/** What a daemon is built from. */
export interface DaemonComponents {
  readonly log: Logger;
  readonly paths: Paths;
  readonly spawnLocalNetwork: (dir: string) => Promise<LocalNetwork>;
}

/** A mount that is served. */
export interface Daemon {
  /** Lines worth telling the user. */
  readonly notes: string[];
  /** Resolves when the mount is gone. */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

/** Mounts a volume and resolves once the folder is usable. */
export async function startDaemon(options: DaemonOptions, components: DaemonComponents): Promise<Daemon> {
  const daemon = new MountDaemon(options, components, await deriveVolumeKeys(options.phrase));
  try {
    await daemon.start();
  } catch (error) {
    await daemon.stop().catch(() => undefined);
    throw error;
  }
  return daemon;
}

class MountDaemon implements Daemon {
  readonly notes: string[] = [];
  readonly #options: DaemonOptions;
  readonly #components: DaemonComponents;
  readonly #keys: VolumeKeys;
  readonly #device: string;
  readonly #log: Logger;
  readonly #problems = new Problems(systemClock);
  readonly #setAside: SetAsideFolder;
  readonly #volumeDir: string;
  readonly #startedMs = Date.now();
  #localNetwork: LocalNetwork | null = null;
  #network!: Network;
  #volume!: LocalVolume;
  #uploader!: Uploader;
  #sync!: VolumeSync;
  #vfs!: Vfs;
  readonly #gate = new Gate();
  #session: Session | null = null;
  #control: ControlServer | null = null;
  #space: NetworkSpace | null = null;
  #spaceTimer: NodeJS.Timeout | null = null;
  #stopping: Promise<void> | null = null;
  /** Settles, and never rejects, when the unmount under way is done. */
  #unmounting: Promise<unknown> | null = null;
  readonly #end = Promise.withResolvers<void>();

  constructor(options: DaemonOptions, components: DaemonComponents, keys: VolumeKeys) {
    this.#options = options;
    this.#components = components;
    this.#keys = keys;
    this.#device = peerNameOf(options.deviceSeed);
    this.#log = components.log;
    this.#volumeDir = join(components.paths.volume, 'current');
    this.#setAside = new SetAsideFolder(join(components.paths.volume, 'set-aside'));
  }

  get ended(): Promise<void> {
    return this.#end.promise;
  }

  async start(): Promise<void> {
    const { paths } = this.#components;
    // taken first: it tells a second daemon of this home apart from anything else that is wrong
    this.#control = await serveControl(paths.controlSocket, {
      status: () => this.#status(),
      flush: async (_params, { progress, signal }) => {
        await this.#flush(progress, signal);
        return {};
      },
      unmount: async ({ wait }, { progress, signal }) => {
        const unmounted = this.#unmount(wait, progress, signal);
        this.#unmounting = unmounted.catch(() => undefined);
        await unmounted;
        return {};
      },
      takeOver: () => {
        this.#sync.takeOver();
        return Promise.resolve({});
      },
    });
    await this.#setAside.open();
    const bridge = this.#options.bridge ?? (await this.#startLocalNetwork());
    const { deviceSeed } = this.#options;
    this.#network = new WorkerNetwork({ bridge, deviceSeed, ownerSeed: this.#keys.ownerSeed }, { logger: this.#log });
    await this.#openVolume();
    await this.#connect();
    await this.#mount();
    this.#spaceTimer = setInterval(() => void this.#refresh(), SPACE_INTERVAL_MS);
    void this.#refresh();
  }

  async #startLocalNetwork(): Promise<string> {
    const { paths, spawnLocalNetwork } = this.#components;
    const local = await spawnLocalNetwork(paths.localNetwork);
    this.#localNetwork = local;
    this.notes.push(
      `everything is still on this machine only, below ${paths.localNetwork}; to keep it on other people's machines, ` +
        'set up a home that joins a network: XCORE_HOME=DIR xcore init --bridge MULTIADDR',
    );
    void local.ended.then(() => {
      if (this.#stopping !== null) return;
      this.#problems.set(
        'local-network',
        'UNREACHABLE',
        'the local network of this mount has ended',
        `unmount and mount again; nothing is lost. ${paths.log} tells why`,
      );
    });
    return local.bridge;
  }

  async #openVolume(): Promise<void> {
    this.#volume = await this.#open(this.#volumeDir);
    const { tree, store } = this.#volume;
    const isPartial = !tree.isEmpty && tree.head.seq === 0 && store.firstUnpublished > store.lastCommit;
    if (isPartial) {
      // the first reading of the log was cut short: nothing here is ours alone
      await this.#volume.close();
      await rm(this.#volumeDir, { recursive: true });
      this.#volume = await this.#open(this.#volumeDir);
    }
    this.#uploader = this.#newUploader();
    const publisher = new Publisher({
      network: this.#network,
      codec: new EntryCodec(this.#keys),
      clock: systemClock,
      log: this.#log,
      device: this.#device,
      onNeeded: (shards) => this.#uploader.need(shards),
    });
    const { dataKey } = this.#keys;
    const { readOnly, takeOver } = this.#options;
    this.#sync = new VolumeSync(
      {
        network: this.#network,
        codec: new EntryCodec(this.#keys),
        publisher,
        keys: this.#keys,
        device: this.#device,
        clock: systemClock,
        log: this.#log,
        problems: this.#problems,
        checkpoints: { network: this.#network, dataKey, dir: join(this.#components.paths.volume, 'checkpoint') },
        volume: () => this.#volume,
        rebuild: (keep, fill) => this.#rebuild(keep, fill),
        onApplied: (invalidations) => this.#invalidate(invalidations),
        onUndurable: (shard) => this.#uploader.add(shard),
        onRole: (writer) => this.#roleChanged(writer),
      },
      { readOnly, takeOver, owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 } },
    );
  }

  #open(dir: string): Promise<LocalVolume> {
    return openLocalVolume(dir, {
      keys: this.#keys,
      fetcher: this.#network,
      clock: systemClock,
      log: this.#log,
      cacheBytes: this.#options.cacheBytes,
      onSealed: (shard) => this.#uploader.add(shard),
      onLost: (shard) => this.#damaged(shard, true),
      onDamaged: (shard, lost) => this.#damaged(shard, lost),
    });
  }

  #newUploader(): Uploader {
    return new Uploader(this.#volume, {
      network: this.#network,
      clock: systemClock,
      log: this.#log,
      problems: this.#problems,
      onDurable: () => this.#sync.nudge(),
    });
  }

  #damaged(shard: number, lost: boolean): void {
    this.#log.error({ shard, lost }, 'local bytes of a shard are damaged');
    this.#problems.set(
      `damaged:${shard}`,
      'CORRUPT_SHARD',
      lost
        ? `bytes that only this machine had (shard ${shard}) are damaged; the files that hold them cannot be read whole`
        : `the local copy of shard ${shard} was damaged and is fetched again`,
      'check this disk',
    );
  }

  /** Joins the network as far as it can be reached; a home without state cannot do without. */
  async #connect(): Promise<void> {
    const connected = Promise.withResolvers<void>();
    this.#network.on('connection', (up) => {
      if (up) {
        connected.resolve();
        this.#problems.clear('connection');
      } else if (this.#stopping === null) {
        const message = 'the bridge cannot be reached; what is here stays usable, and uploads wait';
        this.#problems.set('connection', 'UNREACHABLE', message, 'nothing to do: tried again until it works');
      }
    });
    this.#sync.begin();
    await this.#network.start();
    const { tree } = this.#volume;
    const timeoutMs = tree.isEmpty ? FIRST_CONNECTION_MS : CONNECTION_MS;
    const timedOut = Symbol('timed out');
    const timer = Promise.withResolvers<typeof timedOut>();
    const handle = setTimeout(() => timer.resolve(timedOut), timeoutMs);
    const outcome = await Promise.race([connected.promise, timer.promise]);
    clearTimeout(handle);
    if (outcome === timedOut) {
      if (tree.isEmpty) {
        throw new XcoreError(
          'UNREACHABLE',
          'the bridge cannot be reached, and this home has no copy of the volume yet; check the address with xcore doctor',
        );
      }
      const message = 'the bridge cannot be reached; what is here stays usable, and uploads wait';
      this.#problems.set('connection', 'UNREACHABLE', message, 'nothing to do: tried again until it works');
      this.notes.push('the bridge cannot be reached; the folder works from what is here and catches up later');
    } else {
      await this.#sync.catchUp().catch((error: unknown) => {
        // a volume that is here stays usable, whatever the bridge says
        if (this.#volume.tree.isEmpty || hasCode(error, 'FORKED_LOG', 'REFUSED')) throw error;
        this.#log.warn({ error: asError(error) }, 'the volume log could not be read yet');
      });
    }
    // a reader of a volume in which nothing was ever published sees an empty folder
    if (this.#volume.tree.isEmpty) this.#volume.tree.format({ uid: 0, gid: 0 }, systemClock.nowNs());
    if (!this.#sync.writer && !this.#options.readOnly) {
      this.notes.push(
        this.#sync.holder === ''
          ? 'read-only until the bridge can be reached'
          : 'another device writes this volume: read-only here, until it lets go or you mount with --take-over',
      );
    }
  }

  async #mount(): Promise<void> {
    const { mountPoint, readOnly, allowOther } = this.#options;
    this.#vfs = new Vfs(this.#volume, {
      clock: systemClock,
      log: this.#log,
      writable: () => this.#sync.writer,
      room: () => this.#room(),
    });
    this.#session = await mountKernel(
      this.#gate.guard(this.#vfs),
      {
        mountPoint,
        readOnly,
        allowOther,
        writebackCache: false,
        entryTimeoutMs: KERNEL_CACHE_MS,
        attributeTimeoutMs: KERNEL_CACHE_MS,
        negativeTimeoutMs: KERNEL_CACHE_MS,
        fsName: 'xcore',
      },
      { log: this.#log },
    );
    void this.#session.ended.then(async () => {
      // who asked for the unmount is still to be answered, after the last flush
      await this.#unmounting;
      setImmediate(() => this.#end.resolve());
    });
    await this.#uploader.start();
    this.#sync.start();
  }

  #roleChanged(writer: boolean): void {
    this.#log.info({ writer }, writer ? 'this device writes the volume' : 'this device reads the volume');
    if (writer) void this.#removeOrphans();
  }

  /** Removes what was unlinked but open when an earlier run ended. */
  async #removeOrphans(): Promise<void> {
    try {
      const { tree, store } = this.#volume;
      for (const ino of await tree.orphans()) {
        if (!this.#sync.writer || tree !== this.#volume.tree) return;
        const inode = tree.inode(ino);
        if (inode !== undefined && inode.nlink === 0 && this.#vfs?.isOpen(ino) !== true) await tree.removeInode(inode);
        await store.settle();
      }
    } catch (error) {
      this.#log.error({ error: asError(error) }, 'removed files could not be freed; tried again at the next mount');
    }
  }

  #invalidate({ inodes, names }: Invalidations): void {
    const session = this.#session;
    if (session === null) return;
    for (const { parent, name } of names) session.invalidateEntry(parent, name);
    for (const ino of inodes) session.invalidateInode(ino);
  }

  /** Replaces the volume under the mount; requests wait only while folders change places. */
  async #rebuild(keep: boolean, fill: (next: LocalVolume) => Promise<void>): Promise<void> {
    const nextDir = join(this.#components.paths.volume, 'next');
    await rm(nextDir, { recursive: true, force: true });
    const next = await this.#open(nextDir);
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
      await next.close();
      await old.close();
      if (keep) this.#log.warn({ path: await this.#setAside.keep(this.#volumeDir, Date.now()) }, 'staged work is kept');
      else await rm(this.#volumeDir, { recursive: true });
      await rename(nextDir, this.#volumeDir);
      this.#volume = await this.#open(this.#volumeDir);
      this.#vfs?.replaceParts(this.#volume);
    } finally {
      open();
    }
    const isRunning = this.#session !== null;
    this.#uploader = this.#newUploader();
    if (isRunning) await this.#uploader.start();
    for (const invalidations of stale) this.#invalidate(invalidations);
  }

  // ------------------------------------------------------------------ what the control socket asks for

  async #status(): Promise<MountStatus> {
    if (this.#session === null) throw new XcoreError('NOT_MOUNTED', 'the mount is not ready yet');
    return statusOf({
      mountPoint: this.#options.mountPoint,
      startedMs: this.#startedMs,
      ownerPublicKey: this.#keys.ownerPublicKey,
      device: this.#device,
      readOnly: this.#options.readOnly,
      isLocal: this.#localNetwork !== null,
      volume: this.#volume,
      uploader: this.#uploader,
      sync: this.#sync,
      network: await this.#network.status(),
      space: this.#space,
      problems: this.#problems.list(),
      setAside: this.#setAside.list(),
    });
  }

  #flush(progress: (progress: FlushProgress) => void, signal: AbortSignal): Promise<void> {
    if (this.#session === null) throw new XcoreError('NOT_MOUNTED', 'the mount is not ready yet');
    return flushVolume(() => ({ volume: this.#volume, uploader: this.#uploader, sync: this.#sync }), progress, signal);
  }

  async #unmount(wait: boolean, progress: (progress: FlushProgress) => void, signal: AbortSignal): Promise<void> {
    if (wait) await this.#flush(progress, signal);
    await this.#session?.unmount();
    // what was written while the flush was under way
    if (wait) await this.#flush(progress, signal);
  }

  // ------------------------------------------------------------------ room and policy

  #room(): Room {
    const usedBytes = this.#volume.tree.totals.storedBytes;
    const space = this.#space;
    const freeBytes =
      space === null
        ? this.#volume.files.roomBytes
        : Math.min(
            space.quotaBytes - space.usedBytes - stagedBytesOf(this.#volume, this.#uploader),
            Math.floor(space.networkFreeBytes / Math.max(1, space.mirrors)),
          );
    return { totalBytes: usedBytes + Math.max(0, freeBytes), freeBytes: Math.max(0, freeBytes) };
  }

  async #refresh(): Promise<void> {
    if (!this.#sync.connected) return;
    try {
      this.#space = await this.#network.space();
      const staged = stagedBytesOf(this.#volume, this.#uploader);
      const policy = await this.#network.announce(staged);
      this.#volume.segments.setSize(policy.shardSizeBytes);
    } catch (error) {
      this.#log.debug({ error: asError(error) }, 'the bridge gave no figures');
    }
  }

  // ------------------------------------------------------------------ the end

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const steps: (() => Promise<void> | undefined)[] = [
      () => this.#session?.unmount({ lazy: true }),
      () => this.#control?.close(),
      () => this.#vfs?.settled(),
      () => this.#uploader?.stop(),
      () => this.#sync?.stop(),
      () => this.#sync?.release(),
      () => this.#volume?.close(),
      () => this.#network?.stop(),
      () => this.#localNetwork?.stop(),
    ];
    if (this.#spaceTimer !== null) clearInterval(this.#spaceTimer);
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        this.#log.error({ error: asError(error) }, 'a part of the mount did not end cleanly');
      }
    }
    this.#end.resolve();
  }
}

// The daemon behind one mount: builds every part, starts them in order and stops them in reverse.

import { deriveVolumeKeys } from '../crypto/keys.ts';
import type { VolumeKeys } from '../crypto/keys.ts';
import { chooseDriver } from '../fuse/choose-driver.ts';
import type { DriverName } from '../fuse/choose-driver.ts';
import type { Session } from '../fuse/driver.ts';
import { systemClock } from '../lib/clock.ts';
import type { Timer } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Paths } from '../lib/paths.ts';
import type { Network } from '../net/network.ts';
import { peerNameOf } from '../net/peer-name.ts';
import { WorkerNetwork } from '../net/worker-network.ts';
import type { FlushProgress, MountStatus } from './control-api.ts';
import { serveControl } from './control.ts';
import type { ControlServer } from './control.ts';
import { joinNetwork } from './join-network.ts';
import { MountedVolume } from './mounted-volume.ts';
import { Problems } from './problems.ts';
import type { Invalidations } from './replay.ts';
import { statusOf } from './status.ts';

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
  /** Reading moves atime (relatime). */
  readonly accessTimes: boolean;
  /** Programs of the mount may not be run. */
  readonly noExec: boolean;
  /** Multiaddr with /p2p/, or null for the embedded network. */
  readonly bridge: string | null;
  /** Wanted of each shard from now on; 0: as the bridge has it. */
  readonly mirrors: number;
  /** 24 words. */
  readonly phrase: string;
  /** 32 bytes. */
  readonly deviceSeed: Buffer;
  readonly driver: DriverName;
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
  readonly #startedMs = systemClock.now();
  #localNetwork: LocalNetwork | null = null;
  #network!: Network;
  #mounted!: MountedVolume;
  #session: Session | null = null;
  #control: ControlServer | null = null;
  #spaceTimer: Timer | null = null;
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
        this.#mounted.sync.takeOver();
        return Promise.resolve({});
      },
    });
    const bridge = this.#options.bridge ?? (await this.#startLocalNetwork());
    const { deviceSeed, mirrors } = this.#options;
    this.#network = new WorkerNetwork(
      { bridge, deviceSeed, ownerSeed: this.#keys.ownerSeed, mirrors },
      { logger: this.#log },
    );
    await this.#openVolume();
    await this.#join();
    await this.#mount();
    const timer = systemClock.after(SPACE_INTERVAL_MS, () => {
      void this.#mounted.refresh();
      timer.restart();
    });
    this.#spaceTimer = timer;
    void this.#mounted.refresh();
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
    const { readOnly, takeOver, cacheBytes, accessTimes } = this.#options;
    this.#mounted = await MountedVolume.open(
      {
        network: this.#network,
        keys: this.#keys,
        device: this.#device,
        clock: systemClock,
        log: this.#log,
        problems: this.#problems,
        onChanged: (invalidations) => this.#invalidate(invalidations),
      },
      {
        dir: this.#components.paths.volume,
        cacheBytes,
        accessTimes,
        readOnly,
        takeOver,
        owner: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      },
    );
  }

  async #join(): Promise<void> {
    const notes = await joinNetwork({
      network: this.#network,
      mounted: this.#mounted,
      problems: this.#problems,
      clock: systemClock,
      log: this.#log,
      isStopping: () => this.#stopping !== null,
    });
    this.notes.push(...notes);
    const { sync } = this.#mounted;
    if (sync.writer || this.#options.readOnly) return;
    this.notes.push(
      sync.holder === ''
        ? 'read-only until the bridge can be reached'
        : 'another device writes this volume: read-only here, until it lets go or you mount with --take-over',
    );
  }

  async #mount(): Promise<void> {
    const { mountPoint, readOnly, allowOther, noExec, driver } = this.#options;
    const mount = await chooseDriver(driver);
    this.#session = await mount(
      this.#mounted.filesystem,
      {
        mountPoint,
        readOnly,
        allowOther,
        noExec,
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
      systemClock.soon(() => this.#end.resolve());
    });
    await this.#mounted.start();
  }

  #invalidate({ inodes, names }: Invalidations): void {
    const session = this.#session;
    if (session === null) return;
    for (const { parent, name } of names) session.invalidateEntry(parent, name);
    for (const ino of inodes) session.invalidateInode(ino);
  }

  // ------------------------------------------------------------------ what the control socket asks for

  async #status(): Promise<MountStatus> {
    if (this.#session === null) throw new XcoreError('NOT_MOUNTED', 'the mount is not ready yet');
    const { volume, uploader, sync, space, setAside } = this.#mounted;
    return statusOf({
      mountPoint: this.#options.mountPoint,
      startedMs: this.#startedMs,
      ownerPublicKey: this.#keys.ownerPublicKey,
      device: this.#device,
      readOnly: this.#options.readOnly,
      isLocal: this.#localNetwork !== null,
      volume,
      uploader,
      sync,
      network: await this.#network.status(),
      space,
      problems: this.#problems.list(),
      setAside,
    });
  }

  #flush(progress: (progress: FlushProgress) => void, signal: AbortSignal): Promise<void> {
    if (this.#session === null) throw new XcoreError('NOT_MOUNTED', 'the mount is not ready yet');
    return this.#mounted.flush(progress, signal);
  }

  async #unmount(wait: boolean, progress: (progress: FlushProgress) => void, signal: AbortSignal): Promise<void> {
    if (wait) await this.#flush(progress, signal);
    await this.#session?.unmount();
    // what was written while the flush was under way
    if (wait) await this.#flush(progress, signal);
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
      () => this.#mounted?.stop(),
      () => this.#network?.stop(),
      () => this.#localNetwork?.stop(),
    ];
    this.#spaceTimer?.cancel();
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

// Devices of one volume in this process: composed as the daemon does, without a mount and without the
// network's thread, against a real bridge and real hosts on loopback.

import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import type { BridgeOptions } from '../../src/bridge/options.ts';
import type { RunningBridge } from '../../src/bridge/start-bridge.ts';
import { joinNetwork } from '../../src/client/join-network.ts';
import { EntryCodec } from '../../src/client/log-entry.ts';
import type { OpenedEntry } from '../../src/client/log-entry.ts';
import { openLocalVolume } from '../../src/client/local-volume.ts';
import { MountedVolume } from '../../src/client/mounted-volume.ts';
import type { MountedVolumeComponents, MountedVolumeOptions } from '../../src/client/mounted-volume.ts';
import { Problems } from '../../src/client/problems.ts';
import { deriveVolumeKeys } from '../../src/crypto/keys.ts';
import type { VolumeKeys } from '../../src/crypto/keys.ts';
import { generatePhrase } from '../../src/crypto/phrase.ts';
import { startHost } from '../../src/host/start-host.ts';
import type { RunningHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import type { Network } from '../../src/net/network.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { KIND, PUBLISHED_KINDS } from '../../src/tree/keys.ts';
import type { Filesystem } from '../../src/vfs/filesystem.ts';
import { Vfs } from '../../src/vfs/vfs.ts';
import { copyAtOnce } from '../support/copy-at-once.ts';
import { shardFiles } from '../support/hosts.ts';
import { reservePort } from '../support/ports.ts';
import { until as untilSo } from '../support/run.ts';
import { bytesOf, CALLER, readAll, temporaryFolder } from '../support/volume.ts';
import type { Scope } from '../support/volume.ts';

export type { Scope };

const LISTEN = ['/ip4/127.0.0.1/tcp/0'];
const GIB = 2 ** 30;
const FETCH_TIMEOUT_MS = 30_000;
const FLUSH_TIMEOUT_MS = 120_000;
const BRIDGE_TIMEOUT_MS = 60_000;
export const ROOT = 1;

/** Waits until something is so, however busy the machine is. */
export async function until(what: string, check: () => Promise<boolean> | boolean): Promise<void> {
  await untilSo(what, check, undefined, 20);
}

/** Time on which a test decides: it stands still until it is moved, and delays pass as they do. */
export class HeldTime {
  #nowMs = Date.now();

  readonly clock: Clock = {
    ...systemClock,
    now: () => this.#nowMs,
    nowNs: () => BigInt(this.#nowMs) * 1_000_000n,
  };

  pass(ms: number): void {
    this.#nowMs += ms;
  }
}

/** A bridge and hosts, and a new volume's keys. */
export class World {
  readonly dir: string;
  readonly hosts: (RunningHost | null)[] = [];
  readonly #options: Partial<BridgeOptions>;
  readonly #clock: Clock;
  #bridge: RunningBridge | null = null;
  readonly #listen = [`/ip4/127.0.0.1/tcp/${reservePort()}`];
  address = '';

  private constructor(dir: string, options: Partial<BridgeOptions>, clock: Clock) {
    this.dir = dir;
    this.#options = options;
    this.#clock = clock;
  }

  /** `clock` is the bridge's. */
  static async start(t: Scope, hosts = 2, options: Partial<BridgeOptions> = {}, clock = systemClock): Promise<World> {
    const world = new World(temporaryFolder(t), options, clock);
    t.teardown(() => world.stop());
    await world.startBridge();
    for (let n = 0; n < hosts; n++) await world.startHost(n);
    return world;
  }

  async startBridge(): Promise<void> {
    // what is harmed here is to be found by a device, not before by an audit
    const audits = { auditsPerDay: 0.001, auditShareADay: 0 };
    const options = { heartbeatMs: 500, upkeepMs: 100, ...audits, ...this.#options };
    this.#bridge = await startBridge(
      { dir: join(this.dir, 'bridge'), listen: this.#listen, options },
      { log: silentLogger, clock: this.#clock },
    );
    this.address = this.#bridge.address;
  }

  /** The time that a device gives its bridge to answer: of one that is there, however busy the machine is. */
  readonly patience: Clock = {
    ...systemClock,
    sleep: (ms, signal) => systemClock.sleep(this.#bridge === null ? ms : BRIDGE_TIMEOUT_MS, signal),
  };

  async stopBridge(): Promise<void> {
    await this.#bridge?.stop();
    this.#bridge = null;
  }

  /** A copy of the bridge's folder as it is now. */
  backUpBridge(): string {
    const to = join(this.dir, `bridge-${randomBytes(3).toString('hex')}`);
    copyAtOnce(join(this.dir, 'bridge'), to);
    return to;
  }

  /** The bridge as it was when the copy was made. */
  async restoreBridge(copy: string): Promise<void> {
    await this.stopBridge();
    rmSync(join(this.dir, 'bridge'), { recursive: true });
    cpSync(copy, join(this.dir, 'bridge'), { recursive: true });
    await this.startBridge();
  }

  hostDir(n: number): string {
    return join(this.dir, `host${n}`);
  }

  async startHost(n: number): Promise<void> {
    mkdirSync(this.hostDir(n), { recursive: true, mode: 0o700 });
    const settings = { dir: this.hostDir(n), bridge: this.address, capacityBytes: GIB, listen: LISTEN };
    this.hosts[n] = await startHost({ ...settings, options: { floorBytes: 0 } }, { log: silentLogger });
  }

  async stopHost(n: number): Promise<void> {
    await this.hosts[n]?.stop();
    this.hosts[n] = null;
  }

  /** Ids of shards on host `n`, hex, sorted. */
  shardsOn(n: number): string[] {
    return shardFiles(this.hostDir(n))
      .map((path) => path.slice(-64))
      .sort();
  }

  async stop(): Promise<void> {
    await Promise.all(this.hosts.map((_host, n) => this.stopHost(n)));
    await this.stopBridge();
  }

  /** A volume of its own, with no device yet. */
  async volume(): Promise<Volume> {
    return new Volume(this, await deriveVolumeKeys(generatePhrase()));
  }
}

/** What the calls of a network are replaced with; each is given the real one. */
export type Wrap = (real: Network) => Partial<Network>;

/** A network of which some calls are replaced. */
export function wrapped(network: Network, wrap: Wrap): Network {
  return new Proxy<Network>(network, {
    get: (target, name) => {
      const replaced: unknown = Reflect.get(wrap(target), name);
      if (replaced !== undefined) return replaced;
      const method = Reflect.get(target, name, target) as (...args: unknown[]) => unknown;
      return method.bind(target);
    },
  });
}

/** How a device takes part. */
export interface DeviceOptions extends Partial<MountedVolumeOptions> {
  readonly wrap?: Wrap;
  readonly watched?: Pick<MountedVolumeComponents, 'disk' | 'guard'>;
  /** After which a read of what no host gives fails; longer than a busy machine takes, unless told. */
  readonly fetchTimeoutMs?: number;
  /** Where it lies; a folder of its own unless told. */
  readonly folder?: string;
  /** Folder of another device of this volume, as it is, in the place of an empty one. */
  readonly copyOf?: string;
}

/** One owner's volume. */
export class Volume {
  readonly world: World;
  readonly keys: VolumeKeys;
  readonly codec: EntryCodec;
  #devices = 0;

  constructor(world: World, keys: VolumeKeys) {
    this.world = world;
    this.keys = keys;
    this.codec = new EntryCodec(keys);
  }

  /** A device that was never on. */
  device(t: Scope, options: DeviceOptions = {}): Device {
    const device = new Device(
      this,
      options.folder ?? join(this.world.dir, `device-${randomBytes(3).toString('hex')}-${this.#devices++}`),
      options,
    );
    t.teardown(() => device.off());
    return device;
  }
}

/** One device: off until on(). Its seed and folder stay. */
export class Device {
  readonly volume: Volume;
  readonly dir: string;
  readonly seed = randomBytes(32);
  readonly problems = new Problems(systemClock);
  readonly changed = { inodes: new Set<number>(), names: [] as { parent: number; name: string }[] };
  readonly #options: DeviceOptions;
  /** May be replaced at any time. */
  wrap: Wrap;
  network!: Network;
  #mounted: MountedVolume | null = null;

  constructor(volume: Volume, dir: string, options: DeviceOptions) {
    this.volume = volume;
    this.dir = dir;
    this.#options = options;
    this.wrap = options.wrap ?? (() => ({}));
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (options.copyOf !== undefined) cpSync(options.copyOf, dir, { recursive: true });
  }

  get name(): string {
    return peerNameOf(this.seed);
  }

  get mounted(): MountedVolume {
    if (this.#mounted === null) throw new TypeError('this device is off');
    return this.#mounted;
  }

  get fs(): Filesystem {
    return this.mounted.filesystem;
  }

  get tree(): MountedVolume['volume']['tree'] {
    return this.mounted.volume.tree;
  }

  get store(): MountedVolume['volume']['store'] {
    return this.mounted.volume.store;
  }

  get sync(): MountedVolume['sync'] {
    return this.mounted.sync;
  }

  problem(key: string): string | undefined {
    return this.problems.list().find(({ code }) => code === key)?.message;
  }

  /** Starts as a mount does; errors as those of joinNetwork(). */
  async on(options: DeviceOptions = {}): Promise<this> {
    const real = new ClientNetwork({
      bridge: this.volume.world.address,
      deviceSeed: this.seed,
      ownerSeed: this.volume.keys.ownerSeed,
      fetchTimeoutMs: { ...this.#options, ...options }.fetchTimeoutMs ?? FETCH_TIMEOUT_MS,
    });
    this.network = wrapped(real, (network) => this.wrap(network));
    this.#mounted = await MountedVolume.open(
      {
        network: this.network,
        keys: this.volume.keys,
        device: this.name,
        clock: systemClock,
        log: silentLogger,
        problems: this.problems,
        ...this.#options.watched,
        onChanged: ({ inodes, names }) => {
          for (const ino of inodes) this.changed.inodes.add(ino);
          this.changed.names.push(...names);
        },
      },
      {
        dir: this.dir,
        cacheBytes: GIB,
        readOnly: false,
        takeOver: false,
        owner: { uid: 1000, gid: 1000 },
        seal: { idleMs: 60_000, maxAgeMs: 60_000 },
        ...this.#options,
        ...options,
      },
    );
    try {
      const { network, mounted, problems } = this;
      const clock = this.volume.world.patience;
      await joinNetwork({ network, mounted, problems, clock, log: silentLogger, isStopping: () => false });
      await mounted.start();
    } catch (error) {
      await this.off();
      throw error;
    }
    return this;
  }

  /** Stops as an unmount without waiting does. */
  async off(): Promise<void> {
    const mounted = this.#mounted;
    if (mounted === null) return;
    this.#mounted = null;
    try {
      await mounted.stop();
    } catch {
      // the bridge may be away, and with it the lease
    }
    await this.network.stop();
  }

  /** A copy of this device's folder as it is now, as if the power went. */
  copy(): string {
    const to = `${this.dir}-copy-${randomBytes(3).toString('hex')}`;
    copyAtOnce(this.dir, to);
    return to;
  }

  /** Publishes all that was written. */
  async flush(): Promise<void> {
    await this.mounted.flush(() => undefined, AbortSignal.timeout(FLUSH_TIMEOUT_MS));
  }

  /** Waits until this device is where another one is. */
  async reaches(other: Device): Promise<void> {
    const { seq } = other.tree.head;
    await until(`entry ${seq} is here`, () => this.tree.head.seq >= seq);
  }

  becomesWriter(): Promise<void> {
    return until('this device writes', () => this.sync.writer);
  }

  /** Inode number of a path, or undefined. */
  async ino(path: string): Promise<number | undefined> {
    let ino = ROOT;
    for (const name of path.split('/')) {
      const found = await this.fs.lookup(ino, name);
      if (found === null) return undefined;
      ino = found.ino;
    }
    return ino;
  }

  /** Makes or replaces a file in the root directory. */
  async write(name: string, data: Buffer | string): Promise<void> {
    const { fs } = this;
    if ((await fs.lookup(ROOT, name)) !== null) await fs.unlink(ROOT, name);
    const { attributes, file } = await fs.create(ROOT, name, 0o100644, 2, CALLER);
    await fs.write(attributes.ino, file.handle, 0, Buffer.from(data), false);
    await fs.flush(attributes.ino, file.handle);
    await fs.release(attributes.ino, file.handle);
  }

  /** Bytes of a file, or undefined when it is not there. */
  async read(name: string): Promise<Buffer | undefined> {
    const ino = await this.ino(name);
    if (ino === undefined) return undefined;
    const { handle } = await this.fs.open(ino, 0);
    const parts: Buffer[] = [];
    for (let at = 0; ;) {
      const read = await bytesOf(this.fs.read(ino, handle, at, 131_072));
      if (read.length === 0) break;
      parts.push(read);
      at += read.length;
    }
    await this.fs.release(ino, handle);
    return Buffer.concat(parts);
  }

  async text(name: string): Promise<string | undefined> {
    return (await this.read(name))?.toString();
  }

  /** Names in the root directory, sorted. */
  async names(): Promise<string[]> {
    const found: string[] = [];
    await this.store.commit();
    for await (const { dentry } of this.tree.dentries(ROOT, 0n)) found.push(dentry.name);
    return found.sort();
  }

  /** Every record that the log carries: key in hex to plaintext in hex. */
  async records(): Promise<Map<string, string>> {
    await this.store.commit();
    const found = new Map<string, string>();
    for (const kind of PUBLISHED_KINDS) {
      for await (const { key, value } of this.store.plaintexts(kind)) {
        found.set(Buffer.from(key, 'latin1').toString('hex'), value.toString('hex'));
      }
    }
    return found;
  }

  /** The log as the bridge has it, checked from its beginning. */
  async log(): Promise<OpenedEntry[]> {
    const found: OpenedEntry[] = [];
    let previous: Buffer = Buffer.alloc(32);
    for (;;) {
      const { entries, head } = await this.network.readLog(found.length + 1, 2 ** 20);
      for (const wire of entries) {
        const entry = this.volume.codec.open(wire, found.length + 1, previous);
        found.push(entry);
        previous = entry.hash;
      }
      if (found.length >= head.seq) return found;
    }
  }

  /** Ids of the shards that files lie in, hex, sorted. */
  async shards(): Promise<string[]> {
    await this.store.commit();
    const found: string[] = [];
    for await (const { record } of this.store.range(KIND.shard)) {
      found.push(Buffer.from((record as { id: Uint8Array }).id).toString('hex'));
    }
    return found.sort();
  }
}

/** Ids of the shards that a log keeps: added and not freed since, hex, sorted. */
export function keptShards(log: readonly OpenedEntry[]): string[] {
  const kept = new Set<string>();
  for (const { header } of log) {
    for (const { shardId } of header.shardsAdded) kept.add(Buffer.from(shardId).toString('hex'));
    for (const id of header.shardsFreed) kept.delete(Buffer.from(id).toString('hex'));
  }
  return [...kept].sort();
}

/** What a call fails with when the connection breaks. */
export function unreachable(): XcoreError {
  return new XcoreError('UNREACHABLE', 'cut off by the test');
}

/** Files of a volume that was set aside, read with its own index and nothing else. */
export async function filesIn(device: Device, path: string): Promise<Map<string, Buffer>> {
  const lost: number[] = [];
  const volume = await openLocalVolume(path, {
    keys: device.volume.keys,
    fetcher: device.network,
    clock: systemClock,
    log: silentLogger,
    cacheBytes: 2 ** 30,
    onSealed: () => undefined,
    onLost: (shard) => lost.push(shard),
    onDamaged: (shard) => lost.push(shard),
  });
  try {
    const vfs = new Vfs(volume, {
      clock: systemClock,
      log: silentLogger,
      writable: () => false,
      room: () => ({ totalBytes: 0, freeBytes: 0 }),
    });
    const files = new Map<string, Buffer>();
    for await (const { dentry } of volume.tree.dentries(ROOT, 0n))
      files.set(dentry.name, await readAll(vfs, dentry.ino));
    if (lost.length > 0) throw new Error(`shards ${lost.join()} are damaged`);
    return files;
  } finally {
    await volume.close();
  }
}

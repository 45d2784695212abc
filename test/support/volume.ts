// One volume's tree, cache and filesystem in this process, composed as the client does, with a folder
// in the place of the hosts. Nothing here is mounted and nothing listens.

import { NO_BARRIER } from '../../src/tree/durability.ts';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile, mkdir, open, readFile, rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hasher } from '../../src/cache/hasher.ts';
import { Segments } from '../../src/cache/segments.ts';
import type { SegmentOptions } from '../../src/cache/segments.ts';
import { ShardFiles } from '../../src/cache/shard-files.ts';
import { ShardReader } from '../../src/cache/shard-reader.ts';
import type { ShardFetcher } from '../../src/cache/remote-shards.ts';
import { LEAF_SIZE_BYTES, leafHashes } from '../../src/crypto/merkle.ts';
import { Sealer } from '../../src/crypto/sealer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Clock } from '../../src/lib/clock.ts';
import type { Disk } from '../../src/lib/disk.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import type { IndexGuard } from '../../src/tree/index-database.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import { Tree } from '../../src/tree/tree.ts';
import { Vfs } from '../../src/vfs/vfs.ts';

export const DATA_KEY = Buffer.alloc(32, 1);
export const NAME_KEY = Buffer.alloc(32, 2);
const INDEX_KEY = Buffer.alloc(32, 3);
export const LINEAGE = Buffer.alloc(16, 4);
export const CALLER = { uid: 1000, gid: 1000, pid: 1 };

/** The bytes of an answer; those that are there at once are only lent. */
export async function bytesOf(parts: Buffer[] | Promise<Buffer[]>): Promise<Buffer> {
  return Buffer.concat(parts instanceof Promise ? await parts : parts);
}

/** The part of a tap test that is needed here. */
export interface Scope {
  teardown(handler: () => unknown): void;
}

/** A folder that goes with the test. */
export function temporaryFolder(t: Scope): string {
  const dir = mkdtempSync(join(tmpdir(), 'xc-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true, maxRetries: 3 }));
  return dir;
}

/** The sealer of the test volume's index. */
export function indexSealer(): Sealer {
  return new Sealer(INDEX_KEY);
}

/** Shards in a folder, by their ids; counts what is asked for and can be made to fail. */
export class HostFolder implements ShardFetcher {
  readonly dir: string;
  /** Shards in each call of expect(). */
  readonly expected: number[] = [];
  shardFetches = 0;
  leafFetches = 0;
  /** Called before each answer; what it throws is the answer. */
  fillsMemory = true;
  before: (signal?: AbortSignal) => void | Promise<void> = () => undefined;

  constructor(dir: string) {
    this.dir = dir;
  }

  path(id: Uint8Array): string {
    return join(this.dir, Buffer.from(id).toString('hex'));
  }

  async #read(id: Uint8Array): Promise<Buffer> {
    return readFile(this.path(id)).catch(() => {
      throw new XcoreError('NO_MIRROR', 'no host has this shard');
    });
  }

  async fetchShard(
    id: Uint8Array,
    _sizeBytes: number,
    path: string,
    _signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<boolean> {
    this.shardFetches++;
    await this.before();
    const data = await this.#read(id);
    if (memory && this.fillsMemory) new Uint8Array(memory).set(data);
    await writeFile(`${path}.part`, Buffer.concat([data, leafHashes(data)]));
    await rename(`${path}.part`, path);
    return memory !== undefined && this.fillsMemory;
  }

  expect(ids: readonly Uint8Array[]): void {
    this.expected.push(ids.length);
  }

  mirrors(id: Uint8Array): Promise<number> {
    return Promise.resolve(existsSync(this.path(id)) ? 1 : 0);
  }

  async fetchLeaves(
    id: Uint8Array,
    _size: number,
    first: number,
    count: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    this.leafFetches++;
    await this.before(signal);
    return (await this.#read(id)).subarray(first * LEAF_SIZE_BYTES, (first + count) * LEAF_SIZE_BYTES);
  }
}

/** How to open a volume. */
export interface VolumeOptions {
  readonly capBytes?: number;
  readonly clock?: Clock;
  readonly seal?: SegmentOptions;
  readonly writable?: () => boolean;
  readonly disk?: Disk;
  /** Of the caller, who ends it. */
  readonly hasher?: Hasher;
  readonly guard?: IndexGuard;
  readonly reopenDeadlineMs?: number;
  readonly checkedAtOpenBytes?: number;
  readonly onIndexDamaged?: (error: Error) => void;
  readonly onHealth?: (failure: Error | null) => void;
  /** Who owns the root of a new volume. */
  readonly owner?: { uid: number; gid: number };
}

/** Everything of one open volume. */
export interface OpenVolume {
  readonly dir: string;
  readonly host: HostFolder;
  readonly store: RecordStore;
  readonly tree: Tree;
  readonly files: ShardFiles;
  readonly segments: Segments;
  readonly hasher: Hasher;
  readonly reader: ShardReader;
  readonly vfs: Vfs;
  readonly sealed: number[];
  readonly lost: number[];
  readonly damaged: { shard: number; lost: boolean }[];
  /** Copies sealed shards to the host folder and lets them be durable; all of them unless told. */
  upload(shards?: readonly number[]): Promise<void>;
  close(): Promise<void>;
}

/** Opens the volume in a folder, and makes it where it is not there. */
export async function openVolume(dir: string, options: VolumeOptions = {}): Promise<OpenVolume> {
  const clock = options.clock ?? systemClock;
  const host = new HostFolder(join(dir, 'host'));
  await mkdir(host.dir, { recursive: true });
  const { disk, guard, onHealth, onIndexDamaged, reopenDeadlineMs, checkedAtOpenBytes } = options;
  const store = await RecordStore.open(join(dir, 'index'), indexSealer(), LINEAGE, {
    syncJournal: join(dir, 'sync-journal'),
    ...(disk && { disk }),
    ...(guard && { guard }),
    ...(reopenDeadlineMs !== undefined && { reopenDeadlineMs }),
    ...(checkedAtOpenBytes !== undefined && { checkedAtOpenBytes }),
    ...(onHealth && { onHealth }),
    ...(onIndexDamaged && { onDamaged: onIndexDamaged }),
  });
  try {
    return await openParts(dir, store, host, clock, options);
  } catch (error) {
    await store.close().catch(() => undefined);
    throw error;
  }
}

async function openParts(
  dir: string,
  store: RecordStore,
  host: HostFolder,
  clock: Clock,
  options: VolumeOptions,
): Promise<OpenVolume> {
  const tree = new Tree(store, NAME_KEY);
  const files = await ShardFiles.open(join(dir, 'cache'), options.capBytes ?? 4 * 2 ** 30, silentLogger, options.disk);
  const hasher = options.hasher ?? new Hasher();
  const stopHasher = (): Promise<void> => (options.hasher === undefined ? hasher.stop() : Promise.resolve());
  const sealed: number[] = [];
  const lost: number[] = [];
  const damaged: { shard: number; lost: boolean }[] = [];
  const segments = new Segments(
    {
      table: tree,
      files,
      dataKey: DATA_KEY,
      hasher,
      clock,
      log: silentLogger,
      commit: () => store.commit(),
      onSealed: (shard) => sealed.push(shard),
      onLost: (shard, keptBytes) => {
        if (keptBytes === 0) tree.putUpload(shard, { durable: false, lost: true });
        lost.push(shard);
      },
    },
    options.seal ?? { idleMs: 60_000, maxAgeMs: 60_000 },
  );
  store.setBarrier(segments.barrier);
  const reader = new ShardReader({
    table: tree,
    files,
    segments,
    fetcher: host,
    loader: hasher,
    dataKey: DATA_KEY,
    clock,
    log: silentLogger,
    onDamaged: (shard, isLost) => damaged.push({ shard, lost: isLost }),
  });
  store.setRecording(true, tree.head.lastCommit);
  if (tree.isEmpty) tree.format(options.owner ?? { uid: 1000, gid: 1000 }, clock.nowNs());
  const staged = async (): Promise<number[]> =>
    (await tree.uploads()).filter(({ upload }) => !upload.durable).map(({ shard }) => shard);
  const left = await staged();
  await store.restoreTails((tails) => segments.restore(tails, (shard) => left.includes(shard)));
  await segments.recover(left);
  segments.start();
  const room = { totalBytes: 2 ** 40, freeBytes: 2 ** 39 };
  const vfs = new Vfs(
    { tree, segments, files, reader },
    { clock, log: silentLogger, writable: options.writable ?? (() => true), room: () => room },
  );
  const upload = async (shards?: readonly number[]): Promise<void> => {
    await store.commit();
    const sent = (shards ?? (await staged())).filter((shard) => tree.requireShard(shard).id.length > 0);
    for (const shard of sent) {
      const { id, sizeBytes } = tree.requireShard(shard);
      await copyFile(files.path(shard), host.path(id));
      const file = await open(host.path(id), 'r+');
      await file.truncate(sizeBytes);
      await file.close();
      tree.putUpload(shard, { durable: true });
    }
    await store.commit(true);
    for (const shard of sent) files.setStaged(shard, false);
  };
  const close = async (): Promise<void> => {
    await vfs.settled();
    const steps = [() => segments.stop(), () => reader.stop(), () => store.close(), stopHasher];
    const failures: Error[] = [];
    for (const step of steps) await step().catch((error: Error) => failures.push(error));
    if (failures[0] !== undefined) throw failures[0];
  };
  return {
    ...{ dir, host, store, tree, files, segments, hasher, reader, vfs, sealed, lost, damaged },
    upload,
    close,
  };
}

/** Stops a volume as kill -9 would: nothing is sealed or committed any more. */
export async function abandon(volume: OpenVolume): Promise<void> {
  volume.store.setBarrier({ ...NO_BARRIER, wait: () => Promise.reject(new Error('killed')) });
  await volume.segments.stop().catch(() => undefined);
  await volume.reader.stop();
  await volume.store.close().catch(() => undefined);
  await volume.hasher.stop();
}

/** All bytes of a file. */
export async function readAll(vfs: Vfs, ino: number, requestBytes = 131_072): Promise<Buffer> {
  const { handle } = await vfs.open(ino, 0);
  const parts: Buffer[] = [];
  for (let at = 0; ;) {
    const read = await bytesOf(vfs.read(ino, handle, at, requestBytes));
    if (read.length === 0) break;
    parts.push(read);
    at += read.length;
  }
  await vfs.release(ino, handle);
  return Buffer.concat(parts);
}

/** Makes a file with these bytes; returns its inode number. */
export async function writeFileAt(vfs: Vfs, parent: number, name: string, data: Buffer): Promise<number> {
  const { attributes, file } = await vfs.create(parent, name, 0o100644, 2, CALLER);
  for (let at = 0; at < data.length; at += 1 << 20) {
    await vfs.write(attributes.ino, file.handle, at, data.subarray(at, at + (1 << 20)), false);
  }
  await vfs.flush(attributes.ino, file.handle);
  await vfs.release(attributes.ino, file.handle);
  return attributes.ino;
}

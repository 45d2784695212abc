// A disk on which every call that changes something is a numbered point: it can be made to fail there,
// the folder can be copied as a killed process or a power cut would leave it, and what is written to
// segments is remembered.

import {
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { systemDisk } from '../../src/lib/disk.ts';
import type { Disk, DiskFile } from '../../src/lib/disk.ts';
import type { IndexGuard } from '../../src/tree/index-database.ts';
import { copyAtOnce } from './copy-at-once.ts';
import type { Random } from './random.ts';

/** A call that is about to change something. */
export interface Point {
  /** From 1 on. */
  readonly number: number;
  readonly call: string;
  readonly path: string;
}

/** What happens at a point; what it throws is the failure of the call. */
export type OnPoint = (point: Point) => void;

/** The disk below one folder, and the guard of the index in it. */
export class WatchedDisk {
  readonly dir: string;
  readonly disk: Disk;
  readonly guard: IndexGuard;
  points = 0;
  onPoint: OnPoint = () => undefined;
  /** Bytes that go into a file of the cache. */
  onCacheWrite: (shard: number, position: number, bytes: Uint8Array) => void = () => undefined;
  /** What the last sync of each file left on the disk for certain. */
  readonly #synced = new Map<string, Buffer>();
  /** Names that a sync of their folder made certain. */
  readonly #names = new Set<string>();
  /** Sizes of LevelDB's logs after the last batch that was synced. */
  #logs = new Map<string, number>();

  constructor(dir: string) {
    this.dir = dir;
    this.disk = {
      ...systemDisk,
      open: (path, flags, mode) => this.#open(path, flags, mode),
      mkdir: (path, options) => this.#do('mkdir', path, () => systemDisk.mkdir(path, options)),
      link: (from, to) => this.#do('link', to, () => systemDisk.link(from, to)),
      rename: (from, to) => this.#do('rename', to, () => systemDisk.rename(from, to)),
      rm: (path, options) => this.#do('rm', path, () => systemDisk.rm(path, options)),
      unlink: (path) => this.#do('unlink', path, () => systemDisk.unlink(path)),
    };
    this.guard = {
      before: (sync) => this.#point(sync ? 'batch and sync' : 'batch', 'index'),
      after: (sync) => {
        if (sync) this.#logs = new Map(logsIn(this.dir).map((path) => [path, statSync(path).size]));
      },
    };
  }

  #point(call: string, path: string): void {
    this.onPoint({ number: ++this.points, call, path });
  }

  async #do<T>(call: string, path: string, action: () => Promise<T>): Promise<T> {
    this.#point(call, path);
    return action();
  }

  async #open(path: string, flags: string | number, mode?: number): Promise<DiskFile> {
    if (flags !== 'r') this.#point(`open ${flags}`, path);
    const file = await systemDisk.open(path, flags, mode);
    const sync = (call: 'sync' | 'datasync') => async (): Promise<void> => {
      this.#point(call, path);
      await file[call]();
      this.#noteSync(path);
    };
    const syncs = typeof flags === 'number' && (flags & constants.O_DSYNC) !== 0;
    const shard = Number.parseInt(basename(path), 16);
    const isCache = relative(this.dir, path).startsWith('cache/');
    const overridden: Partial<Record<keyof DiskFile, unknown>> = {
      write: (bytes: Uint8Array, from: number, length: number, position: number) => {
        this.#point(syncs ? 'write and sync' : 'write', path);
        if (isCache) this.onCacheWrite(shard, position, bytes.subarray(from, from + length));
        return syncs
          ? this.#writeThrough(file, path, bytes.subarray(from, from + length), position)
          : file.write(bytes, from, length, position);
      },
      writeSync: (bytes: Uint8Array, from: number, length: number, position: number) => {
        this.#point(syncs ? 'write and sync' : 'write', path);
        if (isCache) this.onCacheWrite(shard, position, bytes.subarray(from, from + length));
        if (!syncs) return file.writeSync(bytes, from, length, position);
        const half = length >> 1;
        file.writeSync(bytes, from, half, position);
        this.#point('half of a write and sync', path);
        file.writeSync(bytes, from + half, length - half, position + half);
        this.#noteSync(path);
        return length;
      },
      writeDirect: (bytes: Uint8Array, from: number, length: number, position: number) => {
        this.#point('write', path);
        if (isCache) this.onCacheWrite(shard, position, bytes.subarray(from, from + length));
        return file.writeDirect?.(bytes, from, length, position) ?? Promise.resolve(0);
      },
      writeFile: (bytes: string) => this.#do('write', path, () => file.writeFile(bytes)),
      truncate: (size: number) => this.#do('truncate', path, () => file.truncate(size)),
      chmod: (bits: number) => file.chmod(bits),
      sync: sync('sync'),
      datasync: sync('datasync'),
    };
    return new Proxy(file, {
      get: (target, name) => {
        const own = overridden[name as keyof DiskFile];
        if (own !== undefined) return own;
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }

  /** A write that is on the disk when it returns, and half of it before. */
  async #writeThrough(
    file: DiskFile,
    path: string,
    bytes: Uint8Array,
    position: number,
  ): Promise<{ bytesWritten: number }> {
    const half = bytes.length >> 1;
    await file.write(bytes, 0, half, position);
    this.#point('half of a write and sync', path);
    await file.write(bytes, half, bytes.length - half, position + half);
    this.#noteSync(path);
    return { bytesWritten: bytes.length };
  }

  #noteSync(path: string): void {
    if (!existsSync(path)) return;
    if (!statSync(path).isDirectory()) {
      this.#synced.set(path, readFileSync(path));
      return;
    }
    for (const name of readdirSync(path)) this.#names.add(join(path, name));
  }

  /** What a killed process leaves: all that was done. */
  copyTo(target: string): void {
    copyAtOnce(this.dir, target);
  }

  /** What a power cut may leave: what was synced, and any part of the rest. */
  cutTo(target: string, random: Random): void {
    this.copyTo(target);
    const inCopy = (path: string): string => join(target, relative(this.dir, path));
    for (const path of logsIn(target)) {
      const synced = this.#logs.get(join(this.dir, relative(target, path))) ?? 0;
      const size = statSync(path).size;
      if (size > synced) truncateSync(path, random.pick([synced, size, random.between(synced, size + 1)]));
    }
    for (const name of ['index/journal', 'sync-journal']) {
      const journal = join(this.dir, name);
      if (!existsSync(inCopy(journal))) continue;
      const left = torn(readFileSync(inCopy(journal)), this.#synced.get(journal) ?? Buffer.alloc(0), random);
      writeFileSync(inCopy(journal), left);
    }
    const cache = join(this.dir, 'cache');
    for (const name of existsSync(cache) ? readdirSync(cache, { recursive: true, encoding: 'utf8' }) : []) {
      const path = join(cache, name);
      const copy = inCopy(path);
      if (!existsSync(copy) || statSync(copy).isDirectory()) continue;
      if (!this.#names.has(path) && !this.#names.has(dirname(path)) && random.below(2) === 0) unlinkSync(copy);
      else if (!this.#names.has(path) && random.below(2) === 0) unlinkSync(copy);
      else writeFileSync(copy, torn(readFileSync(copy), this.#synced.get(path) ?? Buffer.alloc(0), random));
    }
  }
}

/** Synced bytes, and of those written since all, none, a part, or zeros in their place. */
function torn(now: Buffer, synced: Buffer, random: Random): Buffer {
  const kept = now.subarray(0, synced.length).equals(synced) ? synced.length : 0;
  if (kept === 0 && synced.length > 0) return random.pick([now, synced]);
  const some = random.between(kept, now.length + 1);
  const zeroed = Buffer.from(now);
  zeroed.fill(0, some);
  return random.pick([now, now.subarray(0, kept), now.subarray(0, some), zeroed]);
}

function logsIn(dir: string): string[] {
  const index = join(dir, 'index');
  return existsSync(index)
    ? readdirSync(index)
        .filter((name) => name.endsWith('.log'))
        .map((name) => join(index, name))
    : [];
}

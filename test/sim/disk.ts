// The files of one simulated machine: what was not synced may be lost with the power, a file's end torn off. Has what
// src/host/host-fs.ts and src/lib/disk.ts ask for, and no more.

import { dirname, basename, join } from 'node:path';
import type { HostFs } from '../../src/host/host-fs.ts';
import type { Disk } from '../../src/lib/disk.ts';
import type { Luck } from './luck.ts';
import type { SimProcess } from './process.ts';

const OPERATION_MS = 0.1;
const SYNC_MS = 3;
const DISK_BYTES = 1e9;

interface File {
  readonly kind: 'file';
  data: Buffer;
  /** What a loss of power leaves at least; null before the first sync. */
  synced: Buffer | null;
}

interface Folder {
  readonly kind: 'folder';
  readonly entries: Map<string, File | Folder>;
  /** Names that have changed since the last sync, in order, with what they meant before. */
  unsynced: { readonly name: string; readonly before: File | Folder | undefined }[];
}

/** A disk, over restarts of the processes that use it. */
export class SimDisk {
  readonly #root: Folder = newFolder();
  /** Probability that an operation fails. */
  faults = 0;
  /** Told of each file that is removed, with its path and content. */
  onUnlink: (path: string, content: Buffer) => void = () => {};
  /** What a process reads instead of what is there. */
  lie: (content: Buffer) => Buffer = (content) => content;

  /** The files as one process uses them. */
  openFor(process: SimProcess): HostFs & Disk {
    return new SimFs(this, process) as unknown as HostFs & Disk;
  }

  /** Loses what was not synced, or some of it. */
  losePower(luck: Luck): void {
    losePower(this.#root, luck);
  }

  /** Files below a folder, by path. */
  files(path: string): Map<string, Buffer> {
    const found = new Map<string, Buffer>();
    const walk = (at: string, node: File | Folder | undefined): void => {
      if (node?.kind === 'file') found.set(at, node.data);
      else for (const [name, child] of node?.entries ?? []) walk(join(at, name), child);
    };
    walk(path, this.find(path));
    return found;
  }

  /** Replaces what is in a file, or removes it, behind everybody's back. */
  meddle(path: string, content: Buffer | null): void {
    const file = this.file(path);
    if (content === null) {
      const folder = this.folder(dirname(path));
      folder.entries.delete(basename(path));
      folder.unsynced = folder.unsynced.filter(({ name }) => name !== basename(path));
      return;
    }
    file.data = content;
    file.synced = content;
  }

  /** A folder that was always there. */
  make(path: string): void {
    this.folder(dirname(path)).entries.set(basename(path), newFolder());
  }

  find(path: string): File | Folder | undefined {
    let node: File | Folder | undefined = this.#root;
    for (const name of path.split('/').filter((part) => part !== '')) {
      if (node?.kind !== 'folder') return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  folder(path: string): Folder {
    const node = this.find(path);
    if (!node) throw failure('ENOENT', path);
    if (node.kind !== 'folder') throw failure('ENOTDIR', path);
    return node;
  }

  file(path: string): File {
    const node = this.find(path);
    if (!node) throw failure('ENOENT', path);
    if (node.kind !== 'file') throw failure('EISDIR', path);
    return node;
  }

  /** Gives a name a meaning, or takes it away. */
  set(path: string, node: File | Folder | undefined): void {
    const folder = this.folder(dirname(path));
    const name = basename(path);
    folder.unsynced.push({ name, before: folder.entries.get(name) });
    if (node) folder.entries.set(name, node);
    else folder.entries.delete(name);
  }

  get usedBytes(): number {
    let sum = 0;
    for (const data of this.files('/').values()) sum += data.length;
    return sum;
  }
}

class SimFs {
  readonly #disk: SimDisk;
  readonly #process: SimProcess;

  constructor(disk: SimDisk, process: SimProcess) {
    this.#disk = disk;
    this.#process = process;
  }

  readonly mkdir = (path: string, _options: { recursive: true }): Promise<void> =>
    this.#step('mkdir', path, () => {
      let at = '';
      for (const name of path.split('/').filter((part) => part !== '')) {
        at += `/${name}`;
        if (!this.#disk.find(at)) this.#disk.set(at, newFolder());
      }
    });

  readonly open = (path: string, flags: string): Promise<SimHandle> =>
    this.#step('open', path, () => {
      if (flags === 'wx') {
        if (this.#disk.find(path)) throw failure('EEXIST', path);
        this.#disk.set(path, { kind: 'file', data: Buffer.alloc(0), synced: null });
      }
      const node = this.#disk.find(path);
      if (!node) throw failure('ENOENT', path);
      return new SimHandle(this.#disk, this.#process, path, node);
    });

  readonly readdir = (path: string, options?: { withFileTypes?: boolean }): Promise<unknown[]> =>
    this.#step('readdir', path, () => {
      const { entries } = this.#disk.folder(path);
      if (options?.withFileTypes !== true) return [...entries.keys()];
      return [...entries].map(([name, { kind }]) => ({ name, isDirectory: () => kind === 'folder' }));
    });

  readonly rename = (from: string, to: string): Promise<void> =>
    this.#step('rename', to, () => {
      const node = this.#disk.file(from);
      this.#disk.set(to, node);
      this.#disk.set(from, undefined);
    });

  readonly link = (from: string, to: string): Promise<void> =>
    this.#step('link', to, () => {
      if (this.#disk.find(to)) throw failure('EEXIST', to);
      this.#disk.set(to, this.#disk.file(from));
    });

  readonly unlink = (path: string): Promise<void> => this.#step('unlink', path, () => this.#remove(path));

  readonly rm = (path: string, options: { force?: boolean } = {}): Promise<void> =>
    this.#step('rm', path, () => {
      if (options.force !== true || this.#disk.find(path)) this.#remove(path);
    });

  readonly stat = (path: string): Promise<unknown> =>
    this.#step('stat', path, () => {
      const node = this.#disk.find(path);
      if (!node) throw failure('ENOENT', path);
      return statsOf(node);
    });

  readonly statfs = (path: string): Promise<unknown> =>
    this.#step('statfs', path, () => ({ bavail: DISK_BYTES - this.#disk.usedBytes, bsize: 1 }));

  readonly readFile = (path: string): Promise<Buffer> =>
    this.#step('readFile', path, () => Buffer.from(this.#disk.file(path).data));

  #remove(path: string): void {
    const { data } = this.#disk.file(path);
    this.#disk.set(path, undefined);
    this.#disk.onUnlink(path, data);
  }

  #step<T>(what: string, path: string, action: () => T): Promise<T> {
    return step(this.#disk, this.#process, what, path, OPERATION_MS, action);
  }
}

class SimHandle {
  readonly #disk: SimDisk;
  readonly #process: SimProcess;
  readonly #path: string;
  readonly #node: File | Folder;

  constructor(disk: SimDisk, process: SimProcess, path: string, node: File | Folder) {
    this.#disk = disk;
    this.#process = process;
    this.#path = path;
    this.#node = node;
  }

  writeFile(data: Uint8Array | string): Promise<void> {
    const added = Buffer.from(data as Uint8Array);
    return this.#step('write', OPERATION_MS, () => {
      const file = this.#file();
      file.data = Buffer.concat([file.data, added]);
    });
  }

  read(target: Uint8Array, at: number, length: number, position: number): Promise<{ bytesRead: number }> {
    return this.#step('read', OPERATION_MS, () => {
      const content = this.#disk.lie(this.#file().data);
      const part = content.subarray(position, position + length);
      target.set(part, at);
      return { bytesRead: part.length };
    });
  }

  sync(): Promise<void> {
    return this.#step('sync', SYNC_MS * (0.5 + this.#process.luck.next()), () => {
      const node = this.#node;
      if (node.kind === 'file') node.synced = node.data;
      else node.unsynced = [];
    });
  }

  datasync(): Promise<void> {
    return this.sync();
  }

  chmod(): Promise<void> {
    return Promise.resolve();
  }

  stat(): Promise<unknown> {
    return this.#step('fstat', OPERATION_MS, () => statsOf(this.#node));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #file(): File {
    if (this.#node.kind !== 'file') throw failure('EISDIR', this.#path);
    return this.#node;
  }

  #step<T>(what: string, ms: number, action: () => T): Promise<T> {
    return step(this.#disk, this.#process, what, this.#path, ms, action);
  }
}

const WRITES = new Set(['write', 'sync', 'rename', 'open']);

function step<T>(
  disk: SimDisk,
  process: SimProcess,
  what: string,
  path: string,
  ms: number,
  action: () => T,
): Promise<T> {
  const { scheduler, name, luck } = process;
  return process.step(ms, () => {
    if (disk.faults > 0 && luck.chance(disk.faults)) {
      scheduler.trace(`${name} ${what} fails`);
      throw failure(WRITES.has(what) && luck.chance(0.3) ? 'ENOSPC' : 'EIO', path);
    }
    scheduler.trace(`${name} ${what}`);
    return action();
  });
}

function statsOf(node: File | Folder): unknown {
  const size = node.kind === 'file' ? node.data.length : 0;
  return { size, isFile: () => node.kind === 'file', isDirectory: () => node.kind === 'folder' };
}

function losePower(folder: Folder, luck: Luck): void {
  const kept = luck.below(folder.unsynced.length + 1);
  for (const { name, before } of folder.unsynced.splice(kept).reverse()) {
    if (before) folder.entries.set(name, before);
    else folder.entries.delete(name);
  }
  folder.unsynced = [];
  for (const node of folder.entries.values()) {
    if (node.kind === 'folder') losePower(node, luck);
    else if (node.synced !== node.data) {
      const least = node.synced?.length ?? 0;
      node.data = node.data.subarray(0, least + luck.below(node.data.length - least + 1));
      node.synced = node.data;
    }
  }
}

function newFolder(): Folder {
  return { kind: 'folder', entries: new Map(), unsynced: [] };
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: simulated, '${path}'`), { code });
}

// The files of a simulated machine as one of its processes uses them. Has what src/host/host-fs.ts and src/lib/disk.ts
// ask for, and no more.

import { constants } from 'node:fs';
import { dirname } from 'node:path';
import type { HostFs } from '../../src/host/host-fs.ts';
import type { Disk, FileFacts } from '../../src/lib/disk.ts';
import { failure, SimFile, SimFolder } from './disk.ts';
import type { SimDisk, SimNode } from './disk.ts';
import type { SimProcess } from './process.ts';

const OPERATION_MS = 0.1;
const SYNC_MS = 3;
const DISK_BYTES = 1e9;

/** The files of a disk as one process uses them. */
export function openFileSystem(disk: SimDisk, process: SimProcess): HostFs & Disk {
  return new SimFs(disk, process) as unknown as HostFs & Disk;
}

const FLAGS: Record<string, number> = {
  r: constants.O_RDONLY,
  'r+': constants.O_RDWR,
  w: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
  'w+': constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
  wx: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
};

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
        if (!this.#disk.find(at)) this.#disk.set([at, new SimFolder()]);
      }
    });

  readonly open = (path: string, how: string | number): Promise<SimHandle> =>
    this.#step('open', path, () => {
      const flags = typeof how === 'number' ? how : FLAGS[how];
      if (flags === undefined) throw new TypeError(`open with ${how}`);
      const there = this.#disk.find(path);
      if (there && (flags & constants.O_EXCL) !== 0) throw failure('EEXIST', path);
      if (!there && (flags & constants.O_CREAT) !== 0) this.#disk.set([path, new SimFile()]);
      const node = this.#disk.find(path);
      if (!node) throw failure('ENOENT', path);
      if (there?.kind === 'file' && (flags & constants.O_TRUNC) !== 0 && there.data.length > 0) there.truncate(0);
      return new SimHandle(this.#disk, this.#process, path, node, (flags & constants.O_DSYNC) === constants.O_DSYNC);
    });

  readonly readdir = (path: string, options?: { withFileTypes?: boolean }): Promise<unknown[]> =>
    this.#step('readdir', path, () => {
      const { entries } = this.#disk.folder(path);
      if (options?.withFileTypes !== true) return [...entries.keys()];
      return [...entries].map(([name, { kind }]) => ({ name, isDirectory: () => kind === 'folder' }));
    });

  readonly rename = (from: string, to: string): Promise<void> =>
    this.#step('rename', to, () => {
      const node = this.#disk.find(from);
      if (!node) throw failure('ENOENT', from);
      const there = this.#disk.find(to);
      if (there?.kind === 'folder' && there.entries.size > 0) throw failure('ENOTEMPTY', to);
      this.#disk.set([to, node], [from, undefined]);
    });

  readonly link = (from: string, to: string): Promise<void> =>
    this.#step('link', to, () => {
      if (this.#disk.find(to)) throw failure('EEXIST', to);
      this.#disk.set([to, this.#disk.file(from)]);
    });

  readonly unlink = (path: string): Promise<void> => this.#step('unlink', path, () => this.#remove(path));

  readonly rm = (path: string, options: { force?: boolean; recursive?: boolean } = {}): Promise<void> =>
    this.#step('rm', path, () => {
      const node = this.#disk.find(path);
      if (node?.kind === 'folder' && options.recursive === true) this.#disk.set([path, undefined]);
      else if (options.force !== true || node) this.#remove(path);
    });

  readonly stat = (path: string): Promise<FileFacts> => this.#step('stat', path, () => this.#facts(path));

  readonly statfs = (path: string): Promise<unknown> => this.#step('statfs', path, () => this.#room());

  readonly readFile = (path: string): Promise<Buffer> =>
    this.#step('readFile', path, () => Buffer.from(this.#disk.file(path).data));

  readonly readdirSync = (path: string): string[] =>
    stepNow(this.#disk, this.#process, 'readdir', path, () => [...this.#disk.folder(path).entries.keys()]);

  readonly statSync = (path: string): FileFacts =>
    stepNow(this.#disk, this.#process, 'stat', path, () => this.#facts(path));

  readonly statfsSync = (): unknown => this.#room();

  #room(): unknown {
    return { bavail: DISK_BYTES - this.#disk.usedBytes, bsize: 1 };
  }

  #facts(path: string): FileFacts {
    const node = this.#disk.find(path);
    if (!node) throw failure('ENOENT', path);
    return factsOf(node);
  }

  #remove(path: string): void {
    const { data } = this.#disk.file(path);
    this.#disk.folder(dirname(path));
    this.#disk.set([path, undefined]);
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
  readonly #node: SimNode;
  /** Each write is on the disk when it returns. */
  readonly #writesThrough: boolean;

  constructor(disk: SimDisk, process: SimProcess, path: string, node: SimNode, writesThrough: boolean) {
    this.#disk = disk;
    this.#process = process;
    this.#path = path;
    this.#node = node;
    this.#writesThrough = writesThrough;
  }

  writeFile(data: Uint8Array | string): Promise<void> {
    const added = Buffer.from(data as Uint8Array);
    return this.#step('write', OPERATION_MS, () => {
      const file = this.#file();
      this.#write(file, added, file.data.length);
    });
  }

  async write(bytes: Uint8Array, from: number, length: number, offset: number): Promise<{ bytesWritten: number }> {
    // what is written is what is there when the write comes to it
    const part = bytes.subarray(from, from + length);
    const ms = this.#writesThrough ? this.#syncMs() : OPERATION_MS;
    const change = await this.#step('write', ms, () => this.#write(this.#file(), part, offset));
    if (this.#writesThrough) this.#file().makeSafe(change);
    return { bytesWritten: length };
  }

  writeSync(bytes: Uint8Array, from: number, length: number, offset: number): number {
    const part = bytes.subarray(from, from + length);
    const change = stepNow(this.#disk, this.#process, 'write', this.#path, () =>
      this.#write(this.#file(), part, offset),
    );
    if (this.#writesThrough) {
      this.#file().makeSafe(change);
      this.#process.lag(this.#process.luck.chance(0.05) ? this.#syncMs() : OPERATION_MS);
    }
    return length;
  }

  #write(file: SimFile, bytes: Uint8Array, offset: number): ReturnType<SimFile['write']> {
    file.mtimeMs = Math.floor(this.#process.clock.now());
    return file.write(bytes, offset);
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#step('truncate', OPERATION_MS, () => this.#file().truncate(sizeBytes));
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
    return this.#step('sync', this.#syncMs(), () => {
      const node = this.#node;
      if (node.kind === 'file') node.sync();
      else this.#disk.syncFolder(node);
    });
  }

  datasync(): Promise<void> {
    return this.sync();
  }

  chmod(): Promise<void> {
    return Promise.resolve();
  }

  stat(): Promise<FileFacts> {
    return this.#step('fstat', OPERATION_MS, () => factsOf(this.#node));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #syncMs(): number {
    return SYNC_MS * (0.5 + this.#process.luck.next());
  }

  #file(): SimFile {
    if (this.#node.kind !== 'file') throw failure('EISDIR', this.#path);
    return this.#node;
  }

  #step<T>(what: string, ms: number, action: () => T): Promise<T> {
    return step(this.#disk, this.#process, what, this.#path, ms, action);
  }
}

const WRITES = new Set(['write', 'sync', 'rename', 'open', 'truncate']);

function step<T>(
  disk: SimDisk,
  process: SimProcess,
  what: string,
  path: string,
  ms: number,
  action: () => T,
): Promise<T> {
  return process.step(ms, () => once(disk, process, what, path, action));
}

function stepNow<T>(disk: SimDisk, process: SimProcess, what: string, path: string, action: () => T): T {
  return process.stepNow(() => once(disk, process, what, path, action));
}

function once<T>(disk: SimDisk, { scheduler, name, luck }: SimProcess, what: string, path: string, action: () => T): T {
  if (disk.faults > 0 && luck.chance(disk.faults)) {
    scheduler.trace(`${name} ${what} fails`);
    throw failure(WRITES.has(what) && luck.chance(0.3) ? 'ENOSPC' : 'EIO', path);
  }
  scheduler.trace(what === 'rename' ? `${name} ${what} ${path}` : `${name} ${what}`);
  return action();
}

function factsOf(node: SimNode): FileFacts {
  const size = node.kind === 'file' ? node.data.length : 0;
  const facts = { size, mtimeMs: node.mtimeMs, isFile: () => node.kind === 'file' };
  return { ...facts, isDirectory: () => node.kind === 'folder' };
}

// The files of one simulated machine: what was not synced may be lost with the power, a write torn. Knows no process;
// file-system.ts is what one sees of it.

import { constants } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { Luck } from './luck.ts';
import type { SimStorage } from './store.ts';

/** How often a power cut takes any of the writes to a file, not only the last ones. */
const SHARE_SCATTERED = 0.3;

/** Something that was done to a file. */
interface Change {
  readonly offset: number;
  /** Null cuts the file off at the offset, or grows it. */
  readonly bytes: Buffer | null;
  /** What was there. */
  readonly replaced: Buffer;
  readonly sizeBefore: number;
  /** No power cut takes it. */
  isSafe: boolean;
}

/** A file. */
export class SimFile {
  readonly kind = 'file';
  mtimeMs = 0;
  #bytes: Buffer;
  #size: number;
  #unsynced: Change[] = [];

  constructor(content: Uint8Array = new Uint8Array(0)) {
    this.#bytes = Buffer.from(content);
    this.#size = content.length;
  }

  /** What is in it; lent until it changes. */
  get data(): Buffer {
    return this.#bytes.subarray(0, this.#size);
  }

  write(bytes: Uint8Array, offset: number): Change {
    const replaced = Buffer.from(this.data.subarray(offset, offset + bytes.length));
    const change = { offset, bytes: Buffer.from(bytes), replaced, sizeBefore: this.#size, isSafe: false };
    this.#unsynced.push(change);
    this.#apply(change.bytes, offset);
    return change;
  }

  truncate(sizeBytes: number): void {
    const replaced = Buffer.from(this.data.subarray(sizeBytes));
    this.#unsynced.push({ offset: sizeBytes, bytes: null, replaced, sizeBefore: this.#size, isSafe: false });
    this.#apply(null, sizeBytes);
  }

  #apply(bytes: Buffer | null, offset: number): void {
    const end = offset + (bytes?.length ?? 0);
    if (end > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(end, 2 * this.#bytes.length));
      this.data.copy(grown);
      this.#bytes = grown;
    }
    if (bytes === null) {
      this.#bytes.fill(0, Math.min(offset, this.#size), Math.max(offset, this.#size));
      this.#size = offset;
      return;
    }
    if (offset > this.#size) this.#bytes.fill(0, this.#size, offset);
    bytes.copy(this.#bytes, offset);
    this.#size = Math.max(this.#size, end);
  }

  sync(): void {
    this.#unsynced = [];
  }

  /** A write that went through to the disk by itself. */
  makeSafe(change: Change): void {
    if (this.#unsynced.length === 1 && this.#unsynced[0] === change) this.#unsynced = [];
    else change.isSafe = true;
  }

  losePower(luck: Luck): void {
    const changes = this.#unsynced;
    if (changes.length === 0) return;
    this.#unsynced = [];
    for (const { offset, bytes, replaced, sizeBefore } of changes.toReversed()) {
      if (bytes === null) this.#apply(null, sizeBefore);
      this.#apply(replaced, offset);
      this.#apply(null, sizeBefore);
    }
    const scattered = luck.chance(SHARE_SCATTERED);
    let left = luck.below(changes.length + 1);
    for (const { offset, bytes, isSafe } of changes) {
      const isKept = scattered ? luck.chance(0.5) : left > 0;
      const isTorn = !scattered && left === 0;
      left -= 1;
      if (isSafe || isKept) this.#apply(bytes, offset);
      else if (isTorn && bytes) this.#apply(bytes.subarray(0, luck.below(bytes.length)), offset);
    }
  }
}

/** A folder. */
export class SimFolder {
  readonly kind = 'folder';
  readonly mtimeMs = 0;
  readonly entries = new Map<string, SimFile | SimFolder>();
  /** What a database in it keeps. */
  storage: SimStorage | undefined;
}

/** What a name means. */
export type SimNode = SimFile | SimFolder;

/** Names that have changed together, in some folders, and were not synced. */
interface Naming {
  readonly folders: readonly SimFolder[];
  readonly undo: () => void;
}

/** A disk, over restarts of the processes that use it. */
export class SimDisk {
  readonly #root = new SimFolder();
  #namings: Naming[] = [];
  /** Probability that an operation fails. */
  faults = 0;
  /** Told of each file that is removed, with its path and content. */
  onUnlink: (path: string, content: Buffer) => void = () => {};
  /** What a process reads instead of what is there. */
  lie: (content: Buffer) => Buffer = (content) => content;

  /** Loses what was not synced, or some of it. */
  losePower(luck: Luck): void {
    const left = new Map<SimFolder, number>();
    for (const { folders } of this.#namings) {
      for (const folder of folders) left.set(folder, (left.get(folder) ?? 0) + 1);
    }
    for (const [folder, count] of left) left.set(folder, luck.below(count + 1));
    const lost = this.#namings.filter(({ folders }) => {
      const isLost = folders.some((folder) => left.get(folder) === 0);
      // what came later in these folders is lost as well
      for (const folder of folders) left.set(folder, isLost ? 0 : left.get(folder)! - 1);
      return isLost;
    });
    for (const { undo } of lost.toReversed()) undo();
    this.#namings = [];
    const walk = (folder: SimFolder): void => {
      folder.storage?.losePower(luck);
      for (const node of folder.entries.values()) {
        if (node.kind === 'folder') walk(node);
        else node.losePower(luck);
      }
    };
    walk(this.#root);
  }

  /** Lets the names in a folder reach the disk, and what was done elsewhere at once with them. */
  syncFolder(folder: SimFolder): void {
    const folders = new Set([folder]);
    const left: Naming[] = [];
    for (const naming of this.#namings.toReversed()) {
      if (naming.folders.some((other) => folders.has(other))) for (const other of naming.folders) folders.add(other);
      else left.unshift(naming);
    }
    this.#namings = left;
  }

  /** Files below a folder, by path. */
  files(path: string): Map<string, Buffer> {
    const found = new Map<string, Buffer>();
    const walk = (at: string, node: SimNode | undefined): void => {
      if (node?.kind === 'file') found.set(at, node.data);
      else for (const [name, child] of node?.entries ?? []) walk(join(at, name), child);
    };
    walk(path, this.find(path));
    return found;
  }

  /** Replaces what is in a file, or removes it, behind everybody's back. */
  meddle(path: string, content: Buffer | null): void {
    this.file(path);
    const { entries } = this.folder(dirname(path));
    if (content === null) entries.delete(basename(path));
    else entries.set(basename(path), new SimFile(content));
  }

  /** A folder that was always there. */
  make(path: string): void {
    this.folder(dirname(path)).entries.set(basename(path), new SimFolder());
  }

  find(path: string): SimNode | undefined {
    let node: SimNode | undefined = this.#root;
    for (const name of path.split('/').filter((part) => part !== '')) {
      if (node?.kind !== 'folder') return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  folder(path: string): SimFolder {
    const node = this.find(path);
    if (!node) throw failure('ENOENT', path);
    if (node.kind !== 'folder') throw failure('ENOTDIR', path);
    return node;
  }

  file(path: string): SimFile {
    const node = this.find(path);
    if (!node) throw failure('ENOENT', path);
    if (node.kind !== 'file') throw failure('EISDIR', path);
    return node;
  }

  /** Gives names a meaning, or takes it away: all of them or none. */
  set(...names: readonly (readonly [path: string, node: SimNode | undefined])[]): void {
    const places = names.map(([path, node]) => ({ folder: this.folder(dirname(path)), name: basename(path), node }));
    const before = places.map(({ folder, name }) => folder.entries.get(name));
    for (const { folder, name, node } of places) put(folder, name, node);
    const undo = (): void => places.forEach(({ folder, name }, at) => put(folder, name, before[at]));
    this.#namings.push({ folders: [...new Set(places.map(({ folder }) => folder))], undo });
  }

  get usedBytes(): number {
    let sum = 0;
    for (const data of this.files('/').values()) sum += data.length;
    return sum;
  }
}

function put({ entries }: SimFolder, name: string, node: SimNode | undefined): void {
  if (node) entries.set(name, node);
  else entries.delete(name);
}

/** An error as the system has it. */
export function failure(code: string, path: string): Error {
  const errno = -(constants.errno as Record<string, number>)[code]!;
  return Object.assign(new Error(`${code}: simulated, '${path}'`), { code, errno });
}

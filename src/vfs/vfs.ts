// The filesystem that a driver mounts: POSIX operations over the tree and the cache of one volume.

import { ReadAhead } from '../cache/read-ahead.ts';
import type { Now } from '../lib/now.ts';
import { attributesOf, noteAccess, setAttributes, truncate } from './attributes.ts';
import { closeDirectory, openDirectory, readDirectory } from './directories.ts';
import { read, write } from './file-data.ts';
import type {
  AttributeChanges,
  Attributes,
  Caller,
  DirectoryEntry,
  Filesystem,
  OpenFile,
  SpaceInfo,
} from './filesystem.ts';
import { O_ACCMODE, O_EXCL, O_RDONLY, O_TRUNC, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './modes.ts';
import { add, addNameless, link, lookup, rename, rmdir, symlink, unlink } from './namespace.ts';
import { copyRange, fallocate, seek } from './ranges.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { getXattr, listXattrs, removeXattr, setXattr } from './xattrs.ts';
import { VolumeState } from './volume.ts';
import type { VfsComponents, VolumeParts } from './volume.ts';

const BLOCK_SIZE_BYTES = 4_096;
const NAME_MAX_BYTES = 255;
/** Inode numbers are never used twice; this many are left in any lifetime. */
const FREE_FILES = 2 ** 32;
/** How often an operation begins anew when the index is opened anew under it. */
const MAX_LOOKS = 8;

/** Who changes what nobody asked for. */
const KERNEL: Caller = { uid: 0, gid: 0, pid: 0 };

function copies(parts: Buffer[]): Buffer[] {
  return parts.map((part) => Buffer.from(part));
}

/** One volume as a Filesystem. */
export class Vfs implements Filesystem {
  readonly #state: VolumeState;

  constructor(parts: VolumeParts, components: VfsComponents) {
    this.#state = new VolumeState(parts, components);
  }

  /** Goes on with other stores of the same volume; open handles keep their inode numbers. */
  replaceParts(parts: VolumeParts): void {
    this.#state.reset(parts);
  }

  /** Files and directories that programs have open. */
  get openHandles(): number {
    return this.#state.files.size + this.#state.directories.size;
  }

  /** Whether a program has this file or directory open. */
  isOpen(ino: number): boolean {
    return this.#state.isOpen(ino);
  }

  /** Resolves when no removal goes on in the background. */
  async settled(): Promise<void> {
    await Promise.all(this.#state.background);
  }

  /** Makes a change, once not too much is uncommitted. */
  #change<T>(make: () => Now<T>): Now<T> {
    const settled = this.#state.tree.store.settle();
    return settled === null ? make() : settled.then(make);
  }

  /**
   * Looks at the volume; where its index is being opened anew meanwhile, waits for that and looks again. `keep` makes
   * what was only lent the caller's.
   */
  #look<T>(look: () => Now<T>, keep?: (seen: T) => T): Now<T> {
    try {
      const seen = look();
      return seen instanceof Promise ? seen.catch((error: unknown) => this.#lookAgain(error, look, keep)) : seen;
    } catch (error) {
      if (!hasCode(error, 'REOPENING')) throw error;
      return this.#lookAgain(error, look, keep);
    }
  }

  async #lookAgain<T>(failure: unknown, look: () => Now<T>, keep?: (seen: T) => T): Promise<T> {
    let last = failure;
    for (let tries = 0; hasCode(last, 'REOPENING') && tries < MAX_LOOKS; tries++) {
      await this.#state.tree.store.readable();
      try {
        const seen = look();
        if (seen instanceof Promise) return await seen;
        return keep === undefined ? seen : keep(seen);
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }

  lookup(parent: number, name: string): Now<Attributes | null> {
    return this.#look(() => lookup(this.#state, parent, name));
  }

  getattr(ino: number): Now<Attributes> {
    return this.#look(() => attributesOf(this.#state.inode(ino)));
  }

  setattr(ino: number, changes: AttributeChanges, caller: Caller = KERNEL): Now<Attributes> {
    return this.#change(() => setAttributes(this.#state, ino, changes, caller));
  }

  readlink(ino: number): Now<Buffer> {
    return this.#look(() => {
      const inode = this.#state.inode(ino);
      if ((inode.mode & S_IFMT) !== S_IFLNK) throw new XcoreError('EINVAL');
      noteAccess(this.#state, inode, 0);
      return Buffer.from(inode.symlinkTarget);
    });
  }

  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Now<Attributes> {
    return this.#change(() => attributesOf(add(this.#state, parent, name, { mode, rdev }, caller)));
  }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Now<Attributes> {
    return this.mknod(parent, name, (mode & ~S_IFMT) | S_IFDIR, 0, caller);
  }

  symlink(parent: number, name: string, target: Buffer, caller: Caller): Now<Attributes> {
    const copy = Buffer.from(target);
    return this.#change(() => symlink(this.#state, parent, name, copy, caller));
  }

  link(ino: number, parent: number, name: string): Now<Attributes> {
    return this.#change(() => link(this.#state, ino, parent, name));
  }

  unlink(parent: number, name: string): Now<void> {
    return this.#change(() => unlink(this.#state, parent, name));
  }

  rmdir(parent: number, name: string): Now<void> {
    return this.#change(() => rmdir(this.#state, parent, name));
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number): Now<void> {
    return this.#change(() => rename(this.#state, parent, name, newParent, newName, flags));
  }

  create(
    parent: number,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): Now<{ attributes: Attributes; file: OpenFile }> {
    return this.#change(() => {
      const inode = add(this.#state, parent, name, { mode: (mode & ~S_IFMT) | S_IFREG }, caller);
      return { attributes: attributesOf(inode), file: this.#openFile(inode.ino, flags) };
    });
  }

  tmpfile(
    parent: number,
    mode: number,
    flags: number,
    caller: Caller,
  ): Now<{ attributes: Attributes; file: OpenFile }> {
    return this.#change(() => {
      const inode = addNameless(this.#state, parent, (mode & ~S_IFMT) | S_IFREG, caller);
      if ((flags & O_EXCL) === 0) this.#state.nameless.add(inode.ino);
      return { attributes: attributesOf(inode), file: this.#openFile(inode.ino, flags) };
    });
  }

  open(ino: number, flags: number): Now<OpenFile> {
    return this.#look(() => this.#open(ino, flags));
  }

  #open(ino: number, flags: number): Now<OpenFile> {
    const inode = this.#state.inode(ino);
    if ((flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0) this.#state.assertWritable();
    if ((flags & O_TRUNC) === 0) {
      const reads = (flags & O_ACCMODE) === O_RDONLY;
      return this.#openFile(ino, flags, reads && noteAccess(this.#state, inode, flags));
    }
    const cut = truncate(this.#state, inode, 0);
    return cut instanceof Promise ? cut.then(() => this.#openFile(ino, flags)) : this.#openFile(ino, flags);
  }

  #openFile(ino: number, flags: number, accessed = false): OpenFile {
    const writes = (flags & O_ACCMODE) !== O_RDONLY;
    const handle = this.#state.newHandle();
    this.#state.files.set(handle, { ino, writes, flags, readAhead: new ReadAhead() });
    this.#state.noteOpen(ino);
    return {
      handle,
      directIo: writes && this.#state.parts.files.isTight,
      keepCache: true,
      accessed,
      readsOnly: !writes,
    };
  }

  read(ino: number, handle: number, offset: number, sizeBytes: number, signal?: AbortSignal): Now<Buffer[]> {
    return this.#look(() => read(this.#state, ino, handle, offset, sizeBytes, signal), copies);
  }

  write(ino: number, _handle: number, offset: number, data: Buffer, cached: boolean, signal?: AbortSignal): Now<void> {
    return write(this.#state, ino, offset, data, cached, signal);
  }

  flush(_ino: number, handle: number): Now<void> {
    if (this.#state.files.get(handle)?.writes === true) return this.#state.tree.store.persist();
  }

  fsync(): Now<void> {
    return this.#state.tree.store.sync();
  }

  release(_ino: number, handle: number): Now<void> {
    const file = this.#state.files.get(handle);
    if (file === undefined) return;
    this.#state.files.delete(handle);
    this.#state.noteClose(file.ino);
  }

  fallocate(ino: number, mode: number, offset: number, lengthBytes: number, caller: Caller): Now<void> {
    return this.#change(() => fallocate(this.#state, ino, mode, offset, lengthBytes, caller));
  }

  seek(ino: number, offset: number, hole: boolean): Now<number> {
    return this.#look(() => seek(this.#state, ino, offset, hole));
  }

  copyRange(
    ino: number,
    offset: number,
    toIno: number,
    toOffset: number,
    lengthBytes: number,
    caller: Caller,
  ): Now<number> {
    return this.#change(() => copyRange(this.#state, ino, offset, toIno, toOffset, lengthBytes, caller));
  }

  holdRemovedDirectories(): void {
    this.#state.holdRemoved();
  }

  forget(inos: readonly number[]): void {
    for (const ino of inos) this.#state.letGo(ino);
  }

  opendir(ino: number): Now<number> {
    return this.#look(() => openDirectory(this.#state, ino));
  }

  readdir(ino: number, handle: number, cookie: bigint, limit: number, plus: boolean): Now<DirectoryEntry[]> {
    return this.#look(() => readDirectory(this.#state, ino, handle, cookie, limit, plus));
  }

  releasedir(_ino: number, handle: number): Now<void> {
    return closeDirectory(this.#state, handle);
  }

  fsyncdir(): Now<void> {
    return this.#state.tree.store.sync();
  }

  statfs(): Now<SpaceInfo> {
    return this.#look(() => this.#space());
  }

  #space(): SpaceInfo {
    const { totalBytes, freeBytes } = this.#state.c.room();
    return {
      blockSizeBytes: BLOCK_SIZE_BYTES,
      blocks: Math.floor(totalBytes / BLOCK_SIZE_BYTES),
      freeBlocks: Math.floor(freeBytes / BLOCK_SIZE_BYTES),
      files: this.#state.tree.counters.inodes + FREE_FILES,
      freeFiles: FREE_FILES,
      nameMaxBytes: NAME_MAX_BYTES,
    };
  }

  getxattr(ino: number, name: string): Now<Buffer> {
    return this.#look(() => getXattr(this.#state, ino, name));
  }

  setxattr(ino: number, name: string, value: Buffer, flags: number, killSgid = false): Now<void> {
    const copy = Buffer.from(value);
    return this.#change(() => setXattr(this.#state, ino, name, copy, flags, killSgid));
  }

  listxattr(ino: number): Now<string[]> {
    return this.#look(() => listXattrs(this.#state, ino));
  }

  removexattr(ino: number, name: string): Now<void> {
    return this.#change(() => removeXattr(this.#state, ino, name));
  }
}

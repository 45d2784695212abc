// What the operations of the filesystem share: the parts of the volume, who is open, and whether
// anything may be changed now.

import type { ReadAhead } from '../cache/read-ahead.ts';
import type { Segments } from '../cache/segments.ts';
import type { ShardFiles } from '../cache/shard-files.ts';
import type { ShardReader } from '../cache/shard-reader.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Tree } from '../tree/tree.ts';
import type { Dentry, Inode } from '../tree/records.ts';
import { S_IFDIR, S_IFMT } from './modes.ts';

/** The stores of one volume; replaced as a whole when the device has to start over from the log. */
export interface VolumeParts {
  readonly tree: Tree;
  readonly segments: Segments;
  readonly files: ShardFiles;
  readonly reader: ShardReader;
}

/** One open file. */
export interface FileHandle {
  readonly ino: number;
  readonly writes: boolean;
  /** As open(2) was given them. */
  readonly flags: number;
  readonly readAhead: ReadAhead;
}

/** An entry of a directory, and the position after it. */
export interface ListedEntry {
  readonly dentry: Dentry;
  readonly cookie: bigint;
}

/** A part of a directory that was looked up, for who comes back for the next entries. */
export interface Listing {
  readonly entries: readonly ListedEntry[];
  /** Nothing follows. */
  readonly isWhole: boolean;
  /** Count of removed names when it was begun. */
  readonly removals: number;
}

/** One open directory, and how far it was read. */
export interface DirectoryHandle {
  readonly ino: number;
  listing: Listing | null;
}

/** Directories whose listings go on without a handle; of others, what follows is looked up again. */
const MAX_LISTINGS = 16;
/** Removed directories that wait until the kernel lets go of them; the longest ones go first. */
const MAX_HELD = 65_536;

/** Bytes of room, as statfs reports it. */
export interface Room {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** What the filesystem is built from. */
export interface VfsComponents {
  readonly clock: Clock;
  readonly log: Logger;
  /** False while another device writes the volume. */
  readonly writable: () => boolean;
  /** What the network can still take; never waits. */
  readonly room: () => Room;
  /** Throws EDQUOT when the volume's quota has no room for so many bytes more. */
  readonly admit?: (sizeBytes: number) => void;
  /** Reading leaves atime alone. */
  readonly noAccessTimes?: boolean;
}

/** State that all operations of one mount work on. */
export class VolumeState {
  readonly c: VfsComponents;
  parts: VolumeParts;
  readonly files = new Map<number, FileHandle>();
  readonly directories = new Map<number, DirectoryHandle>();
  readonly #listings = new Map<number, Listing>();
  /** Removed directories that programs may still have open; null when these are opened and closed by handles. */
  #held: Set<number> | null = null;
  readonly #opens = new Map<number, number>();
  #nextHandle = 1;
  /** Grows with each name that is removed, so that listings know when to look twice. */
  removals = 0;
  /** Open files that never had a name and may be given one (O_TMPFILE without O_EXCL). */
  readonly nameless = new Set<number>();
  /** Removals of large files that go on in the background. */
  readonly background = new Set<Promise<void>>();

  constructor(parts: VolumeParts, components: VfsComponents) {
    this.parts = parts;
    this.c = components;
  }

  get tree(): Tree {
    return this.parts.tree;
  }

  /** EROFS while another device writes the volume; the reason of a failed commit while the disk cannot take changes. */
  assertWritable(): void {
    if (!this.c.writable()) throw new XcoreError('EROFS', 'another device writes this volume');
    this.tree.store.assertHealthy();
  }

  /** ENOENT for an inode that is gone. */
  inode(ino: number): Inode {
    const inode = this.tree.inode(ino);
    if (inode === undefined) throw new XcoreError('ENOENT');
    return inode;
  }

  /** ENOTDIR for anything but a directory; ENOENT for one that is gone or removed. */
  directory(ino: number): Inode {
    const inode = this.inode(ino);
    if ((inode.mode & S_IFMT) !== S_IFDIR) throw new XcoreError('ENOTDIR');
    if (inode.nlink === 0) throw new XcoreError('ENOENT');
    return inode;
  }

  /** ENOENT when there is no such name; ENAMETOOLONG over 255 bytes. */
  dentry(parent: number, name: string): Dentry {
    checkName(name);
    const dentry = this.tree.dentry(parent, name);
    if (dentry === undefined) throw new XcoreError('ENOENT');
    return dentry;
  }

  /** A number for a new handle: positive, below 2^31, not in use. */
  newHandle(): number {
    do {
      this.#nextHandle = this.#nextHandle >= 0x7fff_ffff ? 1 : this.#nextHandle + 1;
    } while (this.files.has(this.#nextHandle) || this.directories.has(this.#nextHandle));
    return this.#nextHandle;
  }

  /** How far a directory was listed, by a handle or, 0, without one. */
  listing(ino: number, handle: number): Listing | null {
    return (handle === 0 ? this.#listings.get(ino) : this.directories.get(handle)?.listing) ?? null;
  }

  /** Notes how far a directory was listed; null at its end. */
  keepListing(ino: number, handle: number, listing: Listing | null): void {
    const directory = this.directories.get(handle);
    if (directory !== undefined) directory.listing = listing;
    if (handle !== 0) return;
    this.#listings.delete(ino);
    if (listing !== null) this.#listings.set(ino, listing);
    const [oldest] = this.#listings.keys();
    if (oldest !== undefined && this.#listings.size > MAX_LISTINGS) this.#listings.delete(oldest);
  }

  /** From now on removed directories stay until letGo(). */
  holdRemoved(): void {
    this.#held ??= new Set();
  }

  /** No program has this inode open any more, nor anything below it. */
  letGo(ino: number): void {
    if (this.#held?.delete(ino) === true) this.noteClose(ino);
  }

  #hold(ino: number): void {
    if (this.#held === null || this.#held.has(ino)) return;
    this.#held.add(ino);
    this.noteOpen(ino);
    const [oldest] = this.#held;
    if (oldest !== undefined && this.#held.size > MAX_HELD) this.letGo(oldest);
  }

  isOpen(ino: number): boolean {
    return this.#opens.has(ino);
  }

  noteOpen(ino: number): void {
    this.#opens.set(ino, (this.#opens.get(ino) ?? 0) + 1);
  }

  /** Removes an inode whose last name and handle are gone. */
  noteClose(ino: number): void {
    const left = (this.#opens.get(ino) ?? 1) - 1;
    if (left > 0) {
      this.#opens.set(ino, left);
      return;
    }
    this.#opens.delete(ino);
    this.nameless.delete(ino);
    const inode = this.tree.inode(ino);
    if (inode !== undefined && inode.nlink === 0 && this.c.writable()) this.remove(inode);
  }

  /** Removes an inode without names now, or when its last handle is closed. */
  dispose(inode: Inode): void {
    if ((inode.mode & S_IFMT) === S_IFDIR) this.#hold(inode.ino);
    if (this.#opens.has(inode.ino)) {
      this.tree.markOrphan(inode.ino);
      this.tree.touch(inode);
    } else {
      this.remove(inode);
    }
  }

  /** Removes an inode and what it holds; large files in the background. */
  remove(inode: Inode): void {
    const removed = this.tree.removeInode(inode);
    if (!(removed instanceof Promise)) return;
    const work = removed.catch((error: unknown) => {
      this.c.log.error({ ino: inode.ino, error }, 'a removed file could not be freed; tried again at the next mount');
    });
    this.background.add(work);
    void work.finally(() => this.background.delete(work));
  }

  /** Forgets what the handles knew of a volume that was replaced. */
  reset(parts: VolumeParts): void {
    this.parts = parts;
    this.removals++;
    this.#listings.clear();
    for (const directory of this.directories.values()) directory.listing = null;
  }
}

/** ENAMETOOLONG over 255 bytes; ENOENT for none. */
export function checkName(name: string): void {
  if (name.length > 255) throw new XcoreError('ENAMETOOLONG');
  if (name.length === 0) throw new XcoreError('ENOENT');
}

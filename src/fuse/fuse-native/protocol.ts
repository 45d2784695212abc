// What the daemon and the process around the fuse-native package say to each other.

import type { AttributeChanges, Attributes, Now, SpaceInfo } from '../../vfs/filesystem.ts';

/** EILSEQ: a name that is not UTF-8, which fuse-native cannot carry. */
export const EILSEQ = 84;
/** ENFILE: no handle is left. */
export const ENFILE = 23;
/** EOVERFLOW: more than a reply can say. */
export const EOVERFLOW = 75;

/** Requests of the kernel that wait for the daemon; one more is EAGAIN. Each holds a thread of libfuse. */
export const MAX_WAITING = 1024;

/** A directory entry as a listing needs it; `name` is a latin1 string of its bytes. */
export interface ListedEntry {
  readonly name: string;
  readonly ino: number;
  readonly type: number;
}

/** A failure with nothing but its errno, positive. */
export class ErrnoError extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.name = 'ErrnoError';
    this.errno = errno;
  }
}

/** What the other process asks for, by path from the root of the mount ('/a/b', UTF-8 names). */
export interface PathCalls {
  getattr(path: string): Now<Attributes>;
  setattr(path: string, changes: AttributeChanges): Now<void>;
  readlink(path: string): Now<Buffer>;
  readdir(path: string): Now<ListedEntry[]>;
  statfs(): Now<SpaceInfo>;
  mknod(path: string, mode: number, rdev: number): Now<void>;
  mkdir(path: string, mode: number): Now<void>;
  symlink(target: string, path: string): Now<void>;
  link(from: string, to: string): Now<void>;
  unlink(path: string): Now<void>;
  rmdir(path: string): Now<void>;
  rename(from: string, to: string): Now<void>;
  /** The handle, from 1 to 2^31 - 1. */
  create(path: string, mode: number): Now<number>;
  open(path: string, flags: number): Now<number>;
  read(handle: number, offset: number, sizeBytes: number, signal?: AbortSignal): Now<Buffer>;
  write(handle: number, offset: number, data: Buffer, signal?: AbortSignal): Now<void>;
  flush(handle: number): Now<void>;
  fsync(handle: number, dataOnly: boolean): Now<void>;
  release(handle: number): Now<void>;
  fsyncdir(path: string, dataOnly: boolean): Now<void>;
  getxattr(path: string, name: string): Now<Buffer>;
  setxattr(path: string, name: string, value: Buffer, flags: number): Now<void>;
  listxattr(path: string): Now<string[]>;
  removexattr(path: string, name: string): Now<void>;
}

/** How the other process is started, as JSON in its only argument. */
export interface ChildSettings {
  readonly mountPoint: string;
  /** Words for libfuse's -o. */
  readonly words: readonly string[];
  /** A request without an answer is EIO after so long. */
  readonly deadlineMs: number;
}

/** From the process around fuse-native to the daemon. */
export type FromChild =
  | { readonly type: 'mounted' }
  | { readonly type: 'failed'; readonly missing: boolean; readonly message: string }
  | { readonly type: 'call'; readonly id: number; readonly name: keyof PathCalls; readonly args: unknown[] }
  | { readonly type: 'cancel'; readonly id: number };

/** From the daemon to the process around fuse-native; `errno` is positive, or 0. */
export interface FromDaemon {
  readonly id: number;
  readonly errno: number;
  readonly value?: unknown;
}

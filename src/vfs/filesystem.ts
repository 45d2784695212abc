// What a FUSE driver may ask of a filesystem: POSIX operations by inode number. Drivers depend on
// this and on nothing else of the volume; no encryption, no network, no kernel structures here.

import type { Now } from '../lib/now.ts';

export type { Now };

/** The process behind a request. */
export interface Caller {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** Bits that a new file's mode loses, unless its folder hands down an ACL; absent when they are taken already. */
  readonly umask?: number;
  /** Its supplementary groups, looked up when somebody asks. */
  readonly groups?: () => readonly number[];
}

/** stat(2) of one inode. Inode numbers are below 2^53, the root is 1. */
export interface Attributes {
  readonly ino: number;
  /** Type and permission bits, as st_mode. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly sizeBytes: number;
  /** 512-byte units, as st_blocks. */
  readonly blocks: number;
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** When the inode was made. */
  readonly btimeNs: bigint;
}

/** What setattr changes; an absent field stays as it is. Times: 'now' is the moment of the call. */
export interface AttributeChanges {
  mode?: number;
  uid?: number;
  gid?: number;
  sizeBytes?: number;
  atimeNs?: bigint | 'now';
  mtimeNs?: bigint | 'now';
  ctimeNs?: bigint;
  /** Clear setuid and setgid bits (FATTR_KILL_SUIDGID). */
  killPrivileges?: boolean;
}

/** One open file. */
export interface OpenFile {
  /** Positive, below 2^32, unique while open. */
  readonly handle: number;
  /** Bypass the kernel's page cache, so that each write(2) reaches write() before it returns. */
  readonly directIo: boolean;
  /** The kernel may keep the pages that it holds from an earlier open. */
  readonly keepCache: boolean;
  /** This open moved atime, which the kernel does not know. */
  readonly accessed: boolean;
  /** close(2) need not call flush(): nothing can be written through this handle. */
  readonly readsOnly: boolean;
}

/** One directory entry. */
export interface DirectoryEntry {
  /** Bytes of the name as a latin1 string. */
  readonly name: string;
  readonly ino: number;
  /** S_IFMT bits of the mode. */
  readonly type: number;
  /** Position after this entry; an opaque value from 1 to 2^63 - 1. */
  readonly cookie: bigint;
  /** Present when asked for with `plus`; absent for '.' and '..'. */
  readonly attributes?: Attributes;
}

/** statvfs(3) in blocks of blockSizeBytes. */
export interface SpaceInfo {
  readonly blockSizeBytes: number;
  readonly blocks: number;
  readonly freeBlocks: number;
  readonly files: number;
  readonly freeFiles: number;
  readonly nameMaxBytes: number;
}

/**
 * A mounted filesystem. Names are byte strings held as latin1 strings, so any bytes but '/' and NUL
 * survive; a driver passes them as they came, and this side refuses names over 255 bytes.
 * Failures are XcoreErrors (or system errors of the local disk); the driver answers errnoOf(error).
 * An operation that is not offered throws ENOSYS. Open flags are Linux's (fcntl.h).
 */
export interface Filesystem {
  /** Null when there is no such entry, which the kernel may remember. */
  lookup(parent: number, name: string): Now<Attributes | null>;
  getattr(ino: number): Now<Attributes>;
  setattr(ino: number, changes: AttributeChanges, caller: Caller): Now<Attributes>;
  readlink(ino: number): Now<Buffer>;

  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Now<Attributes>;
  mkdir(parent: number, name: string, mode: number, caller: Caller): Now<Attributes>;
  symlink(parent: number, name: string, target: Buffer, caller: Caller): Now<Attributes>;
  link(ino: number, parent: number, name: string): Now<Attributes>;
  unlink(parent: number, name: string): Now<void>;
  rmdir(parent: number, name: string): Now<void>;
  /** `flags`: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2; others are EINVAL. */
  rename(parent: number, name: string, newParent: number, newName: string, flags: number): Now<void>;

  create(
    parent: number,
    name: string,
    mode: number,
    flags: number,
    caller: Caller,
  ): Now<{ attributes: Attributes; file: OpenFile }>;
  /** A file without a name, open; link() may give it one (open(2), O_TMPFILE). */
  tmpfile(parent: number, mode: number, flags: number, caller: Caller): Now<{ attributes: Attributes; file: OpenFile }>;
  open(ino: number, flags: number): Now<OpenFile>;
  /**
   * At most `sizeBytes` bytes, fewer only at the end of the file; the parts are to be sent in order. Those of an answer
   * that is there at once are lent until the next call; those of a promise are the caller's.
   */
  read(ino: number, handle: number, offset: number, sizeBytes: number, signal?: AbortSignal): Now<Buffer[]>;
  /**
   * Takes all of `data` or fails. `data` is borrowed: it is valid only until write() returns (its
   * promise, if any, may be pending). `cached`: these are pages written back by the kernel, which
   * keeps times and privileges itself. What still waits when `signal` aborts is not done.
   */
  write(ino: number, handle: number, offset: number, data: Buffer, cached: boolean, signal?: AbortSignal): Now<void>;
  /** Every close(2) of a descriptor. */
  flush(ino: number, handle: number): Now<void>;
  fsync(ino: number, handle: number, dataOnly: boolean): Now<void>;
  release(ino: number, handle: number): Now<void>;
  /** fallocate(2); modes as there, others are EOPNOTSUPP. */
  fallocate(ino: number, mode: number, offset: number, lengthBytes: number, caller: Caller): Now<void>;
  /** lseek(2) of SEEK_DATA (`hole` false) or SEEK_HOLE; ENXIO at or after the end, or when no data follows. */
  seek(ino: number, offset: number, hole: boolean): Now<number>;
  /** copy_file_range(2); returns the bytes that it did, 0 at the end of the source. */
  copyRange(
    ino: number,
    offset: number,
    toIno: number,
    toOffset: number,
    lengthBytes: number,
    caller: Caller,
  ): Now<number>;

  /**
   * The driver opens and closes no directories: it lists them with handle 0, and tells with forget() what no program has
   * open any more. Until then a removed directory stays what it is, empty.
   */
  holdRemovedDirectories(): void;
  /** No program has these inodes open, or will without a lookup; called for all of them, in any order and number. */
  forget(inos: readonly number[]): Now<void>;
  opendir(ino: number): Now<number>;
  /**
   * Up to `limit` entries after `cookie` (0 is the start), '.' and '..' included; an empty array is
   * the end. The driver may send fewer and come back with the cookie of the last one it sent.
   */
  readdir(ino: number, handle: number, cookie: bigint, limit: number, plus: boolean): Now<DirectoryEntry[]>;
  releasedir(ino: number, handle: number): Now<void>;
  fsyncdir(ino: number, dataOnly: boolean): Now<void>;

  statfs(): Now<SpaceInfo>;

  /** Throws ENODATA when there is none. Attribute names are latin1 strings too. */
  getxattr(ino: number, name: string): Now<Buffer>;
  /** `flags`: XATTR_CREATE 1, XATTR_REPLACE 2. `killSgid`: an ACL set by somebody outside of the group. */
  setxattr(ino: number, name: string, value: Buffer, flags: number, killSgid?: boolean): Now<void>;
  listxattr(ino: number): Now<string[]>;
  removexattr(ino: number, name: string): Now<void>;
}

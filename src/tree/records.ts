// The records of a tree as objects. They are owned by the record store and changed in place only
// between two commits, followed by a put().

import type { Window } from './extents.ts';

/** One inode; sizes in bytes, times in nanoseconds since 1970. */
export interface Inode {
  readonly ino: number;
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  sizeBytes: number;
  atimeNs: bigint;
  mtimeNs: bigint;
  ctimeNs: bigint;
  btimeNs: bigint;
  rdev: number;
  /** Target of a symlink, else empty. */
  symlinkTarget: Uint8Array;
  hasXattrs: boolean;
  /** Parent of a directory, else 0. */
  parent: number;
  /** Names in a directory, '.' and '..' not counted. */
  entries: number;
  /** Bytes of a file that extents cover. */
  storedBytes: number;
}

/** One name in a directory. */
export interface Dentry {
  /** latin1 string of the name's bytes. */
  readonly name: string;
  readonly ino: number;
  /** S_IFMT bits. */
  readonly type: number;
}

/** One shard, or the segment that becomes it. */
export interface Shard {
  /** 32 random bytes from which its key is derived. */
  readonly salt: Uint8Array;
  sizeBytes: number;
  /** 32 bytes, or empty while the segment is open. */
  id: Uint8Array;
  liveBytes: number;
  crc32: number;
  /** Bytes that an fsync has brought to the disk, and their CRC-32. */
  syncedBytes: number;
  syncedCrc32: number;
}

/** Extended attributes of one inode: name (latin1) to value. */
export type Xattrs = Map<string, Uint8Array>;

/** What the volume counts. */
export interface Counters {
  nextIno: number;
  nextShard: number;
  inodes: number;
  /** Bytes that extents cover, over all files. */
  storedBytes: number;
}

/** How far this index and the volume log agree. */
export interface HeadState {
  seq: number;
  hash: Uint8Array;
  epoch: number;
  lastCommit: number;
  checkpointSeq: number;
  logBytes: number;
  /** Newest entry that an index before this one saw; the log must hold it. 0 for none. */
  seenSeq: number;
  seenHash: Uint8Array;
  /** Hashes of entries that this index has sent to come next, as long as none of them is known to be in the log. */
  sent: readonly Uint8Array[];
}

/** A shard that no published entry names yet. */
export interface Upload {
  /** Enough hosts hold it. */
  readonly durable: boolean;
  /** This machine had the only copy that is known, and it is gone: lost by its disk, or removed as nothing needs it. */
  readonly lost?: true;
}

/** Ids of the shards in which the newest checkpoint lies. */
export interface CheckpointShards {
  readonly ids: readonly Uint8Array[];
}

/** Any record of the index. */
export type TreeRecord =
  Inode | Dentry | Window | Shard | Xattrs | Counters | HeadState | CheckpointShards | Upload | Mark;

/** A record whose key says it all. */
export const MARK = { mark: true } as const;
export type Mark = typeof MARK;

// stat and its changes: mode, owner, size and times of an inode.

import type { Now } from '../lib/now.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Inode } from '../tree/records.ts';
import type { AttributeChanges, Attributes, Caller } from './filesystem.ts';
import { O_NOATIME, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP } from './modes.ts';
import { dropCapabilities, followMode } from './xattrs.ts';
import type { VolumeState } from './volume.ts';

/** Largest file: 16 TiB, as ext4. */
export const MAX_FILE_SIZE_BYTES: number = 16 * 2 ** 40;
const DIRECTORY_SIZE_BYTES = 4_096;
/** Times that a record can hold, years 1677 to 2262; others are cut to these, as other filesystems do. */
const TIME_MAX_NS = 2n ** 63n - 1n;
const TIME_MIN_NS = -(2n ** 63n);
/** An access time older than this moves with the next access, whatever else happened (relatime, mount(8)). */
const ATIME_AGE_NS = 24n * 3_600n * 1_000_000_000n;

/** stat(2) of an inode. */
export function attributesOf(inode: Inode): Attributes {
  const type = inode.mode & S_IFMT;
  let sizeBytes = inode.sizeBytes;
  if (type === S_IFDIR) sizeBytes = DIRECTORY_SIZE_BYTES;
  else if (type === S_IFLNK) sizeBytes = inode.symlinkTarget.length;
  return {
    ino: inode.ino,
    mode: inode.mode,
    nlink: inode.nlink,
    uid: inode.uid,
    gid: inode.gid,
    rdev: inode.rdev,
    sizeBytes,
    blocks: type === S_IFDIR ? 8 : Math.ceil(inode.storedBytes / 512),
    atimeNs: inode.atimeNs,
    mtimeNs: inode.mtimeNs,
    ctimeNs: inode.ctimeNs,
    btimeNs: inode.btimeNs,
  };
}

/**
 * Clears setuid and setgid as a write or a change of owner does. A setgid bit where the group may not
 * execute stays for root and for members of the group (inode(7)).
 */
export function killPrivileges(inode: Inode, caller: Caller): void {
  if ((inode.mode & S_IFMT) === S_IFDIR) return;
  inode.mode &= ~S_ISUID;
  if ((inode.mode & S_ISGID) === 0) return;
  const keeps = (inode.mode & S_IXGRP) === 0 && (caller.uid === 0 || isMember(caller, inode.gid));
  if (!keeps) inode.mode &= ~S_ISGID;
}

function isMember({ gid, groups }: Caller, wanted: number): boolean {
  return gid === wanted || (groups?.().includes(wanted) ?? false);
}

/** Sets the size of a file; what lies behind it is freed, what is added reads as zeros. */
export function truncate(state: VolumeState, inode: Inode, sizeBytes: number): Now<Inode> {
  if ((inode.mode & S_IFMT) === S_IFDIR) throw new XcoreError('EISDIR');
  if ((inode.mode & S_IFMT) !== S_IFREG) throw new XcoreError('EINVAL');
  if (sizeBytes > MAX_FILE_SIZE_BYTES) throw new XcoreError('EFBIG');
  const { ino } = inode;
  const freed = sizeBytes < inode.sizeBytes ? state.tree.extents.free(inode, sizeBytes, Infinity, false) : undefined;
  const finish = (): Inode => {
    const current = state.inode(ino);
    dropCapabilities(state, current);
    current.sizeBytes = sizeBytes;
    current.mtimeNs = current.ctimeNs = state.c.clock.nowNs();
    state.tree.touch(current);
    return current;
  };
  return freed instanceof Promise ? freed.then(finish) : finish();
}

/**
 * Notes that somebody reads: atime moves where it is not after the last change, or a day old. Open flags
 * may say that it must not. True when it moved.
 */
export function noteAccess(state: VolumeState, inode: Inode, flags: number): boolean {
  if ((flags & O_NOATIME) !== 0 || state.c.noAccessTimes === true) return false;
  if (!state.c.writable() || !state.tree.store.isHealthy) return false;
  const nowNs = state.c.clock.nowNs();
  const isDue =
    inode.atimeNs <= inode.mtimeNs || inode.atimeNs <= inode.ctimeNs || nowNs - inode.atimeNs >= ATIME_AGE_NS;
  if (!isDue || nowNs <= inode.atimeNs) return false;
  inode.atimeNs = nowNs;
  state.tree.touch(inode);
  return true;
}

function timeOf(wanted: bigint | 'now', nowNs: bigint): bigint {
  if (wanted === 'now') return nowNs;
  if (wanted > TIME_MAX_NS) return TIME_MAX_NS;
  return wanted < TIME_MIN_NS ? TIME_MIN_NS : wanted;
}

/** setattr of the kernel: chmod, chown, truncate and utimens in one. */
export function setAttributes(
  state: VolumeState,
  ino: number,
  changes: AttributeChanges,
  caller: Caller,
): Now<Attributes> {
  state.assertWritable();
  const inode = state.inode(ino);
  const resized =
    changes.sizeBytes === undefined || (inode.sizeBytes === changes.sizeBytes && changes.mtimeNs !== undefined)
      ? inode
      : truncate(state, inode, changes.sizeBytes);
  const apply = (current: Inode): Attributes => {
    const nowNs = state.c.clock.nowNs();
    if (changes.killPrivileges === true || changes.uid !== undefined || changes.gid !== undefined) {
      killPrivileges(current, caller);
    }
    if (changes.uid !== undefined || changes.gid !== undefined) dropCapabilities(state, current);
    if (changes.mode !== undefined) {
      current.mode = (current.mode & S_IFMT) | (changes.mode & 0o7777);
      followMode(state, current);
    }
    if (changes.uid !== undefined) current.uid = changes.uid;
    if (changes.gid !== undefined) current.gid = changes.gid;
    if (changes.atimeNs !== undefined) current.atimeNs = timeOf(changes.atimeNs, nowNs);
    if (changes.mtimeNs !== undefined) current.mtimeNs = timeOf(changes.mtimeNs, nowNs);
    current.ctimeNs = timeOf(changes.ctimeNs ?? 'now', nowNs);
    state.tree.touch(current);
    return attributesOf(current);
  };
  return resized instanceof Promise ? resized.then(apply) : apply(resized);
}

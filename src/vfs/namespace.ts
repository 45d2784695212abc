// Names: what creates, moves and removes them. Each operation checks everything first and then
// changes records in one turn, so that it lies in one commit as a whole.

import { XcoreError } from '../lib/errors.ts';
import type { Dentry, Inode } from '../tree/records.ts';
import { attributesOf } from './attributes.ts';
import type { Attributes, Caller } from './filesystem.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, S_IFDIR, S_IFLNK, S_IFMT, S_ISGID } from './modes.ts';
import { inherited } from './xattrs.ts';
import { checkName } from './volume.ts';
import type { VolumeState } from './volume.ts';

const LINK_MAX = 65_000;
const SYMLINK_MAX_BYTES = 4_095;

/** What a new inode is. */
export interface NewInode {
  readonly mode: number;
  readonly rdev?: number;
  readonly symlinkTarget?: Uint8Array;
}

const isDirectory = (mode: number): boolean => (mode & S_IFMT) === S_IFDIR;

/** Null when there is no such name. */
export function lookup(state: VolumeState, parent: number, name: string): Attributes | null {
  checkName(name);
  if (name === '.' || name === '..') {
    const inode = state.directory(parent);
    return attributesOf(name === '.' ? inode : state.inode(inode.parent));
  }
  const dentry = state.tree.dentry(parent, name);
  if (dentry === undefined) {
    state.directory(parent);
    return null;
  }
  return attributesOf(state.inode(dentry.ino));
}

function changed(state: VolumeState, directory: Inode, nowNs: bigint): void {
  directory.mtimeNs = directory.ctimeNs = nowNs;
  state.tree.touch(directory);
}

/** A new inode without a name, with what it gets from the folder that it is made in. */
function make(state: VolumeState, directory: Inode, what: NewInode, caller: Caller, nowNs: bigint): Inode {
  const folder = isDirectory(what.mode);
  // a setgid directory hands its group on, and to directories the bit as well (inode(7))
  const inherits = (directory.mode & S_ISGID) !== 0;
  const { mode, xattrs } = inherited(state, directory, what.mode, caller.umask ?? 0);
  const inode = state.tree.createInode(
    {
      mode: inherits && folder ? mode | S_ISGID : mode,
      uid: caller.uid,
      gid: inherits ? directory.gid : caller.gid,
      nlink: 0,
      rdev: what.rdev ?? 0,
      symlinkTarget: what.symlinkTarget ?? new Uint8Array(0),
      parent: folder ? directory.ino : 0,
    },
    nowNs,
  );
  if (xattrs.size > 0) state.tree.putXattrs(inode, xattrs);
  return inode;
}

/** open(2) of O_TMPFILE: a file without a name, which goes with its last handle unless link() names it. */
export function addNameless(state: VolumeState, parent: number, mode: number, caller: Caller): Inode {
  state.assertWritable();
  const inode = make(state, state.directory(parent), { mode }, caller, state.c.clock.nowNs());
  state.tree.markOrphan(inode.ino);
  return inode;
}

/** mknod, mkdir, symlink and create: a new inode with one name. */
export function add(state: VolumeState, parent: number, name: string, what: NewInode, caller: Caller): Inode {
  state.assertWritable();
  checkName(name);
  const directory = state.directory(parent);
  if (state.tree.dentry(parent, name) !== undefined) throw new XcoreError('EEXIST');
  if (what.symlinkTarget !== undefined && what.symlinkTarget.length > SYMLINK_MAX_BYTES) {
    throw new XcoreError('ENAMETOOLONG');
  }
  const folder = isDirectory(what.mode);
  if (folder && directory.nlink >= LINK_MAX) throw new XcoreError('EMLINK');
  const nowNs = state.c.clock.nowNs();
  const inode = make(state, directory, what, caller, nowNs);
  inode.nlink = folder ? 2 : 1;
  state.tree.putDentry(parent, { name, ino: inode.ino, type: what.mode & S_IFMT });
  directory.entries++;
  if (folder) directory.nlink++;
  changed(state, directory, nowNs);
  return inode;
}

/** symlink(2); keeps `target`. */
export function symlink(state: VolumeState, parent: number, name: string, target: Buffer, caller: Caller): Attributes {
  return attributesOf(add(state, parent, name, { mode: S_IFLNK | 0o777, symlinkTarget: target }, caller));
}

/** link(2). */
export function link(state: VolumeState, ino: number, parent: number, name: string): Attributes {
  state.assertWritable();
  checkName(name);
  const inode = state.inode(ino);
  if (isDirectory(inode.mode)) throw new XcoreError('EPERM');
  if (inode.nlink === 0 && !state.nameless.has(ino)) throw new XcoreError('ENOENT');
  if (inode.nlink >= LINK_MAX) throw new XcoreError('EMLINK');
  const directory = state.directory(parent);
  if (state.tree.dentry(parent, name) !== undefined) throw new XcoreError('EEXIST');
  const nowNs = state.c.clock.nowNs();
  state.tree.putDentry(parent, { name, ino, type: inode.mode & S_IFMT });
  directory.entries++;
  changed(state, directory, nowNs);
  if (state.nameless.delete(ino)) state.tree.unmarkOrphan(ino);
  inode.nlink++;
  inode.ctimeNs = nowNs;
  state.tree.touch(inode);
  return attributesOf(inode);
}

/** Takes one name from an inode whose dentry is gone or replaced; a directory loses all. */
function dropLink(state: VolumeState, inode: Inode, nowNs: bigint): void {
  inode.nlink = isDirectory(inode.mode) ? 0 : inode.nlink - 1;
  inode.ctimeNs = nowNs;
  if (inode.nlink === 0) state.dispose(inode);
  else state.tree.touch(inode);
}

/** unlink(2). */
export function unlink(state: VolumeState, parent: number, name: string): void {
  state.assertWritable();
  const directory = state.directory(parent);
  const { ino } = state.dentry(parent, name);
  const inode = state.inode(ino);
  if (isDirectory(inode.mode)) throw new XcoreError('EISDIR');
  const nowNs = state.c.clock.nowNs();
  state.tree.deleteDentry(parent, name);
  state.removals++;
  directory.entries--;
  changed(state, directory, nowNs);
  dropLink(state, inode, nowNs);
}

/** rmdir(2). */
export function rmdir(state: VolumeState, parent: number, name: string): void {
  state.assertWritable();
  const directory = state.directory(parent);
  const { ino } = state.dentry(parent, name);
  const inode = state.inode(ino);
  if (!isDirectory(inode.mode)) throw new XcoreError('ENOTDIR');
  if (inode.entries > 0) throw new XcoreError('ENOTEMPTY');
  const nowNs = state.c.clock.nowNs();
  state.tree.deleteDentry(parent, name);
  state.removals++;
  directory.entries--;
  directory.nlink--;
  changed(state, directory, nowNs);
  dropLink(state, inode, nowNs);
}

function checkReplaceable(moved: Inode, target: Inode): void {
  if (isDirectory(target.mode)) {
    if (!isDirectory(moved.mode)) throw new XcoreError('EISDIR');
    if (target.entries > 0) throw new XcoreError('ENOTEMPTY');
  } else if (isDirectory(moved.mode)) {
    throw new XcoreError('ENOTDIR');
  }
}

/** EINVAL when a directory would become a part of itself. */
function checkNotBelow(state: VolumeState, moved: Inode, parent: Inode): void {
  for (let at = parent; isDirectory(moved.mode); at = state.inode(at.parent)) {
    if (at.ino === moved.ino) throw new XcoreError('EINVAL');
    if (at.parent === at.ino) return;
  }
}

/** rename(2) and renameat2(2). */
export function rename(
  state: VolumeState,
  parent: number,
  name: string,
  newParent: number,
  newName: string,
  flags: number,
): void {
  state.assertWritable();
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0 || flags === (RENAME_NOREPLACE | RENAME_EXCHANGE)) {
    throw new XcoreError('EINVAL');
  }
  checkName(newName);
  const from = state.directory(parent);
  const to = state.directory(newParent);
  const dentry = state.dentry(parent, name);
  const moved = state.inode(dentry.ino);
  const existing = state.tree.dentry(newParent, newName);
  if (existing !== undefined && flags === RENAME_NOREPLACE) throw new XcoreError('EEXIST');
  if (existing === undefined && flags === RENAME_EXCHANGE) throw new XcoreError('ENOENT');
  checkNotBelow(state, moved, to);
  const target = existing === undefined ? undefined : state.inode(existing.ino);
  const nowNs = state.c.clock.nowNs();
  if (flags === RENAME_EXCHANGE && existing !== undefined && target !== undefined) {
    checkNotBelow(state, target, from);
    place(state, from, name, existing, target, nowNs);
    place(state, to, newName, dentry, moved, nowNs);
    countMove(from, to, moved, target);
  } else {
    if (existing?.ino === dentry.ino) return; // two names of one file: nothing to do (rename(2))
    if (target !== undefined) checkReplaceable(moved, target);
    state.tree.deleteDentry(parent, name);
    place(state, to, newName, dentry, moved, nowNs);
    from.entries--;
    to.entries++;
    if (target !== undefined) {
      to.entries--;
      if (isDirectory(target.mode)) to.nlink--;
      dropLink(state, target, nowNs);
    }
    countMove(from, to, moved, undefined);
  }
  state.removals++;
  changed(state, from, nowNs);
  if (to !== from) changed(state, to, nowNs);
}

/** Gives an inode a name in a directory, over whatever has it. */
function place(state: VolumeState, directory: Inode, name: string, dentry: Dentry, inode: Inode, nowNs: bigint): void {
  state.tree.putDentry(directory.ino, { name, ino: dentry.ino, type: dentry.type });
  if (isDirectory(inode.mode)) inode.parent = directory.ino;
  inode.ctimeNs = nowNs;
  state.tree.touch(inode);
}

/** Keeps link counts of parents right when directories change places. */
function countMove(from: Inode, to: Inode, moved: Inode, back: Inode | undefined): void {
  if (from === to) return;
  if (isDirectory(moved.mode)) {
    from.nlink--;
    to.nlink++;
  }
  if (back !== undefined && isDirectory(back.mode)) {
    to.nlink--;
    from.nlink++;
  }
}

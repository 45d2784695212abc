// Extended attributes: small, kept whole in one record for each inode. Two of them are access control
// lists, which go together with the mode.

import { XcoreError } from '../lib/errors.ts';
import type { Inode, Xattrs } from '../tree/records.ts';
import { ACL_ACCESS, ACL_DEFAULT, applyAcl, chmodAcl, inheritAcl, isEmptyAcl } from './acl.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_ISGID, XATTR_CREATE, XATTR_REPLACE } from './modes.ts';
import type { VolumeState } from './volume.ts';

/** xattr(7): XATTR_NAME_MAX and XATTR_SIZE_MAX. */
const NAME_MAX_BYTES = 255;
const VALUE_MAX_BYTES = 65_536;
/** All names and values of one inode. */
const TOTAL_MAX_BYTES = 131_072;
/** Rights of a program file (capabilities(7)), which a change of it or of its owner takes away. */
const CAPABILITY = 'security.capability';

/** Most questions for an attribute are for one that is not there, and a trace of the stack costs more than the answer. */
const NO_DATA = new XcoreError('ENODATA');

function checkName(name: string): void {
  if (name.length === 0 || name.length > NAME_MAX_BYTES) throw new XcoreError('ERANGE');
  if (name.startsWith('system.') && name !== ACL_ACCESS && name !== ACL_DEFAULT) throw new XcoreError('EOPNOTSUPP');
}

/** getxattr(2). */
export function getXattr(state: VolumeState, ino: number, name: string): Buffer {
  const inode = state.inode(ino);
  const value = inode.hasXattrs ? state.tree.xattrs(ino).get(name) : undefined;
  if (value === undefined) {
    checkName(name);
    throw NO_DATA;
  }
  return Buffer.from(value);
}

/** setxattr(2); keeps `value`. `killSgid`: an ACL set by somebody outside of the group. */
export function setXattr(
  state: VolumeState,
  ino: number,
  name: string,
  value: Buffer,
  flags: number,
  killSgid: boolean,
): void {
  state.assertWritable();
  checkName(name);
  if (value.length > VALUE_MAX_BYTES) throw new XcoreError('E2BIG');
  const inode = state.inode(ino);
  const xattrs = new Map(state.tree.xattrs(ino));
  if ((flags & XATTR_CREATE) !== 0 && xattrs.has(name)) throw new XcoreError('EEXIST');
  if ((flags & XATTR_REPLACE) !== 0 && !xattrs.has(name)) throw new XcoreError('ENODATA');
  const kept = name === ACL_ACCESS || name === ACL_DEFAULT ? takeAcl(inode, name, value, killSgid) : value;
  if (kept === null) xattrs.delete(name);
  else xattrs.set(name, kept);
  let total = 0;
  for (const [key, bytes] of xattrs) total += key.length + bytes.length;
  if (total > TOTAL_MAX_BYTES) throw new XcoreError('ENOSPC', 'too many extended attributes on one file');
  save(state, inode, xattrs);
}

/** What is to be kept of a list; sets the mode to what it says. */
function takeAcl(inode: Inode, name: string, value: Buffer, killSgid: boolean): Uint8Array | null {
  if (name === ACL_DEFAULT) {
    if ((inode.mode & S_IFMT) !== S_IFDIR) throw new XcoreError('EACCES');
    return isEmptyAcl(value) ? null : value;
  }
  const applied = applyAcl(value, inode.mode);
  inode.mode = killSgid ? applied.mode & ~S_ISGID : applied.mode;
  return applied.value;
}

function save(state: VolumeState, inode: Inode, xattrs: Xattrs): void {
  inode.ctimeNs = state.c.clock.nowNs();
  state.tree.putXattrs(inode, xattrs);
  state.tree.touch(inode);
}

/** listxattr(2). */
export function listXattrs(state: VolumeState, ino: number): string[] {
  return state.inode(ino).hasXattrs ? [...state.tree.xattrs(ino).keys()] : [];
}

/** removexattr(2). */
export function removeXattr(state: VolumeState, ino: number, name: string): void {
  state.assertWritable();
  checkName(name);
  const inode = state.inode(ino);
  const xattrs = new Map(state.tree.xattrs(ino));
  if (!xattrs.delete(name)) throw new XcoreError('ENODATA');
  save(state, inode, xattrs);
}

/** Takes away the rights of a program file whose content or owner changes; the caller touches the inode. */
export function dropCapabilities(state: VolumeState, inode: Inode): void {
  if (!inode.hasXattrs || !state.tree.xattrs(inode.ino).has(CAPABILITY)) return;
  const xattrs = new Map(state.tree.xattrs(inode.ino));
  xattrs.delete(CAPABILITY);
  state.tree.putXattrs(inode, xattrs);
}

/** Lets the access list of an inode say what its mode says since chmod(2). */
export function followMode(state: VolumeState, inode: Inode): void {
  const acl = inode.hasXattrs ? state.tree.xattrs(inode.ino).get(ACL_ACCESS) : undefined;
  if (acl === undefined) return;
  state.tree.putXattrs(inode, new Map([...state.tree.xattrs(inode.ino), [ACL_ACCESS, chmodAcl(acl, inode.mode)]]));
}

/** Mode and lists of a new inode in a folder, whose default list takes the place of the umask. */
export function inherited(
  state: VolumeState,
  directory: Inode,
  mode: number,
  umask: number,
): { mode: number; xattrs: Xattrs } {
  const xattrs: Xattrs = new Map();
  const type = mode & S_IFMT;
  const acl = directory.hasXattrs ? state.tree.xattrs(directory.ino).get(ACL_DEFAULT) : undefined;
  if (type === S_IFLNK) return { mode, xattrs };
  if (acl === undefined) return { mode: mode & ~umask, xattrs };
  const own = inheritAcl(acl, mode);
  if (own.value !== null) xattrs.set(ACL_ACCESS, own.value);
  if (type === S_IFDIR) xattrs.set(ACL_DEFAULT, acl);
  return { mode: own.mode, xattrs };
}

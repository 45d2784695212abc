// Extended attributes: small, kept whole in one record for each inode.

import { XcoreError } from '../lib/errors.ts';
import { XATTR_CREATE, XATTR_REPLACE } from './modes.ts';
import type { VolumeState } from './volume.ts';

/** xattr(7): XATTR_NAME_MAX and XATTR_SIZE_MAX. */
const NAME_MAX_BYTES = 255;
const VALUE_MAX_BYTES = 65_536;
/** All names and values of one inode. */
const TOTAL_MAX_BYTES = 131_072;

function checkName(name: string): void {
  if (name.length === 0 || name.length > NAME_MAX_BYTES) throw new XcoreError('ERANGE');
  if (name.startsWith('system.')) throw new XcoreError('EOPNOTSUPP');
}

/** getxattr(2). */
export function getXattr(state: VolumeState, ino: number, name: string): Buffer {
  const inode = state.inode(ino);
  const value = inode.hasXattrs ? state.tree.xattrs(ino).get(name) : undefined;
  if (value === undefined) {
    checkName(name);
    throw new XcoreError('ENODATA');
  }
  return Buffer.from(value);
}

/** setxattr(2); keeps `value`. */
export function setXattr(state: VolumeState, ino: number, name: string, value: Buffer, flags: number): void {
  state.assertWritable();
  checkName(name);
  if (value.length > VALUE_MAX_BYTES) throw new XcoreError('E2BIG');
  const inode = state.inode(ino);
  const xattrs = new Map(state.tree.xattrs(ino));
  if ((flags & XATTR_CREATE) !== 0 && xattrs.has(name)) throw new XcoreError('EEXIST');
  if ((flags & XATTR_REPLACE) !== 0 && !xattrs.has(name)) throw new XcoreError('ENODATA');
  xattrs.set(name, value);
  let total = 0;
  for (const [key, bytes] of xattrs) total += key.length + bytes.length;
  if (total > TOTAL_MAX_BYTES) throw new XcoreError('ENOSPC', 'too many extended attributes on one file');
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
  inode.ctimeNs = state.c.clock.nowNs();
  state.tree.putXattrs(inode, xattrs);
  state.tree.touch(inode);
}

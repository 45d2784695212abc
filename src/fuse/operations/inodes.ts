// Opcodes that work on an inode as such: attributes, link targets, and the space of the whole volume.

import { FATTR, OP, SETATTR_IN, STATFS_OUT } from '../abi.ts';
import { operation } from '../operation.ts';
import type { AnyOperation } from '../operation.ts';
import { writeU64 } from '../reply.ts';
import type { Request } from '../request.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { AttributeChanges, Attributes, SpaceInfo } from '../../vfs/filesystem.ts';

/** The kernel takes one page for a link's target, with a NUL behind it. */
const MAX_TARGET_BYTES = 4095;

const getattr = operation<Attributes>(
  (request, { filesystem }) => filesystem.getattr(request.nodeid),
  (reply, attributes) => reply.putAttributes(attributes),
);

const statx = operation<Attributes>(
  (request, { filesystem }) => filesystem.getattr(request.nodeid),
  (reply, attributes) => reply.putStatx(attributes),
);

function decodeChanges(request: Request): AttributeChanges {
  const valid = request.u32(SETATTR_IN.valid);
  const changes: AttributeChanges = {};
  if (valid & FATTR.MODE) changes.mode = request.u32(SETATTR_IN.mode);
  if (valid & FATTR.UID) changes.uid = request.u32(SETATTR_IN.uid);
  if (valid & FATTR.GID) changes.gid = request.u32(SETATTR_IN.gid);
  if (valid & FATTR.SIZE) changes.sizeBytes = request.u64(SETATTR_IN.size);
  if (valid & FATTR.ATIME_NOW) changes.atimeNs = 'now';
  else if (valid & FATTR.ATIME) changes.atimeNs = request.timeNs(SETATTR_IN.atime, SETATTR_IN.atimensec);
  if (valid & FATTR.MTIME_NOW) changes.mtimeNs = 'now';
  else if (valid & FATTR.MTIME) changes.mtimeNs = request.timeNs(SETATTR_IN.mtime, SETATTR_IN.mtimensec);
  if (valid & FATTR.CTIME) changes.ctimeNs = request.timeNs(SETATTR_IN.ctime, SETATTR_IN.ctimensec);
  if (valid & FATTR.KILL_SUIDGID) changes.killPrivileges = true;
  return changes;
}

const setattr = operation<Attributes>(
  (request, { filesystem }) => filesystem.setattr(request.nodeid, decodeChanges(request), request.caller),
  (reply, attributes) => reply.putAttributes(attributes),
);

const readlink = operation<Buffer>(
  (request, { filesystem }) => filesystem.readlink(request.nodeid),
  (reply, target) => {
    if (target.length > MAX_TARGET_BYTES) throw new XcoreError('ENAMETOOLONG');
    reply.putBytes(target);
  },
);

const statfs = operation<SpaceInfo>(
  (_request, { filesystem }) => filesystem.statfs(),
  (reply, space) => {
    const out = reply.putStruct(STATFS_OUT.size);
    writeU64(out, STATFS_OUT.blocks, space.blocks);
    writeU64(out, STATFS_OUT.bfree, space.freeBlocks);
    writeU64(out, STATFS_OUT.bavail, space.freeBlocks);
    writeU64(out, STATFS_OUT.files, space.files);
    writeU64(out, STATFS_OUT.ffree, space.freeFiles);
    out.writeUInt32LE(space.blockSizeBytes, STATFS_OUT.bsize);
    out.writeUInt32LE(space.nameMaxBytes, STATFS_OUT.namelen);
    out.writeUInt32LE(space.blockSizeBytes, STATFS_OUT.frsize);
  },
);

/** Opcode → operation, inodes. */
export const INODE_OPERATIONS: [number, AnyOperation][] = [
  [OP.GETATTR, getattr],
  [OP.STATX, statx],
  [OP.SETATTR, setattr],
  [OP.READLINK, readlink],
  [OP.STATFS, statfs],
];

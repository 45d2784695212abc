// Opcodes that work on names in a directory.

import { LINK_IN, MKDIR_IN, MKNOD_IN, OP, RENAME2_IN, RENAME_IN } from '../abi.ts';
import { encodeNothing, operation } from '../operation.ts';
import type { AnyOperation } from '../operation.ts';
import type { ReplyWriter } from '../reply.ts';
import type { Request } from '../request.ts';
import { chain } from '../operation.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { Attributes, Filesystem, Now } from '../../vfs/filesystem.ts';

function encodeEntry(reply: ReplyWriter, attributes: Attributes): void {
  reply.putEntry(attributes);
}

const lookup = operation<Attributes | null>(
  (request, { filesystem, negativeEntries }) =>
    chain(filesystem.lookup(request.nodeid, request.name(0)), (attributes) => {
      if (attributes === null && !negativeEntries) throw new XcoreError('ENOENT');
      return attributes;
    }),
  (reply, attributes) => {
    if (attributes === null) reply.putNegativeEntry();
    else reply.putEntry(attributes);
  },
);

const mknod = operation<Attributes>(
  (request, { filesystem, unmasked }) =>
    filesystem.mknod(
      request.nodeid,
      request.name(MKNOD_IN.size),
      request.u32(MKNOD_IN.mode),
      request.u32(MKNOD_IN.rdev),
      request.creator(MKNOD_IN.umask, unmasked),
    ),
  encodeEntry,
);

const mkdir = operation<Attributes>(
  (request, { filesystem, unmasked }) =>
    filesystem.mkdir(
      request.nodeid,
      request.name(MKDIR_IN.size),
      request.u32(MKDIR_IN.mode),
      request.creator(MKDIR_IN.umask, unmasked),
    ),
  encodeEntry,
);

const symlink = operation<Attributes>((request, { filesystem }) => {
  const name = request.name(0);
  const target = Buffer.from(request.name(name.length + 1), 'latin1');
  return filesystem.symlink(request.nodeid, name, target, request.caller);
}, encodeEntry);

const link = operation<Attributes>(
  (request, { filesystem }) =>
    filesystem.link(request.u64(LINK_IN.oldnodeid), request.nodeid, request.name(LINK_IN.size)),
  encodeEntry,
);

const unlink = operation<void>(
  (request, { filesystem }) => filesystem.unlink(request.nodeid, request.name(0)),
  encodeNothing,
);

const rmdir = operation<void>(
  (request, { filesystem }) => filesystem.rmdir(request.nodeid, request.name(0)),
  encodeNothing,
);

function rename(filesystem: Filesystem, request: Request, bodyBytes: number, flags: number): Now<void> {
  const name = request.name(bodyBytes);
  const newName = request.name(bodyBytes + name.length + 1);
  return filesystem.rename(request.nodeid, name, request.u64(RENAME_IN.newdir), newName, flags);
}

const renamePlain = operation<void>(
  (request, { filesystem }) => rename(filesystem, request, RENAME_IN.size, 0),
  encodeNothing,
);

const renameWithFlags = operation<void>(
  (request, { filesystem }) => rename(filesystem, request, RENAME2_IN.size, request.u32(RENAME2_IN.flags)),
  encodeNothing,
);

/** Opcode → operation, names. */
export const NAME_OPERATIONS: [number, AnyOperation][] = [
  [OP.LOOKUP, lookup],
  [OP.MKNOD, mknod],
  [OP.MKDIR, mkdir],
  [OP.SYMLINK, symlink],
  [OP.LINK, link],
  [OP.UNLINK, unlink],
  [OP.RMDIR, rmdir],
  [OP.RENAME, renamePlain],
  [OP.RENAME2, renameWithFlags],
];

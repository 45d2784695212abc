// Opcodes that work on open directories.

import { FOPEN, FSYNC_DATA_ONLY, FSYNC_IN, MAX_IO_BYTES, OP, READ_IN, RELEASE_IN } from '../abi.ts';
import { chain, encodeNothing, operation } from '../operation.ts';
import type { AnyOperation } from '../operation.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { DirectoryEntry } from '../../vfs/filesystem.ts';

/** Bytes of a directory entry with a name of middling length, with and without attributes. */
const TYPICAL_ENTRY_BYTES = 48;
const TYPICAL_ENTRY_PLUS_BYTES = 176;
/** Most entries asked for at once. */
const MAX_ENTRIES = 2048;

const opendir = operation<{ handle: number; flags: number }>(
  (request, context) => {
    if (context.opensDirectories) throw new XcoreError('ENOSYS', 'the kernel opens directories');
    // the kernel drops a kept listing by itself when it changes the directory or is told to invalidate
    const flags = context.cacheDirectories ? FOPEN.CACHE_DIR | FOPEN.KEEP_CACHE : 0;
    return chain(context.filesystem.opendir(request.nodeid), (handle) => ({ handle, flags }));
  },
  (reply, { handle, flags }) => reply.putOpen(handle, flags),
);

function readdir(plus: boolean): AnyOperation {
  return operation<DirectoryEntry[]>(
    (request, { filesystem }) => {
      request.limit = Math.min(request.u32(READ_IN.size), MAX_IO_BYTES);
      const fitting = Math.ceil(request.limit / (plus ? TYPICAL_ENTRY_PLUS_BYTES : TYPICAL_ENTRY_BYTES));
      return filesystem.readdir(
        request.nodeid,
        request.u64(READ_IN.fh),
        request.big(READ_IN.offset),
        Math.min(fitting, MAX_ENTRIES),
        plus,
      );
    },
    (reply, entries, request) => {
      for (const entry of entries) if (!reply.putDirectoryEntry(entry, plus, request.limit)) break;
    },
  );
}

const releasedir = operation<void>(
  (request, { filesystem }) => filesystem.releasedir(request.nodeid, request.u64(RELEASE_IN.fh)),
  encodeNothing,
);

const fsyncdir = operation<void>(
  (request, { filesystem }) =>
    filesystem.fsyncdir(request.nodeid, (request.u32(FSYNC_IN.fsyncFlags) & FSYNC_DATA_ONLY) !== 0),
  encodeNothing,
);

/** Opcode → operation, open directories. */
export const DIRECTORY_OPERATIONS: [number, AnyOperation][] = [
  [OP.OPENDIR, opendir],
  [OP.READDIR, readdir(false)],
  [OP.READDIRPLUS, readdir(true)],
  [OP.RELEASEDIR, releasedir],
  [OP.FSYNCDIR, fsyncdir],
];

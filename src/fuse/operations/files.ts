// Opcodes that work on open files.

import {
  CREATE_IN,
  FLUSH_IN,
  FOPEN,
  FSYNC_DATA_ONLY,
  FSYNC_IN,
  MAX_IO_BYTES,
  O,
  OP,
  OPEN_IN,
  OPEN_KILL_SUIDGID,
  READ_IN,
  RELEASE_IN,
  WRITE_CACHE,
  WRITE_IN,
  WRITE_KILL_SUIDGID,
  WRITE_OUT_BYTES,
} from '../abi.ts';
import { chain, encodeNothing, operation } from '../operation.ts';
import type { AnyOperation, HandlerContext } from '../operation.ts';
import type { ReplyWriter } from '../reply.ts';
import type { Request } from '../request.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { Attributes, Now, OpenFile } from '../../vfs/filesystem.ts';

const SUIDGID = 0o6000;

/**
 * Open flags as the filesystem should see them. With its write cache on, the kernel reads around
 * partial pages through any handle and places appended data itself.
 */
function openFlags(flags: number, { writebackCache }: HandlerContext): number {
  if (!writebackCache) return flags;
  const readable = (flags & O.ACCMODE) === O.WRONLY ? (flags & ~O.ACCMODE) | O.RDWR : flags;
  return readable & ~O.APPEND;
}

function encodeOpen(reply: ReplyWriter, file: OpenFile): void {
  reply.putOpen(file.handle, (file.directIo ? FOPEN.DIRECT_IO : 0) | (file.keepCache ? FOPEN.KEEP_CACHE : 0));
}

/**
 * Clears setuid and setgid bits when a caller without CAP_FSETID changes the content; to be called
 * before the change. The kernel leaves that to the driver, and keeps the old mode unless told.
 */
function dropPrivileges({ nodeid, caller }: Request, context: HandlerContext): Now<void> {
  return chain(context.filesystem.getattr(nodeid), ({ mode }) => {
    if ((mode & SUIDGID) === 0) return;
    return chain(context.filesystem.setattr(nodeid, { killPrivileges: true }, caller), () =>
      context.forgetAttributes(nodeid),
    );
  });
}

const open = operation<OpenFile>((request, context) => {
  const flags = request.u32(OPEN_IN.flags);
  const seenFlags = openFlags(flags, context);
  const drops = (request.u32(OPEN_IN.openFlags) & OPEN_KILL_SUIDGID) !== 0 && (flags & O.TRUNC) !== 0;
  if (!drops) return context.filesystem.open(request.nodeid, seenFlags);
  return chain(dropPrivileges(request, context), () => context.filesystem.open(request.nodeid, seenFlags));
}, encodeOpen);

const create = operation<{ attributes: Attributes; file: OpenFile }>(
  (request, context) =>
    context.filesystem.create(
      request.nodeid,
      request.name(CREATE_IN.size),
      request.u32(CREATE_IN.mode),
      openFlags(request.u32(CREATE_IN.flags), context),
      request.caller,
    ),
  (reply, { attributes, file }) => {
    reply.putEntry(attributes);
    encodeOpen(reply, file);
  },
);

const read = operation<Buffer[]>(
  (request, context) => {
    request.limit = request.u32(READ_IN.size);
    return context.filesystem.read(
      request.nodeid,
      request.u64(READ_IN.fh),
      request.u64(READ_IN.offset),
      Math.min(request.limit, MAX_IO_BYTES),
      context.interruptSignal(request),
    );
  },
  (reply, parts, request) => {
    let totalBytes = 0;
    for (const part of parts) totalBytes += part.length;
    if (totalBytes > request.limit) throw new RangeError(`read gave ${totalBytes} bytes of ${request.limit}`);
    reply.putParts(parts, totalBytes);
  },
);

const write = operation<void>(
  (request, context) => {
    const { filesystem } = context;
    const flags = request.u32(WRITE_IN.writeFlags);
    const handle = request.u64(WRITE_IN.fh);
    const offset = request.u64(WRITE_IN.offset);
    // without the writeback cache the kernel leaves times of pages from a mapping to us, too
    const cached = context.writebackCache && (flags & WRITE_CACHE) !== 0;
    request.limit = request.u32(WRITE_IN.size);
    const borrowed = request.borrow(WRITE_IN.bytes, request.limit);
    if ((flags & WRITE_KILL_SUIDGID) === 0) return filesystem.write(request.nodeid, handle, offset, borrowed, cached);
    const dropped = dropPrivileges(request, context);
    if (!(dropped instanceof Promise)) return filesystem.write(request.nodeid, handle, offset, borrowed, cached);
    const copy = Buffer.from(borrowed);
    return dropped.then(() => filesystem.write(request.nodeid, handle, offset, copy, cached));
  },
  (reply, _result, request) => {
    reply.putStruct(WRITE_OUT_BYTES).writeUInt32LE(request.limit, 0);
  },
);

const flush = operation<void>(
  (request, { filesystem }) => filesystem.flush(request.nodeid, request.u64(FLUSH_IN.fh)),
  encodeNothing,
);

const fsync = operation<void>(
  (request, { filesystem }) =>
    filesystem.fsync(
      request.nodeid,
      request.u64(FSYNC_IN.fh),
      (request.u32(FSYNC_IN.fsyncFlags) & FSYNC_DATA_ONLY) !== 0,
    ),
  encodeNothing,
);

const release = operation<void>(
  (request, { filesystem }) => filesystem.release(request.nodeid, request.u64(RELEASE_IN.fh)),
  encodeNothing,
);

const fallocate = operation<never>(() => {
  // EOPNOTSUPP makes posix_fallocate(3) and cp fall back; ENOSYS would reach programs
  throw new XcoreError('EOPNOTSUPP');
}, encodeNothing);

/** Opcode → operation, open files. */
export const FILE_OPERATIONS: [number, AnyOperation][] = [
  [OP.OPEN, open],
  [OP.CREATE, create],
  [OP.READ, read],
  [OP.WRITE, write],
  [OP.FLUSH, flush],
  [OP.FSYNC, fsync],
  [OP.RELEASE, release],
  [OP.FALLOCATE, fallocate],
];

// Opcodes that work on open files.

import {
  COPY_FILE_RANGE_IN,
  COPY_FILE_RANGE_OUT_BYTES,
  CREATE_IN,
  FALLOCATE_IN,
  FLUSH_IN,
  FOPEN,
  FSYNC_DATA_ONLY,
  FSYNC_IN,
  LSEEK_IN,
  LSEEK_OUT_BYTES,
  MAX_IO_BYTES,
  O,
  OP,
  OPEN_IN,
  OPEN_KILL_SUIDGID,
  READ_IN,
  RELEASE_IN,
  SEEK,
  WRITE_CACHE,
  WRITE_IN,
  WRITE_KILL_SUIDGID,
  WRITE_OUT_BYTES,
} from '../abi.ts';
import { chain, encodeNothing, operation } from '../operation.ts';
import type { AnyOperation, HandlerContext } from '../operation.ts';
import { writeU64 } from '../reply.ts';
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
  const cache = (file.directIo ? FOPEN.DIRECT_IO : 0) | (file.keepCache ? FOPEN.KEEP_CACHE : 0);
  reply.putOpen(file.handle, cache | (file.readsOnly ? FOPEN.NO_FLUSH : 0));
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
  const { nodeid } = request;
  const flags = request.u32(OPEN_IN.flags);
  const seenFlags = openFlags(flags, context);
  const drops = (request.u32(OPEN_IN.openFlags) & OPEN_KILL_SUIDGID) !== 0 && (flags & O.TRUNC) !== 0;
  if (drops) return chain(dropPrivileges(request, context), () => context.filesystem.open(nodeid, seenFlags));
  return chain(context.filesystem.open(nodeid, seenFlags), (file) => {
    if (file.accessed) context.forgetHeldAttributes(nodeid);
    return file;
  });
}, encodeOpen);

interface Created {
  readonly attributes: Attributes;
  readonly file: OpenFile;
}

function encodeCreated(reply: ReplyWriter, { attributes, file }: Created): void {
  reply.putEntry(attributes);
  encodeOpen(reply, file);
}

const create = operation<Created>(
  (request, context) =>
    context.filesystem.create(
      request.nodeid,
      request.name(CREATE_IN.size),
      request.u32(CREATE_IN.mode),
      openFlags(request.u32(CREATE_IN.flags), context),
      request.creator(CREATE_IN.umask, context.unmasked),
    ),
  encodeCreated,
);

const tmpfile = operation<Created>(
  (request, context) =>
    context.filesystem.tmpfile(
      request.nodeid,
      request.u32(CREATE_IN.mode),
      openFlags(request.u32(CREATE_IN.flags), context),
      request.creator(CREATE_IN.umask, context.unmasked),
    ),
  encodeCreated,
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
    // the kernel does not know that pages of a mapping move the times
    if ((flags & WRITE_CACHE) !== 0 && !cached) void context.forgetAttributes(request.nodeid);
    const signal = context.interruptSignal(request);
    const put = (data: Buffer): Now<void> => filesystem.write(request.nodeid, handle, offset, data, cached, signal);
    if ((flags & WRITE_KILL_SUIDGID) === 0) return put(borrowed);
    const dropped = dropPrivileges(request, context);
    if (!(dropped instanceof Promise)) return put(borrowed);
    const copy = Buffer.from(borrowed);
    return dropped.then(() => put(copy));
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

const fallocate = operation<void>(
  (request, { filesystem }) =>
    filesystem.fallocate(
      request.nodeid,
      request.u32(FALLOCATE_IN.mode),
      request.u64(FALLOCATE_IN.offset),
      request.u64(FALLOCATE_IN.length),
      request.caller,
    ),
  encodeNothing,
);

const lseek = operation<number>(
  (request, { filesystem }) => {
    const whence = request.u32(LSEEK_IN.whence);
    if (whence !== SEEK.DATA && whence !== SEEK.HOLE) throw new XcoreError('EINVAL');
    return filesystem.seek(request.nodeid, request.u64(LSEEK_IN.offset), whence === SEEK.HOLE);
  },
  (reply, offset) => writeU64(reply.putStruct(LSEEK_OUT_BYTES), 0, offset),
);

function copyRange(maxBytes: number): AnyOperation {
  return operation<number>(
    (request, { filesystem }) => {
      if (request.u32(COPY_FILE_RANGE_IN.flags) !== 0) throw new XcoreError('EINVAL');
      const length = request.big(COPY_FILE_RANGE_IN.length);
      return filesystem.copyRange(
        request.nodeid,
        request.u64(COPY_FILE_RANGE_IN.offsetIn),
        request.u64(COPY_FILE_RANGE_IN.nodeidOut),
        request.u64(COPY_FILE_RANGE_IN.offsetOut),
        length > BigInt(maxBytes) ? maxBytes : Number(length),
        request.caller,
      );
    },
    // the old reply has 32 bits and as many of padding, which is the new one's 64
    (reply, bytes) => writeU64(reply.putStruct(COPY_FILE_RANGE_OUT_BYTES), 0, bytes),
  );
}

/** Opcode → operation, open files. */
export const FILE_OPERATIONS: [number, AnyOperation][] = [
  [OP.OPEN, open],
  [OP.CREATE, create],
  [OP.READ, read],
  [OP.WRITE, write],
  [OP.FLUSH, flush],
  [OP.FSYNC, fsync],
  [OP.RELEASE, release],
  [OP.TMPFILE, tmpfile],
  [OP.FALLOCATE, fallocate],
  [OP.LSEEK, lseek],
  [OP.COPY_FILE_RANGE, copyRange(0xffff_f000)],
  [OP.COPY_FILE_RANGE_64, copyRange(2 ** 44)],
];

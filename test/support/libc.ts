// System calls that Node does not offer, for tests. They block this process, so never on a mount
// that it serves.

import koffi from 'koffi';
import { constants } from 'node:os';

const libc = koffi.load('libc.so.6');
const cUtimensat = libc.func('int utimensat(int dir, const char *path, const void *times, int flags)');
const cSetxattr = libc.func(
  'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
);
const cGetxattr = libc.func('int64_t lgetxattr(const char *path, const char *name, _Out_ void *value, size_t size)');
const cListxattr = libc.func('int64_t llistxattr(const char *path, _Out_ void *list, size_t size)');
const cRemovexattr = libc.func('int lremovexattr(const char *path, const char *name)');
const cRenameat2 = libc.func('int renameat2(int from, const char *a, int to, const char *b, unsigned int flags)');
const cMknod = libc.func('int mknod(const char *path, uint32_t mode, uint64_t dev)');
const cFallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const cCopyFileRange = libc.func(
  'int64_t copy_file_range(int from, _Inout_ int64_t *fromAt, int to, _Inout_ int64_t *toAt, size_t length, unsigned int flags)',
);
const cLinkat = libc.func('int linkat(int dir, const char *path, int newDir, const char *newPath, int flags)');
const cMmap = libc.func(
  'uintptr_t mmap(uintptr_t at, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const cMunmap = libc.func('int munmap(uintptr_t at, size_t length)');
const cMsync = libc.func('int msync(uintptr_t at, size_t length, int flags)');
const cFlock = libc.func('int flock(int fd, int operation)');
const cFcntl = libc.func('int fcntl(int fd, int command, ...)');
const cFadvise = libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, ...)');
const cSyncfs = libc.func('int syncfs(int fd)');
const cLseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** Flags of setxattr(2) and renameat2(2). */
export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
/** Modes of fallocate(2). */
export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_COLLAPSE_RANGE = 8;
export const FALLOC_ZERO_RANGE = 16;
export const FALLOC_INSERT_RANGE = 32;
/** Whence of lseek(2). */
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
/** Flags of open(2) that Node does not name. */
export const O_TMPFILE = 0o20200000;
/** Operations of flock(2). */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/** A failed system call, in the shape of Node's own. */
export class SystemError extends Error {
  readonly code: string;
  constructor(call: string) {
    const errno = koffi.errno();
    const code = NAMES.get(errno) ?? `errno ${errno}`;
    super(`${code}: ${call}`);
    this.code = code;
  }
}

function checked(call: string, result: number): number {
  if (result < 0) throw new SystemError(call);
  return result;
}

const SECOND = 1_000_000_000n;

function floorDiv(ns: bigint): bigint {
  return ns / SECOND - (ns % SECOND < 0n ? 1n : 0n);
}

/** Sets access and modification time in nanoseconds, of a symlink itself too. */
export function setTimes(path: string, atimeNs: bigint, mtimeNs: bigint): void {
  // Two struct timespec of a 64-bit machine; seconds before 1970 are negative, nanoseconds never.
  const times = new BigInt64Array(
    [atimeNs, mtimeNs].flatMap((ns) => [BigInt.asIntN(64, floorDiv(ns)), ns - floorDiv(ns) * SECOND]),
  );
  checked('utimensat', cUtimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

/** lsetxattr(2). */
export function setxattr(path: string, name: string, value: Uint8Array, flags = 0): void {
  checked('lsetxattr', cSetxattr(path, name, value, value.length, flags));
}

/** lgetxattr(2); room for `room` bytes, 65,536 unless told, 0 asks for the size only. */
export function getxattr(path: string, name: string, room = 65_536): Buffer {
  const buffer = Buffer.alloc(room);
  const size = checked('lgetxattr', Number(cGetxattr(path, name, buffer, room)));
  return room === 0 ? Buffer.alloc(size) : buffer.subarray(0, size);
}

/** llistxattr(2). */
export function listxattr(path: string): string[] {
  const buffer = Buffer.alloc(65_536);
  const size = checked('llistxattr', Number(cListxattr(path, buffer, buffer.length)));
  return buffer.toString('latin1', 0, size).split('\0').filter(Boolean);
}

/** lremovexattr(2). */
export function removexattr(path: string, name: string): void {
  checked('lremovexattr', cRemovexattr(path, name));
}

/** renameat2(2). */
export function rename2(from: string, to: string, flags: number): void {
  checked('renameat2', cRenameat2(AT_FDCWD, from, AT_FDCWD, to, flags));
}

/** mknod(2). */
export function mknod(path: string, mode: number, device = 0): void {
  checked('mknod', cMknod(path, mode, device));
}

/** fallocate(2). */
export function fallocate(fd: number, mode: number, offset: number, length: number): void {
  checked('fallocate', cFallocate(fd, mode, offset, length));
}

/** copy_file_range(2) at given offsets; how many bytes it did. */
export function copyFileRange(from: number, fromAt: number, to: number, toAt: number, length: number): number {
  return checked('copy_file_range', Number(cCopyFileRange(from, [fromAt], to, [toAt], length, 0)));
}

/** Gives an open file a name, also one that has none. */
export function linkOpen(fd: number, path: string): void {
  checked('linkat', cLinkat(AT_FDCWD, `/proc/self/fd/${fd}`, AT_FDCWD, path, 0x400));
}

/** A part of a file in memory. */
export interface Mapping {
  readonly bytes: Buffer;
  /** msync(2) of all of it, waiting. */
  sync(): void;
  /** Ends it; `bytes` must not be touched any more. */
  unmap(): void;
}

/** mmap(2) for reading and writing, shared or private. */
export function map(fd: number, offset: number, length: number, isPrivate = false): Mapping {
  const address = Number(cMmap(0, length, 3, isPrivate ? 2 : 1, fd, offset));
  if (address > Number.MAX_SAFE_INTEGER) throw new SystemError('mmap');
  return {
    bytes: Buffer.from(koffi.view(BigInt(address), length)),
    sync: () => checked('msync', cMsync(address, length, 4)),
    unmap: () => checked('munmap', cMunmap(address, length)),
  };
}

/** flock(2). */
export function flock(fd: number, operation: number): void {
  checked('flock', cFlock(fd, operation));
}

/** fcntl(2) F_SETLK of a range: 'read', 'write' or 'none'. EAGAIN when another process is in the way. */
export function lockRange(fd: number, kind: 'read' | 'write' | 'none', offset: number, length: number): void {
  // struct flock of 64-bit Linux: type, whence, start, length, pid
  const lock = Buffer.alloc(32);
  lock.writeInt16LE({ read: 0, write: 1, none: 2 }[kind], 0);
  lock.writeBigInt64LE(BigInt(offset), 8);
  lock.writeBigInt64LE(BigInt(length), 16);
  checked('fcntl', cFcntl(fd, 6, 'void *', lock));
}

/** Lets the kernel drop the pages of a file that it could read again. */
export function dropPages(fd: number): void {
  cFadvise(fd, 0, 0, 4);
}

/** ioctl(2) with a buffer of 64 bytes. */
export function ioctl(fd: number, request: number): void {
  checked('ioctl', cIoctl(fd, request, 'void *', Buffer.alloc(64)));
}

/** syncfs(2). */
export function syncfs(fd: number): void {
  checked('syncfs', cSyncfs(fd));
}

/** utimensat(2) with UTIME_NOW ('now'), UTIME_OMIT ('omit') or nanoseconds. */
export function setTimesOr(path: string, atime: bigint | 'now' | 'omit', mtime: bigint | 'now' | 'omit'): void {
  const special = { now: (1n << 30n) - 1n, omit: (1n << 30n) - 2n };
  const times = new BigInt64Array(
    [atime, mtime].flatMap((time) =>
      typeof time === 'string' ? [0n, special[time]] : [floorDiv(time), time - floorDiv(time) * SECOND],
    ),
  );
  checked('utimensat', cUtimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

/** lseek(2). */
export function lseek(fd: number, offset: number, whence: number): number {
  return checked('lseek', Number(cLseek(fd, offset, whence)));
}

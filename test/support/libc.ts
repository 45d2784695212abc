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
const cLseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** Flags of setxattr(2) and renameat2(2). */
export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;

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
export function mknod(path: string, mode: number): void {
  checked('mknod', cMknod(path, mode, 0));
}

/** lseek(2). */
export function lseek(fd: number, offset: number, whence: number): number {
  return checked('lseek', Number(cLseek(fd, offset, whence)));
}

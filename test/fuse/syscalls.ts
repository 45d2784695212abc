// System calls that Node does not offer, for tests that look at a mount as programs do.

import koffi from 'koffi';

const libc = koffi.load(null);
const setxattrCall = libc.func(
  'int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
);
const getxattrCall = libc.func('intptr_t getxattr(const char *path, const char *name, void *value, size_t size)');
const listxattrCall = libc.func('intptr_t listxattr(const char *path, void *list, size_t size)');
const removexattrCall = libc.func('int removexattr(const char *path, const char *name)');
const renameat2Call = libc.func(
  'int renameat2(int from, const void *path, int to, const void *newPath, unsigned int flags)',
);
const mknodCall = libc.func('int mknod(const char *path, unsigned int mode, unsigned long device)');
const utimensatCall = libc.func('int utimensat(int directory, const char *path, const void *times, int flags)');
const truncateCall = libc.func('int truncate(const char *path, int64_t size)');
const fallocateCall = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t size)');

const ERRNO_NAMES = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));
ERRNO_NAMES.set(95, 'EOPNOTSUPP');

function check(result: number): number {
  if (result >= 0) return result;
  const code = ERRNO_NAMES.get(koffi.errno()) ?? String(koffi.errno());
  throw Object.assign(new Error(code), { code });
}

export function setxattr(path: string, name: string, value: Buffer, flags = 0): void {
  check(setxattrCall(path, name, value, value.length, flags));
}

/** With a size of 0 the result is empty and only the length is asked for. */
export function getxattr(path: string, name: string, sizeBytes = 65536): Buffer {
  const value = Buffer.alloc(sizeBytes);
  const length = check(getxattrCall(path, name, value, sizeBytes));
  return sizeBytes === 0 ? Buffer.alloc(length) : value.subarray(0, length);
}

export function listxattr(path: string, sizeBytes = 65536): string[] {
  const list = Buffer.alloc(sizeBytes);
  const length = check(listxattrCall(path, list, sizeBytes));
  return list.toString('latin1', 0, length).split('\0').slice(0, -1);
}

export function removexattr(path: string, name: string): void {
  check(removexattrCall(path, name));
}

export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;

export function renameat2(from: string, to: string, flags: number): void {
  const cwd = -100;
  check(renameat2Call(cwd, Buffer.from(`${from}\0`), cwd, Buffer.from(`${to}\0`), flags));
}

export function mknod(path: string, mode: number, device: number): void {
  check(mknodCall(path, mode, device));
}

/** Sets both times to the nanosecond. */
export function utimens(path: string, atimeNs: bigint, mtimeNs: bigint): void {
  const times = Buffer.alloc(32);
  const second = 1_000_000_000n;
  [atimeNs, mtimeNs].forEach((timeNs, index) => {
    const nanoseconds = ((timeNs % second) + second) % second;
    times.writeBigInt64LE((timeNs - nanoseconds) / second, index * 16);
    times.writeBigInt64LE(nanoseconds, index * 16 + 8);
  });
  check(utimensatCall(-100, path, times, 0x100));
}

/** truncate(2) with a size that Node's own cannot express. */
export function truncate(path: string, sizeBytes: bigint): void {
  check(truncateCall(path, sizeBytes));
}

export function fallocate(fd: number, mode: number, offset: number, sizeBytes: number): void {
  check(fallocateCall(fd, mode, offset, sizeBytes));
}

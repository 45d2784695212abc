// The fuse-native package as this driver uses it: its types, and its faults that can be mended from outside.
// Only the process around it may load it.

import { createRequire } from 'node:module';

/** What a callback answers with: an errno below zero, or 0 or a count, then values. */
export type Reply = (result: number, ...values: unknown[]) => void;

/** Operations by their names in fuse-native; the last argument is the Reply. */
export type PackageOperations = Record<string, (...args: never[]) => void>;

/** One mount of the package. */
export interface PackageMount {
  mount(done: (error: Error | null) => void): void;
}

interface Internals extends PackageMount {
  _handlers: ((self: Buffer, opcode: number, ...args: unknown[]) => void)[];
  _op_utimens: (reply: Reply, path: string, ...times: number[]) => void;
  _op_getxattr: (reply: Reply, path: string, name: string, room: Buffer) => void;
  _op_listxattr: (reply: Reply, path: string, room: Buffer) => void;
}

type Constructor = new (mountPoint: string, operations: PackageOperations, options: object) => Internals;

/** Number of utimens in fuse-native.c. */
const OP_UTIMENS = 12;
/** Where fuse-native.c (x86-64) keeps the two times of a thread, in milliseconds. */
const ATIME_AT = 104;
const MTIME_AT = 112;
const ERANGE = 34;

/** Answers for the two operations whose sizes the package gets wrong. */
export interface XattrOperations {
  getxattr(path: string, name: string, done: (errno: number, value: Buffer) => void): void;
  listxattr(path: string, done: (errno: number, list: Buffer) => void): void;
}

/** Throws when the package or libfuse 2 is not there. */
export function loadPackage(): Constructor {
  return createRequire(import.meta.url)('fuse-native') as Constructor;
}

/** A mount without the package's own time limit: its late answers would touch a detached buffer. */
export function createMount(
  constructor: Constructor,
  mountPoint: string,
  operations: PackageOperations,
  xattrs: XattrOperations,
  words: readonly string[],
): PackageMount {
  // getxattr and listxattr only tell the package that they are offered
  const all = { ...operations, getxattr: () => undefined, listxattr: () => undefined };
  // the package has no option for most of libfuse's words: they ride on the name of the file system
  const mount = new constructor(mountPoint, all, { fsname: words.join(','), timeout: false });
  const original = mount._handlers[OP_UTIMENS];
  if (original === undefined) throw new Error('this version of fuse-native is not known');
  mount._handlers[OP_UTIMENS] = (self, opcode, path, low, high) => {
    original(self, opcode, path, low, high, ...mtimeOf(self, Number(low), Number(high)));
  };
  mount._op_getxattr = (reply, path, name, room) =>
    xattrs.getxattr(path, name, (errno, value) => fill(reply, room, errno, value));
  mount._op_listxattr = (reply, path, room) => xattrs.listxattr(path, (errno, list) => fill(reply, room, errno, list));
  return mount;
}

/** getxattr(2) and listxattr(2): no room asks for the size, too little is ERANGE. */
function fill(reply: Reply, room: Buffer, errno: number, value: Buffer): void {
  let result = errno === 0 ? value.length : -errno;
  if (result > 0 && room.length > 0) {
    if (value.length > room.length) result = -ERANGE;
    else value.copy(room);
  }
  reply(result, room.buffer);
}

/**
 * The package passes atime for both times. The right one lies beside it in the thread's own memory;
 * it is believed only when atime is found where it should be.
 */
function mtimeOf(self: Buffer, low: number, high: number): [number, number] {
  if (self.length < MTIME_AT + 8 || self.readUInt32LE(ATIME_AT) !== low || self.readUInt32LE(ATIME_AT + 4) !== high) {
    return [NaN, NaN];
  }
  return [self.readUInt32LE(MTIME_AT), self.readUInt32LE(MTIME_AT + 4)];
}

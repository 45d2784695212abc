// Numbers of the FUSE kernel protocol 7.45 (linux/fuse.h), all in host byte order, which is little-endian
// on every machine that this driver supports.

/** Protocol spoken; the kernel uses the smaller minor of both sides. */
export const FUSE_MAJOR = 7;
export const FUSE_MINOR = 39;
/** Oldest kernel protocol accepted: 7.31 is Linux 5.4. */
export const FUSE_MINOR_OLDEST = 31;

/** enum fuse_opcode. */
export const OP = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

const OPCODE_NAMES = new Map<number, string>(Object.entries(OP).map(([name, opcode]) => [opcode, name]));

/** Readable name of an opcode, for logs. */
export function opcodeName(opcode: number): string {
  return OPCODE_NAMES.get(opcode) ?? `opcode ${opcode}`;
}

/** struct fuse_in_header, 40 bytes: what every request starts with. */
export const IN_HEADER = { len: 0, opcode: 4, unique: 8, nodeid: 16, uid: 24, gid: 28, pid: 32, size: 40 } as const;

/** struct fuse_out_header, 16 bytes. */
export const OUT_HEADER = { len: 0, error: 4, unique: 8, size: 16 } as const;

/** struct fuse_init_in and fuse_init_out; the reply has 64 bytes since 7.23. */
export const INIT_IN = { major: 0, minor: 4, maxReadahead: 8, flags: 12, flags2: 16, sizeBefore736: 16 } as const;
export const INIT_OUT = {
  major: 0,
  minor: 4,
  maxReadahead: 8,
  flags: 12,
  maxBackground: 16,
  congestionThreshold: 18,
  maxWrite: 20,
  timeGran: 24,
  maxPages: 28,
  flags2: 32,
  size: 64,
} as const;

/** INIT flags, low word. */
export const INIT = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

/** INIT flags, high word (flags2; bit 0 is flag 32). */
export const INIT2 = {
  /** 7.39: shared mmap of files opened with DIRECT_IO. */
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
} as const;

/** struct fuse_attr, 88 bytes. */
export const ATTR = {
  ino: 0,
  size: 8,
  blocks: 16,
  atime: 24,
  mtime: 32,
  ctime: 40,
  atimensec: 48,
  mtimensec: 52,
  ctimensec: 56,
  mode: 60,
  nlink: 64,
  uid: 68,
  gid: 72,
  rdev: 76,
  blksize: 80,
  flags: 84,
  bytes: 88,
} as const;

/** struct fuse_entry_out: times, then fuse_attr at 40; 128 bytes. */
export const ENTRY_OUT = {
  nodeid: 0,
  generation: 8,
  entryValid: 16,
  attrValid: 24,
  entryValidNsec: 32,
  attrValidNsec: 36,
  attr: 40,
  size: 128,
} as const;

/** struct fuse_attr_out: 104 bytes. */
export const ATTR_OUT = { attrValid: 0, attrValidNsec: 8, dummy: 12, attr: 16, size: 104 } as const;

/** struct fuse_statx_out: validity, then struct fuse_statx at 32; 288 bytes. STATX_BASIC_STATS and STATX_BTIME are 0xfff. */
export const STATX_OUT = {
  attrValid: 0,
  attrValidNsec: 8,
  mask: 32,
  blksize: 36,
  nlink: 48,
  uid: 52,
  gid: 56,
  mode: 60,
  ino: 64,
  size: 72,
  blocks: 80,
  atime: 96,
  btime: 112,
  ctime: 128,
  mtime: 144,
  rdevMajor: 160,
  rdevMinor: 164,
  bytes: 288,
} as const;
export const STATX_BASIC_AND_BTIME = 0xfff;

/** struct fuse_setattr_in and its FATTR_ bits. */
export const SETATTR_IN = {
  valid: 0,
  size: 16,
  atime: 32,
  mtime: 40,
  ctime: 48,
  atimensec: 56,
  mtimensec: 60,
  ctimensec: 64,
  mode: 68,
  uid: 76,
  gid: 80,
  bytes: 88,
} as const;
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

/** Request bodies, offsets after the header. */
export const BATCH_FORGET_IN = { count: 0, first: 8, each: 16 } as const;
export const MKNOD_IN = { mode: 0, rdev: 4, umask: 8, size: 16 } as const;
export const MKDIR_IN = { mode: 0, umask: 4, size: 8 } as const;
export const RENAME_IN = { newdir: 0, size: 8 } as const;
export const RENAME2_IN = { newdir: 0, flags: 8, size: 16 } as const;
export const LINK_IN = { oldnodeid: 0, size: 8 } as const;
export const OPEN_IN = { flags: 0, openFlags: 4, size: 8 } as const;
export const CREATE_IN = { flags: 0, mode: 4, umask: 8, openFlags: 12, size: 16 } as const;
export const READ_IN = { fh: 0, offset: 8, size: 16, bytes: 40 } as const;
export const WRITE_IN = { fh: 0, offset: 8, size: 16, writeFlags: 20, bytes: 40 } as const;
export const RELEASE_IN = { fh: 0, bytes: 24 } as const;
export const FLUSH_IN = { fh: 0, bytes: 24 } as const;
export const FSYNC_IN = { fh: 0, fsyncFlags: 8, bytes: 16 } as const;
export const SETXATTR_IN = { size: 0, flags: 4, bytes: 8, extendedFlags: 8, bytesExtended: 16 } as const;
export const GETXATTR_IN = { size: 0, bytes: 8 } as const;
export const FALLOCATE_IN = { fh: 0, offset: 8, length: 16, mode: 24, bytes: 32 } as const;
export const LSEEK_IN = { fh: 0, offset: 8, whence: 16, bytes: 24 } as const;
export const COPY_FILE_RANGE_IN = {
  fhIn: 0,
  offsetIn: 8,
  nodeidOut: 16,
  fhOut: 24,
  offsetOut: 32,
  length: 40,
  flags: 48,
  bytes: 56,
} as const;
export const INTERRUPT_IN = { unique: 0, bytes: 8 } as const;

/** fuse_open_in.open_flags, fuse_write_in.write_flags, fuse_fsync_in.fsync_flags. */
export const OPEN_KILL_SUIDGID = 1 << 0;
export const WRITE_CACHE = 1 << 0;
export const WRITE_KILL_SUIDGID = 1 << 2;
export const FSYNC_DATA_ONLY = 1 << 0;
/** fuse_setxattr_in.setxattr_flags. */
export const SETXATTR_ACL_KILL_SGID = 1 << 0;
/** fuse_lseek_in.whence. */
export const SEEK = { DATA: 3, HOLE: 4 } as const;

/** struct fuse_open_out and its flags. */
export const OPEN_OUT = { fh: 0, openFlags: 8, size: 16 } as const;
export const FOPEN = { DIRECT_IO: 1 << 0, KEEP_CACHE: 1 << 1, CACHE_DIR: 1 << 3, NO_FLUSH: 1 << 5 } as const;

/** struct fuse_write_out, fuse_lseek_out, fuse_copy_file_range_out, fuse_getxattr_out, fuse_statfs_out. */
export const WRITE_OUT_BYTES = 8;
export const LSEEK_OUT_BYTES = 8;
export const COPY_FILE_RANGE_OUT_BYTES = 8;
export const GETXATTR_OUT_BYTES = 8;
export const STATFS_OUT = {
  blocks: 0,
  bfree: 8,
  bavail: 16,
  files: 24,
  ffree: 32,
  bsize: 40,
  namelen: 44,
  frsize: 48,
  size: 80,
} as const;

/** struct fuse_dirent; entries are padded to 8 bytes. */
export const DIRENT = { ino: 0, off: 8, namelen: 16, type: 20, name: 24 } as const;

/** enum fuse_notify_code, sent in the error field of a message with unique 0. */
export const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3 } as const;
export const NOTIFY_INVAL_INODE_OUT = { ino: 0, off: 8, len: 16, size: 24 } as const;
export const NOTIFY_INVAL_ENTRY_OUT = { parent: 0, namelen: 8, flags: 12, size: 16 } as const;

/** Open flags of fcntl.h (asm-generic, x86-64 and arm64 alike). */
export const O = { ACCMODE: 0o3, WRONLY: 0o1, RDWR: 0o2, TRUNC: 0o1000, APPEND: 0o2000 } as const;

/** Largest data of one read or write: 256 pages of 4 KiB. */
export const MAX_IO_BYTES = 1 << 20;
export const MAX_PAGES = 256;
/** Room for the header and the longest fixed body and names in front of the data. */
export const REQUEST_BUFFER_BYTES = MAX_IO_BYTES + 64 * 1024;

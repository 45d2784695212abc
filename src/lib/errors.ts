// The one error class of xcore, and the one place where its codes become errnos and exit codes.

/** Every condition that xcore reports; POSIX conditions carry the name of their errno. */
export type ErrorCode =
  // POSIX conditions, raised by the filesystem
  | 'EPERM'
  | 'ENOENT'
  | 'EIO'
  | 'EBADF'
  | 'EAGAIN'
  | 'EACCES'
  | 'EBUSY'
  | 'EEXIST'
  | 'EXDEV'
  | 'ENOTDIR'
  | 'EISDIR'
  | 'EINVAL'
  | 'EFBIG'
  | 'ENOSPC'
  | 'EROFS'
  | 'EMLINK'
  | 'ERANGE'
  | 'ENAMETOOLONG'
  | 'ENOSYS'
  | 'ENOTEMPTY'
  | 'ENODATA'
  | 'EOPNOTSUPP'
  | 'ESTALE'
  | 'EDQUOT'
  | 'E2BIG'
  | 'EINTR'
  | 'ENXIO'
  | 'ENOTSUP'
  // data
  | 'CORRUPT_RECORD' // a sealed record fails its check
  | 'REOPENING' // the index is being opened anew after a failed write; for a moment it cannot be read
  | 'CORRUPT_SHARD' // shard bytes do not match the shard id
  | 'NO_MIRROR' // no host could give the shard
  | 'BAD_FORMAT' // unknown version or malformed stored data
  // network
  | 'UNREACHABLE' // peer cannot be dialled, or the connection broke
  | 'TIMEOUT' // a deadline passed
  | 'PROTOCOL' // a peer sent something malformed or out of turn
  | 'REFUSED' // a peer refuses: bad order, bad signature, not allowed
  | 'TOO_LARGE' // a frame, shard or record is over its limit
  | 'NO_HOSTS' // not enough hosts for a placement
  | 'QUOTA' // volume quota is used up
  | 'NOT_FOUND' // bridge or host does not know this shard, volume or entry
  | 'STALE_HEAD' // compare-and-swap failed: the log has moved on
  | 'FORKED_LOG' // the bridge shows a log that does not descend from the one seen
  | 'LEASE_HELD' // another device writes this volume
  | 'LEASE_LOST' // this device's lease was taken over
  | 'HOST_FULL' // a host is at its space limit
  // program and machine
  | 'USAGE' // bad arguments
  | 'NO_IDENTITY' // no identity in this home: run xcore init
  | 'IDENTITY_EXISTS' // init would overwrite an identity
  | 'BAD_PHRASE' // not 24 valid words
  | 'BAD_PASSPHRASE' // keystore does not open with it
  | 'UNSAFE_MODE' // keystore or home readable by others
  | 'HOME_LOCKED' // another xcore process uses this home
  | 'FOREIGN_HOME' // the home belongs to another volume or user
  | 'MOUNT_BUSY' // the directory is already a mount point or is not empty
  | 'NOT_MOUNTED' // nothing of ours is mounted there
  | 'FUSE_MISSING' // /dev/fuse or fusermount3 cannot be used
  | 'CLOSED' // the object was stopped
  | 'ABORTED' // cancelled by the caller
  | 'INTERNAL'; // a defect of xcore itself

/** An expected failure with a code that callers and programs can rely on. */
export class XcoreError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string = code, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'XcoreError';
    this.code = code;
  }
}

/** Linux errno (positive) of each code; asm-generic/errno-base.h and errno.h. */
export const ERRNO: Record<ErrorCode, number> = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ENODATA: 61,
  EOPNOTSUPP: 95,
  ENOTSUP: 95,
  ESTALE: 116,
  EDQUOT: 122,
  CORRUPT_RECORD: 5,
  REOPENING: 5,
  CORRUPT_SHARD: 5,
  NO_MIRROR: 5,
  BAD_FORMAT: 5,
  UNREACHABLE: 5,
  TIMEOUT: 5,
  PROTOCOL: 5,
  REFUSED: 5,
  TOO_LARGE: 27,
  NO_HOSTS: 28,
  QUOTA: 122,
  NOT_FOUND: 5,
  STALE_HEAD: 5,
  FORKED_LOG: 5,
  LEASE_HELD: 30,
  LEASE_LOST: 30,
  HOST_FULL: 28,
  USAGE: 22,
  NO_IDENTITY: 5,
  IDENTITY_EXISTS: 17,
  BAD_PHRASE: 22,
  BAD_PASSPHRASE: 13,
  UNSAFE_MODE: 13,
  HOME_LOCKED: 16,
  FOREIGN_HOME: 1,
  MOUNT_BUSY: 16,
  NOT_MOUNTED: 22,
  FUSE_MISSING: 5,
  CLOSED: 5,
  ABORTED: 4,
  INTERNAL: 5,
};

/** Exit codes of the command line; documented in README, never renumbered. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  identity: 3,
  busy: 4,
  fuse: 5,
  network: 6,
  space: 7,
  data: 8,
} as const;

const EXIT_OF: Partial<Record<ErrorCode, number>> = {
  USAGE: EXIT.usage,
  EINVAL: EXIT.usage,
  NO_IDENTITY: EXIT.identity,
  IDENTITY_EXISTS: EXIT.identity,
  BAD_PHRASE: EXIT.identity,
  BAD_PASSPHRASE: EXIT.identity,
  UNSAFE_MODE: EXIT.identity,
  FOREIGN_HOME: EXIT.identity,
  HOME_LOCKED: EXIT.busy,
  MOUNT_BUSY: EXIT.busy,
  NOT_MOUNTED: EXIT.busy,
  EBUSY: EXIT.busy,
  LEASE_HELD: EXIT.busy,
  LEASE_LOST: EXIT.busy,
  FUSE_MISSING: EXIT.fuse,
  UNREACHABLE: EXIT.network,
  TIMEOUT: EXIT.network,
  PROTOCOL: EXIT.network,
  REFUSED: EXIT.network,
  NO_HOSTS: EXIT.network,
  NO_MIRROR: EXIT.network,
  ENOSPC: EXIT.space,
  EDQUOT: EXIT.space,
  QUOTA: EXIT.space,
  HOST_FULL: EXIT.space,
  CORRUPT_RECORD: EXIT.data,
  CORRUPT_SHARD: EXIT.data,
  BAD_FORMAT: EXIT.data,
  FORKED_LOG: EXIT.data,
};

/** The exit code for an error of any kind; unknown errors are 1. */
export function exitCodeOf(error: unknown): number {
  return error instanceof XcoreError ? (EXIT_OF[error.code] ?? EXIT.failure) : EXIT.failure;
}

/**
 * The positive errno for an error of any kind. Node's own system errors keep theirs (a full disk
 * stays ENOSPC); whatever is unknown is EIO.
 */
export function errnoOf(error: unknown): number {
  if (error instanceof XcoreError) return ERRNO[error.code];
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') {
    const errno = Math.abs(error.errno);
    if (errno > 0 && errno < 4096) return errno;
  }
  return ERRNO.EIO;
}

/** Whether an error is an XcoreError with one of these codes. */
export function hasCode(error: unknown, ...codes: ErrorCode[]): error is XcoreError {
  return error instanceof XcoreError && codes.includes(error.code);
}

/** Turns an unknown thrown value into an Error, keeping Errors as they are. */
export function asError(value: unknown): Error {
  return value instanceof Error ? value : new Error(String(value));
}

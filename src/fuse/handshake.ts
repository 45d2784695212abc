// The INIT request: what this driver asks of the kernel, and what both agree on.

import {
  FUSE_MAJOR,
  FUSE_MINOR,
  FUSE_MINOR_OLDEST,
  INIT,
  INIT2,
  INIT_IN,
  INIT_OUT,
  MAX_IO_BYTES,
  MAX_PAGES,
} from './abi.ts';
import type { ReplyWriter } from './reply.ts';
import type { Request } from './request.ts';

/** Requests that the kernel sends ahead (read-ahead, write-back), and where it begins to throttle. */
const MAX_BACKGROUND = 64;
const CONGESTION_THRESHOLD = 48;

/** Asked for on every mount. Locks stay in the kernel. */
const WANTED =
  INIT.ASYNC_READ |
  INIT.ATOMIC_O_TRUNC |
  INIT.BIG_WRITES |
  INIT.DONT_MASK |
  INIT.DO_READDIRPLUS |
  INIT.ASYNC_DIO |
  INIT.PARALLEL_DIROPS |
  INIT.POSIX_ACL |
  INIT.MAX_PAGES |
  INIT.CACHE_SYMLINKS |
  INIT.NO_OPENDIR_SUPPORT |
  INIT.EXPLICIT_INVAL_DATA |
  INIT.HANDLE_KILLPRIV_V2 |
  INIT.SETXATTR_EXT |
  INIT.INIT_EXT;
const WANTED2 = INIT2.DIRECT_IO_ALLOW_MMAP;

/** What the kernel offered, and what of it is used. */
export interface Agreement {
  readonly kernelMajor: number;
  readonly kernelMinor: number;
  readonly flags: number;
  readonly flags2: number;
}

/** Compares the kernel's offer with what is wanted. */
export function negotiate(request: Request, writebackCache: boolean): Agreement {
  const offered = request.u32(INIT_IN.flags);
  const extended = (offered & INIT.INIT_EXT) !== 0 && request.bodyBytes > INIT_IN.sizeBefore736;
  return {
    kernelMajor: request.u32(INIT_IN.major),
    kernelMinor: request.u32(INIT_IN.minor),
    flags: offered & (WANTED | (writebackCache ? INIT.WRITEBACK_CACHE : 0)),
    flags2: extended ? request.u32(INIT_IN.flags2) & WANTED2 : 0,
  };
}

/** Whether the kernel speaks a protocol that this driver knows. */
export function isSupported(agreement: Agreement): boolean {
  return agreement.kernelMajor > FUSE_MAJOR || agreement.kernelMinor >= FUSE_MINOR_OLDEST;
}

/** The kernel speaks a newer major version: it must come back with ours, told by this same reply. */
export function isTooNew(agreement: Agreement): boolean {
  return agreement.kernelMajor > FUSE_MAJOR;
}

/** Puts struct fuse_init_out. */
export function putAgreement(reply: ReplyWriter, agreement: Agreement): void {
  const out = reply.putStruct(INIT_OUT.size);
  out.writeUInt32LE(FUSE_MAJOR, INIT_OUT.major);
  out.writeUInt32LE(FUSE_MINOR, INIT_OUT.minor);
  out.writeUInt32LE(MAX_IO_BYTES, INIT_OUT.maxReadahead);
  out.writeUInt32LE(agreement.flags >>> 0, INIT_OUT.flags);
  out.writeUInt16LE(MAX_BACKGROUND, INIT_OUT.maxBackground);
  out.writeUInt16LE(CONGESTION_THRESHOLD, INIT_OUT.congestionThreshold);
  out.writeUInt32LE(MAX_IO_BYTES, INIT_OUT.maxWrite);
  out.writeUInt32LE(1, INIT_OUT.timeGran);
  out.writeUInt16LE(MAX_PAGES, INIT_OUT.maxPages);
  out.writeUInt32LE(agreement.flags2 >>> 0, INIT_OUT.flags2);
}

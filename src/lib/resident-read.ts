// Reads of files at once, without a thread in between: of bytes that the kernel has in memory, and of a disk that
// answers faster than another thread would. Knows no shards.

import koffi from 'koffi';
import { systemClock } from './clock.ts';
import type { Clock } from './clock.ts';

/** The same on all of Linux's architectures (linux/cachestat). */
const SYS_CACHESTAT = 451;
const PAGE_BYTES = 4096;
/** linux/fs.h: fail rather than wait for the disk. */
const RWF_NOWAIT = 8;
const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
/** Of one wait in the share of long ones. */
const WEIGHT = 0.1;
/** What a read by another thread costs besides the disk, and a little: what takes longer is a long wait. */
const LONG_WAIT_MS = 0.3;
/** A disk of which more waits than this are long is slow; fewer may well be those of a busy machine that stopped this thread. */
const MAX_LONG_SHARE = 0.5;
/** So many waits in a row, each longer than this, are a slow disk. */
const SLOW_IN_A_ROW = 3;
const SLOW_WAIT_MS = 1;
/** A disk that was slow is tried again after so long, and after twice as long each time that it still is. */
const SLOW_DISK_MS = 250;
const MAX_SLOW_DISK_MS = 60_000;
/** struct iovec. */
const VECTOR_BYTES = 16;

type Preadv2 = (fd: number, vectors: number, count: number, offset: number, flags: number) => number;
type Fadvise = ((fd: number, offset: number, sizeBytes: number, advice: number) => number) & {
  async: (...args: [number, number, number, number, (error: unknown, result: number) => void]) => void;
};

type Syscall = (number: number, fd: number, range: number, result: number, flags: number) => number;

function load<T>(prototype: string): T | null {
  try {
    return koffi.load(null).func(prototype) as unknown as T;
  } catch {
    return null; // a system without the call
  }
}

const preadv2 = load<Preadv2>('intptr_t preadv2(int fd, uintptr_t vectors, int count, int64_t offset, int flags)');
const fadvise = load<Fadvise>('int posix_fadvise(int fd, int64_t offset, int64_t sizeBytes, int advice)');

const syscall =
  process.platform === 'linux'
    ? load<Syscall>('long syscall(long number, long a, uintptr_t b, uintptr_t c, long d)')
    : null;

/** Memory that parts of files are read into, over what was there. */
export class ReadBuffer {
  readonly sizeBytes: number;
  readonly #memory: Buffer;
  readonly #vector = Buffer.alloc(VECTOR_BYTES);
  readonly #vectorAddress: number;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#memory = Buffer.allocUnsafeSlow(sizeBytes);
    this.#vector.writeBigUInt64LE(koffi.address(this.#memory), 0);
    this.#vectorAddress = Number(koffi.address(this.#vector));
  }

  /** `sizeBytes` of a file, lent until the next call; unless `wait`, null where some are not in the kernel's memory. */
  fill(fd: number, offset: number, sizeBytes: number, wait = false): Buffer | null {
    if (sizeBytes > this.sizeBytes) throw new RangeError(`${sizeBytes} bytes into ${this.sizeBytes}`);
    if (preadv2 === null) return null;
    this.#vector.writeUInt32LE(sizeBytes, 8);
    const isRead = preadv2(fd, this.#vectorAddress, 1, offset, wait ? 0 : RWF_NOWAIT) === sizeBytes;
    return isRead ? this.#memory.subarray(0, sizeBytes) : null;
  }
}

const vector = Buffer.alloc(VECTOR_BYTES);
const vectorAddress = Number(koffi.address(vector));

/** Fills memory from a file, or gives false where not all of the bytes are there: unless `wait`, in the kernel's memory; it then reads them. */
export function readResident(fd: number, target: Uint8Array, offset: number, wait = false): boolean {
  if (preadv2 === null || target.length === 0) return false;
  vector.writeBigUInt64LE(koffi.address(target), 0);
  vector.writeUInt32LE(target.length, 8);
  return preadv2(fd, vectorAddress, 1, offset, wait ? 0 : RWF_NOWAIT) === target.length;
}

// struct cachestat_range and struct cachestat of linux/mman.h
const range = Buffer.alloc(16);
const rangeAddress = Number(koffi.address(range));
const counts = Buffer.alloc(40);
const countsAddress = Number(koffi.address(counts));

/** Whether the kernel has most of the first `sizeBytes` of a file in memory; also where it does not say (Linux before 6.5). */
export function isResident(fd: number, sizeBytes: number): boolean {
  range.writeBigUInt64LE(BigInt(sizeBytes), 8);
  if (syscall === null || syscall(SYS_CACHESTAT, fd, rangeAddress, countsAddress, 0) !== 0) return true;
  return Number(counts.readBigUInt64LE(0)) * 2 * PAGE_BYTES > sizeBytes;
}

/** Says when to wait for the disk is better than to have a thread wait: for one call at a time, while the disk is fast. */
export class DiskPatience {
  readonly #clock: Pick<Clock, 'monotonicMs' | 'soon'>;
  #longShare = 0;
  #retryMs = 0;
  /** Until the next try, should the disk be slow. */
  #pauseMs = SLOW_DISK_MS;
  #slowInARow = 0;
  #isTrial = false;
  #hasWaited = false;
  readonly #turn = (): void => {
    this.#hasWaited = false;
  };

  constructor(clock: Pick<Clock, 'monotonicMs' | 'soon'> = systemClock) {
    this.#clock = clock;
  }

  /** Runs a call that may wait, if it is the first in this turn of the event loop; else null. */
  wait<T>(call: () => T | null): T | null {
    const startMs = this.#clock.monotonicMs();
    if (this.#hasWaited || startMs < this.#retryMs) return null;
    this.#hasWaited = true;
    this.#clock.soon(this.#turn);
    const seen = call();
    const endMs = this.#clock.monotonicMs();
    this.#judge(endMs - startMs, endMs);
    return seen;
  }

  #judge(tookMs: number, nowMs: number): void {
    this.#longShare += (Number(tookMs > LONG_WAIT_MS) - this.#longShare) * WEIGHT;
    this.#slowInARow = tookMs > SLOW_WAIT_MS ? this.#slowInARow + 1 : 0;
    const isSlow = this.#longShare > MAX_LONG_SHARE || this.#slowInARow >= SLOW_IN_A_ROW;
    if (isSlow || (this.#isTrial && tookMs > SLOW_WAIT_MS)) {
      this.#retryMs = nowMs + this.#pauseMs;
      this.#pauseMs = Math.min(this.#pauseMs * 2, MAX_SLOW_DISK_MS);
      this.#longShare = 0;
      this.#slowInARow = 0;
      this.#isTrial = true;
    } else if (this.#isTrial) {
      this.#isTrial = false;
    } else {
      this.#pauseMs = SLOW_DISK_MS;
    }
  }
}

/** Has the kernel read a part of a file ahead; the descriptor must stay open until this resolves. */
export function readAhead(fd: number, offset: number, sizeBytes: number): Promise<void> {
  return new Promise((resolve) => {
    if (fadvise === null) resolve();
    else fadvise.async(fd, offset, sizeBytes, POSIX_FADV_WILLNEED, () => resolve());
  });
}

/** Has the kernel give up what it has of a file in memory and on the disk; the descriptor must stay open until this resolves. */
export function forgetPages(fd: number): Promise<void> {
  return new Promise((resolve) => {
    if (fadvise === null) resolve();
    else fadvise.async(fd, 0, 0, POSIX_FADV_DONTNEED, () => resolve());
  });
}

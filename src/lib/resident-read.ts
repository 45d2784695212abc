// Reads of files at once, without a thread in between: of bytes that the kernel has in memory, and of a disk that
// answers faster than another thread would. Knows no shards.

import koffi from 'koffi';

/** linux/fs.h: fail rather than wait for the disk. */
const RWF_NOWAIT = 8;
const POSIX_FADV_WILLNEED = 3;
/** Of one read in the average of reads. */
const WEIGHT = 0.1;
/** What a read by another thread costs besides the disk, and a little. */
const MAX_WAIT_MS = 0.3;
/** A disk that was slower is tried again after so long. */
const SLOW_DISK_MS = 2_000;
/** struct iovec. */
const VECTOR_BYTES = 16;

type Preadv2 = (fd: number, vectors: number, count: number, offset: number, flags: number) => number;
type Fadvise = ((fd: number, offset: number, sizeBytes: number, advice: number) => number) & {
  async: (...args: [number, number, number, number, (error: unknown, result: number) => void]) => void;
};

function load<T>(prototype: string): T | null {
  try {
    return koffi.load(null).func(prototype) as unknown as T;
  } catch {
    return null; // a system without the call
  }
}

const preadv2 = load<Preadv2>('intptr_t preadv2(int fd, uintptr_t vectors, int count, int64_t offset, int flags)');
const fadvise = load<Fadvise>('int posix_fadvise(int fd, int64_t offset, int64_t sizeBytes, int advice)');

/** Equal places in memory, one behind the other, that files are read into; the bytes before each place are the owner's. */
export class ReadPlaces {
  readonly count: number;
  readonly #memory: Buffer;
  readonly #vectors: Buffer;
  readonly #vectorsAddress: number;
  readonly #strideBytes: number;
  readonly #gapBytes: number;
  readonly #placeBytes: number;

  /** `count` places of `placeBytes`, with `gapBytes` of zeros before each. */
  constructor(count: number, placeBytes: number, gapBytes: number) {
    this.count = count;
    this.#placeBytes = placeBytes;
    this.#gapBytes = gapBytes;
    this.#strideBytes = gapBytes + placeBytes;
    this.#memory = Buffer.allocUnsafeSlow(count * this.#strideBytes).fill(0);
    this.#vectors = Buffer.alloc(count * VECTOR_BYTES);
    const start = Number(koffi.address(this.#memory));
    for (let n = 0; n < count; n++) {
      this.#vectors.writeBigUInt64LE(BigInt(start + n * this.#strideBytes + gapBytes), n * VECTOR_BYTES);
    }
    this.#vectorsAddress = Number(koffi.address(this.#vectors));
  }

  /** The first `sizeBytes` of a place, with `before` bytes of the gap in front of it. */
  at(index: number, sizeBytes: number, before = 0): Buffer {
    const start = index * this.#strideBytes + this.#gapBytes;
    return this.#memory.subarray(start - before, start + sizeBytes);
  }

  /** Fills places in order with `sizeBytes` of a file; unless `wait`, false where some are not in the kernel's memory. */
  fill(fd: number, offset: number, sizeBytes: number, wait = false): boolean {
    if (preadv2 === null) return false;
    const count = Math.ceil(sizeBytes / this.#placeBytes);
    if (count > this.count) throw new RangeError(`${sizeBytes} bytes into ${this.count} places`);
    for (let n = 0, left = sizeBytes; n < count; n++, left -= this.#placeBytes) {
      this.#vectors.writeUInt32LE(Math.min(left, this.#placeBytes), n * VECTOR_BYTES + 8);
    }
    return preadv2(fd, this.#vectorsAddress, count, offset, wait ? 0 : RWF_NOWAIT) === sizeBytes;
  }
}

/** Says when to wait for the disk is better than to have a thread wait: for one read at a time, while the disk is fast. */
export class DiskPatience {
  readonly #nowMs: () => number;
  #averageMs = 0;
  #retryMs = 0;
  #hasWaited = false;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Runs a read that may wait, if it is the first in this turn of the event loop; else false. */
  wait(read: () => boolean): boolean {
    const startMs = this.#nowMs();
    if (this.#hasWaited || startMs < this.#retryMs) return false;
    this.#hasWaited = true;
    setImmediate(() => (this.#hasWaited = false));
    const isRead = read();
    const endMs = this.#nowMs();
    this.#averageMs += (endMs - startMs - this.#averageMs) * WEIGHT;
    if (this.#averageMs > MAX_WAIT_MS) {
      this.#averageMs = 0;
      this.#retryMs = endMs + SLOW_DISK_MS;
    }
    return isRead;
  }
}

/** Has the kernel read a part of a file ahead; the descriptor must stay open until this resolves. */
export function readAhead(fd: number, offset: number, sizeBytes: number): Promise<void> {
  return new Promise((resolve) => {
    if (fadvise === null) resolve();
    else fadvise.async(fd, offset, sizeBytes, POSIX_FADV_WILLNEED, () => resolve());
  });
}

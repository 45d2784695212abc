// Takes requests off the device as they come. Knows when to read and when to pause, nothing of what it reads.

import { REQUEST_BUFFER_BYTES } from './abi.ts';
import { allocate, readInto, watchReadable } from './native.ts';
import type { ReadinessWatch } from './native.ts';

const EINTR = 4;
const ENOENT = 2;
const EAGAIN = 11;
const ENODEV = 19;

/** Requests taken in one turn of the event loop: other work of the process comes in between. */
const BATCH = 32;
/** Turns of the event loop that an empty device is asked again before it is left to epoll. */
const SPINS = 12;

/** What the loop calls. */
export interface RequestSink {
  /** A request fills the first `sizeBytes` of the buffer, until this returns. */
  receive(buffer: Buffer, sizeBytes: number): void;
  /** The device gives no more requests; `errno` is ENODEV when the mount ended. */
  end(errno: number): void;
  /** A read failed in a way that concerns one request only. */
  fault(errno: number): void;
}

/** Reads the device from start() until stop() or the end of the mount. */
export class RequestLoop {
  readonly #fd: number;
  readonly #sink: RequestSink;
  readonly #memory = allocate(REQUEST_BUFFER_BYTES);
  readonly #watch: ReadinessWatch;
  #state: 'reading' | 'paused' | 'stopped' = 'paused';
  #scheduled = false;
  #spins = 0;

  constructor(fd: number, sink: RequestSink) {
    this.#fd = fd;
    this.#sink = sink;
    this.#watch = watchReadable(fd, this.#wake);
  }

  /** Starts or resumes reading. */
  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'reading';
    this.#watch.start(this.#wake);
    this.#wake();
  }

  /** Leaves requests to the kernel's queue for a while. */
  pause(): void {
    if (this.#state !== 'reading') return;
    this.#state = 'paused';
    this.#watch.stop();
  }

  /** Ends for good; the descriptor may be closed afterwards. */
  stop(): void {
    if (this.#state === 'stopped') return;
    this.#state = 'stopped';
    this.#watch.close();
  }

  readonly #wake = (): void => {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#drain);
  };

  readonly #drain = (): void => {
    this.#scheduled = false;
    const { buffer, address } = this.#memory;
    for (let taken = 0; taken < BATCH; taken++) {
      if (this.#state !== 'reading') return;
      const result = readInto(this.#fd, address, buffer.length);
      if (result > 0) {
        this.#spins = 0;
        this.#sink.receive(buffer, result);
      } else if (result === -EAGAIN) {
        if (this.#spins++ < SPINS) this.#wake();
        return;
      } else if (result === -ENODEV) {
        this.#finish(ENODEV);
        return;
      } else if (result !== -EINTR && result !== -ENOENT) {
        if (this.#isFatal(-result)) {
          this.#finish(-result);
          return;
        }
        this.#sink.fault(-result);
      }
    }
    this.#wake();
  };

  #isFatal(errno: number): boolean {
    // EIO and E2BIG are about one request that could not be handed over
    return errno !== 5 && errno !== 7;
  }

  #finish(errno: number): void {
    this.stop();
    this.#sink.end(errno);
  }
}

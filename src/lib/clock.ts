// The time, handed in, so that tests can move it. Monotonic and wall time are never mixed.

/** Something that happens later, unless it is cancelled. */
export interface Timer {
  cancel(): void;
  /** Waits the whole time again, also when the time is over. Not after cancel(). */
  restart(): void;
}

/** A source of time and of delays. */
export interface Clock {
  /** Wall time in milliseconds since 1970. */
  now(): number;
  /** Wall time in nanoseconds since 1970, as POSIX times are. */
  nowNs(): bigint;
  /** Milliseconds of a clock that never goes back; only differences mean something. */
  monotonicMs(): number;
  /** Resolves after at least `ms` milliseconds, or rejects with the signal's reason as soon as it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `run` once, after at least `ms` milliseconds. A timer in the background keeps no process alive. */
  after(ms: number, run: () => void, options?: { readonly background?: boolean }): Timer;
  /** Calls `run` once what is at hand has been done. */
  soon(run: () => void): void;
}

const NS_PER_MS = 1_000_000n;

/** Difference beyond which the wall clock must have been set, or has drifted from the fine one. */
const MAX_DRIFT_NS = 2n * NS_PER_MS;

/** Wall time less monotonic time: Date.now() alone has no digits below a millisecond. */
let wallOffsetNs = BigInt(Date.now()) * NS_PER_MS - process.hrtime.bigint();

/** The machine's own time. Nanoseconds follow the wall clock within two milliseconds, also when it is set. */
export const systemClock: Clock = {
  now: () => Date.now(),
  nowNs: () => {
    const monotonic = process.hrtime.bigint();
    const wall = BigInt(Date.now()) * NS_PER_MS;
    const drift = wallOffsetNs + monotonic - wall;
    if (drift > MAX_DRIFT_NS || drift < -MAX_DRIFT_NS) wallOffsetNs = wall - monotonic;
    return wallOffsetNs + monotonic;
  },
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
  after: (ms, run, options) => {
    const timer = setTimeout(run, ms);
    if (options?.background === true) timer.unref();
    return { cancel: () => clearTimeout(timer), restart: () => void timer.refresh() };
  },
  soon: (run) => void setImmediate(run),
};

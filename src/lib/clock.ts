// The time, handed in, so that tests can move it. Monotonic and wall time are never mixed.

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
}

const NS_PER_MS = 1_000_000n;

/** Wall time at process start, less the monotonic time then, so that nanoseconds have real digits. */
const wallOffsetNs = BigInt(Date.now()) * NS_PER_MS - process.hrtime.bigint();

/** The machine's own time. Nanoseconds follow the wall clock within a millisecond, also when it is set. */
export const systemClock: Clock = {
  now: () => Date.now(),
  nowNs: () => {
    const fine = wallOffsetNs + process.hrtime.bigint();
    const wall = BigInt(Date.now()) * NS_PER_MS;
    const drift = fine - wall;
    return drift >= 0n && drift < NS_PER_MS ? fine : wall + (fine % NS_PER_MS);
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
};

// A clock that stands still until a test moves it.

import type { Clock, Timer } from '../../src/lib/clock.ts';

const NS_PER_MS = 1_000_000n;

interface Sleeper {
  readonly untilMs: number;
  readonly wake: () => void;
}

/** Starts at the machine's time, or at `startMs`. */
export class FakeClock implements Clock {
  #nowMs: number;
  readonly #sleepers = new Set<Sleeper>();

  constructor(startMs: number = Date.now()) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  nowNs(): bigint {
    return BigInt(this.#nowMs) * NS_PER_MS;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason as Error);
      };
      const sleeper: Sleeper = {
        untilMs: this.#nowMs + ms,
        wake: () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#sleepers.add(sleeper);
    });
  }

  after(ms: number, run: () => void): Timer {
    const sleeper = { untilMs: this.#nowMs + ms, wake: run };
    this.#sleepers.add(sleeper);
    return {
      cancel: () => this.#sleepers.delete(sleeper),
      restart: () => {
        sleeper.untilMs = this.#nowMs + ms;
        this.#sleepers.add(sleeper);
      },
    };
  }

  soon(run: () => void): void {
    setImmediate(run);
  }

  /** Moves the time on and wakes whoever slept until then. */
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const sleeper of [...this.#sleepers]) {
      if (sleeper.untilMs > this.#nowMs) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
  }
}

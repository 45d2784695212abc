// The waiting of a loop between its steps: until something wakes it, but never so short that the steps take
// more than a share of the time, since each may cost as much as all that waits.

import type { Clock } from '../lib/clock.ts';

/** A step that took so long is followed by so many times as much of rest, whoever wakes ... */
const REST_PER_STEP = 4;
/** ... up to this. */
const MAX_REST_MS = 500;

/** The pace of one loop. */
export class Pace {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  #begunMs = 0;
  #nudged = false;
  #resting = false;
  #wake: (() => void) | null = null;

  /** `signal` ends every pause. */
  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock;
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
  }

  /** A step begins; what wakes from now on is for the next one. */
  begin(): void {
    this.#nudged = false;
    this.#begunMs = this.#clock.monotonicMs();
  }

  /** Wakes the loop, or lets its next pause be short. */
  nudge(): void {
    this.#nudged = true;
    if (!this.#resting) this.#wake?.();
  }

  /** Rests after a step, and then waits to be woken, `delayMs` in all at most. */
  async pause(delayMs: number): Promise<void> {
    const restMs = Math.min(delayMs, MAX_REST_MS, (this.#clock.monotonicMs() - this.#begunMs) * REST_PER_STEP);
    this.#resting = true;
    await this.#wait(restMs);
    this.#resting = false;
    if (!this.#nudged) await this.#wait(delayMs - restMs);
  }

  async #wait(ms: number): Promise<void> {
    if (ms <= 0 || this.#signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const timer = this.#clock.after(ms, () => resolve(undefined));
    this.#wake = () => resolve(undefined);
    await promise;
    this.#wake = null;
    timer.cancel();
  }
}

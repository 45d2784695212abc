// Ends a stream on which nothing moves, or whose caller has given up.

import type { Timer } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { abortError } from './failure.ts';
import type { FrameStream } from './frames.ts';

/** Watches one stream: aborted with TIMEOUT when nothing moves for a while, and when `signal` aborts. */
export class StallGuard {
  readonly #frames: FrameStream;
  readonly #signal: AbortSignal | undefined;
  #timer: Timer | null = null;
  readonly #onAbort = (): void => this.#frames.abort(abortError(this.#signal));

  constructor(frames: FrameStream, signal?: AbortSignal) {
    this.#frames = frames;
    this.#signal = signal;
    if (signal?.aborted) this.#onAbort();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** From now on, so many milliseconds may pass between two calls of moved(). */
  watch(timeoutMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#frames.clock.after(timeoutMs, () =>
      this.#frames.abort(new XcoreError('TIMEOUT', `nothing moved for ${timeoutMs / 1000} s`)),
    );
  }

  /** Something moved. */
  moved(): void {
    this.#timer?.restart();
  }

  /** Ends the watch. */
  release(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#signal?.removeEventListener('abort', this.#onAbort);
  }
}

// How many of something run at once.

import { XcoreError } from '../lib/errors.ts';
import { abortError } from './failure.ts';

/** Tasks that may wait for their turn; one more fails with EAGAIN. */
export const MAX_WAITING = 4_096;

/** Runs at most `max` tasks at once, in the order of asking. */
export class Limiter {
  readonly #max: number;
  #running = 0;
  readonly #waiting = new Set<() => void>();

  constructor(max: number) {
    if (!(max >= 1)) throw new RangeError('a limit is at least 1');
    this.#max = max;
  }

  /** Runs `task` in its turn; ABORTED (or as `signal` says) when it is cancelled while it waits. */
  async run<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#enter(signal);
    try {
      return await task();
    } finally {
      this.#leave();
    }
  }

  async #enter(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) throw abortError(signal);
    if (this.#running < this.#max) {
      this.#running += 1;
      return;
    }
    if (this.#waiting.size >= MAX_WAITING) throw new XcoreError('EAGAIN', 'too many transfers wait');
    const turn = Promise.withResolvers<void>();
    const enter = (): void => turn.resolve();
    const onAbort = (): void => {
      if (this.#waiting.delete(enter)) turn.reject(abortError(signal));
    };
    this.#waiting.add(enter);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await turn.promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #leave(): void {
    const [next] = this.#waiting;
    if (next) {
      this.#waiting.delete(next);
      next(); // takes over this place
    } else {
      this.#running -= 1;
    }
  }
}

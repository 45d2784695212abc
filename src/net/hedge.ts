// Several ways to the same thing: in order, the next one on failure, one more beside a slow one.

import { abortError } from './failure.ts';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';

/** One way; it must end soon after its signal aborts. */
export type Attempt<T> = (signal: AbortSignal) => Promise<T>;

/** What ends an attempt because another one was quicker. */
export class OutrunError extends XcoreError {
  constructor() {
    super('ABORTED', 'another mirror was faster');
  }
}

/** Attempts that run side by side at most. */
const MAX_SIDE_BY_SIDE = 2;

/**
 * The first success. Starts the next attempt when one fails, and one beside another that has not ended after
 * hedgeAfterMs. Losers are aborted and waited for. Rejects with the last failure when all have failed.
 */
export async function hedge<T>(
  attempts: readonly Attempt<T>[],
  options: { readonly hedgeAfterMs: number; readonly signal: AbortSignal; readonly clock?: Clock },
): Promise<T> {
  const { hedgeAfterMs, signal, clock = systemClock } = options;
  const running = new Map<number, AbortController>();
  const finished: Promise<void>[] = [];
  const outcome = Promise.withResolvers<T>();
  let next = 0;

  const timer = clock.after(hedgeAfterMs, () => {
    timer.restart();
    if (running.size < MAX_SIDE_BY_SIDE) start();
  });
  const onAbort = (): void => outcome.reject(abortError(signal));

  function start(): void {
    const number = next;
    const attempt = attempts[number];
    if (!attempt) return;
    next += 1;
    timer.restart();
    const controller = new AbortController();
    running.set(number, controller);
    finished.push(
      attempt(controller.signal).then(
        (value) => {
          running.delete(number);
          outcome.resolve(value);
        },
        (error: unknown) => {
          running.delete(number);
          if (running.size > 0) start();
          else if (next < attempts.length) start();
          else outcome.reject(error);
        },
      ),
    );
  }

  if (signal.aborted) onAbort();
  else start();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await outcome.promise;
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', onAbort);
    next = attempts.length;
    if (running.size > 0) {
      const reason = signal.aborted ? abortError(signal) : new OutrunError();
      for (const controller of running.values()) controller.abort(reason);
      await Promise.all(finished);
    }
  }
}

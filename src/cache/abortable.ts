// Waiting that whoever waits may give up. What is waited for goes on.

import { XcoreError } from '../lib/errors.ts';

/** A promise that also ends when a signal aborts: EINTR. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(new XcoreError('EINTR', 'the read was interrupted'));
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

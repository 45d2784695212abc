// Signals that end a wait.

import type { Clock } from './clock.ts';
import { XcoreError } from './errors.ts';

/** Aborted with TIMEOUT after so many milliseconds, or as soon as and with what one of the signals is. */
export function deadline(clock: Clock, ms: number, ...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const late = new AbortController();
  clock.after(ms, () => late.abort(new XcoreError('TIMEOUT', 'the deadline passed')), { background: true });
  const others = signals.filter((signal) => signal !== undefined);
  return others.length > 0 ? AbortSignal.any([...others, late.signal]) : late.signal;
}

// Reads and writes that wait for the filesystem, and what a signal to their caller does to them.

import { readFileSync } from 'node:fs';

/**
 * Signals that are meant to end what a process does: HUP, INT, QUIT, ABRT, KILL, TERM (signal(7)).
 * Others (a timer, a child's end, a profiler) must not break a read or write of a regular file.
 */
const ENDING_SIGNALS = [1, 2, 3, 6, 9, 15].reduce((mask, signal) => mask | (1n << BigInt(signal - 1)), 0n);
/** When to look again after a signal that does not end the request. */
const RETRY_MS = 100;

interface Waiting {
  readonly abort: AbortController;
  readonly pid: number;
  retry: NodeJS.Timeout | undefined;
}

/** What an interrupt means for a request. */
export type Verdict = 'ended' | 'unknown' | 'later';

/** The requests of one mount that may be interrupted, by number; bounded by the session's requests in flight. */
export class WaitingRequests {
  readonly #waiting = new Map<number, Waiting>();

  add(unique: number, pid: number, abort: AbortController): void {
    this.#waiting.set(unique, { abort, pid, retry: undefined });
  }

  /** False when it is not there any more: an interrupt has answered it. */
  remove(unique: number): boolean {
    clearTimeout(this.#waiting.get(unique)?.retry);
    return this.#waiting.delete(unique);
  }

  /**
   * The caller got a signal. 'ended': the request is removed and aborted, and wants its answer now.
   * 'later': the signal does not end it, and `askAgain` is called in a while if it still waits.
   */
  interrupt(unique: number, reason: Error, askAgain: () => void): Verdict {
    const request = this.#waiting.get(unique);
    if (request === undefined) return 'unknown';
    if (hasEndingSignal(request.pid)) {
      this.remove(unique);
      request.abort.abort(reason);
      return 'ended';
    }
    clearTimeout(request.retry);
    request.retry = setTimeout(askAgain, RETRY_MS);
    return 'later';
  }

  /** Aborts all of them. */
  abortAll(reason: Error): void {
    for (const [unique, request] of this.#waiting) {
      this.remove(unique);
      request.abort.abort(reason);
    }
  }
}

/** Whether a thread has a pending signal that ends; also true when the kernel does not show it to us. */
function hasEndingSignal(pid: number): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return true;
  }
  const pending = mask(status, 'SigPnd') | mask(status, 'ShdPnd');
  return (pending & ~mask(status, 'SigBlk') & ENDING_SIGNALS) !== 0n;
}

function mask(status: string, field: string): bigint {
  const digits = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
  return digits === undefined ? 0n : BigInt(`0x${digits}`);
}

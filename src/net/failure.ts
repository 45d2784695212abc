// Errors of the network: as they travel (an XcoreError keeps its code and message, anything else says
// only INTERNAL), and what libp2p's own mean.

import { asError, ERRNO, XcoreError } from '../lib/errors.ts';
import type { ErrorCode } from '../lib/errors.ts';

const MAX_MESSAGE_CHARACTERS = 512;

/** The body of a Failure message for an error of any kind. */
export function failureOf(error: unknown): { code: string; message: string } {
  if (!(error instanceof XcoreError)) return { code: 'INTERNAL', message: 'internal error' };
  return { code: error.code, message: error.message.slice(0, MAX_MESSAGE_CHARACTERS) };
}

/** The error that a peer's Failure stands for; a code that we do not know becomes INTERNAL. */
export function errorOf(failure: { code: string; message: string }): XcoreError {
  const known = Object.hasOwn(ERRNO, failure.code);
  // What a peer says may end up on a terminal.
  const message = failure.message.slice(0, MAX_MESSAGE_CHARACTERS).replace(/\p{Cc}/gu, '?');
  return new XcoreError(known ? (failure.code as ErrorCode) : 'INTERNAL', message || 'the peer gave no reason');
}

/** What an aborted signal means: TIMEOUT for a deadline, the XcoreError it was aborted with, else ABORTED. */
export function abortError(signal: AbortSignal | undefined): XcoreError {
  const reason: unknown = signal?.reason;
  if (reason instanceof XcoreError) return reason;
  if (reason instanceof Error && reason.name === 'TimeoutError') {
    return new XcoreError('TIMEOUT', 'the deadline passed', { cause: reason });
  }
  return new XcoreError('ABORTED', 'cancelled', { cause: reason });
}

/** Any failure of libp2p as an XcoreError; what is none of ours is UNREACHABLE. */
export function toNetworkError(error: unknown): XcoreError {
  if (error instanceof XcoreError) return error;
  const { name, message } = asError(error);
  if (name === 'TimeoutError') return new XcoreError('TIMEOUT', 'the deadline passed', { cause: error });
  if (name === 'UnsupportedProtocolError') {
    return new XcoreError('PROTOCOL', 'the peer does not speak this protocol', { cause: error });
  }
  return new XcoreError('UNREACHABLE', message || name, { cause: error });
}

/** Whether the peer is away or too slow, so that the same call may succeed later. */
export function isAway(error: XcoreError): boolean {
  return error.code === 'UNREACHABLE' || error.code === 'TIMEOUT';
}

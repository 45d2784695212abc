// What the two sides of the network's worker thread say to each other.

import { asError, XcoreError } from '../lib/errors.ts';
import type { ErrorCode } from '../lib/errors.ts';
import type { ClientNetworkOptions } from './client-network.ts';
import type { Network, NetworkEvents } from './network.ts';

/** Methods that cross as they are; start and stop are the thread's own, `on` becomes events. */
export type RemoteMethod = Exclude<keyof Network, 'start' | 'stop' | 'on'>;

/** Methods whose last argument is a signal, and that argument's place. */
export const SIGNAL_PLACE: Partial<Record<RemoteMethod, number>> = { upload: 1, fetchShard: 3, fetchLeaves: 4 };

/** What the thread is started with. */
export interface WorkerInput {
  readonly options: ClientNetworkOptions;
}

/** To the thread. */
export type WorkerRequest =
  | { readonly type: 'call'; readonly id: number; readonly method: RemoteMethod; readonly args: readonly unknown[] }
  | { readonly type: 'abort'; readonly id: number; readonly reason: SentError }
  | { readonly type: 'stop' };

/** From the thread. */
export type WorkerResponse =
  | { readonly type: 'started' }
  | { readonly type: 'unusable'; readonly error: SentError }
  | { readonly type: 'result'; readonly id: number; readonly value: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly error: SentError }
  | { readonly type: 'event'; readonly event: keyof NetworkEvents; readonly value: unknown }
  | { readonly type: 'stopped'; readonly error?: SentError };

/** An error as it crosses: structured clone would keep neither class nor code. */
export interface SentError {
  readonly code?: ErrorCode;
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
}

/** An error of any kind, to be sent. */
export function packError(value: unknown): SentError {
  const { name, message, stack } = asError(value);
  return value instanceof XcoreError ? { code: value.code, name, message, stack } : { name, message, stack };
}

/** The error that was sent, of its class and with its code. */
export function unpackError({ code, name, message, stack }: SentError): Error {
  if (code) return new XcoreError(code, message);
  const error = name === 'RangeError' ? new RangeError(message) : name === 'TypeError' ? new TypeError(message) : null;
  const result = error ?? new Error(message);
  if (stack !== undefined) result.stack = stack;
  return result;
}

// Calls over one kept stream of /xcore/bridge/1: many at once, matched by id, and events in between.
// Knows the envelope (BridgeRequest, BridgeResponse), not what the calls mean.

import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { abortError, errorOf, failureOf, toNetworkError } from './failure.ts';
import { FrameStream } from './frames.ts';
import type { FrameGuard } from './frames.ts';
import type { PeerName } from './network.ts';
import type { ByteStream } from './node.ts';
import { BRIDGE_FRAME_BYTES, CALL_TIMEOUT_MS, MAX_IN_FLIGHT, MAX_UNREAD_EVENT_BYTES } from './protocols.ts';
import { BridgeRequestSchema, BridgeResponseSchema } from './proto/wire_pb.ts';
import type { BridgeRequest, BridgeResponse } from './proto/wire_pb.ts';

/** What a request asks, as received: `{ case, value }`. */
export type RequestBody = Exclude<BridgeRequest['body'], { case: undefined }>;
/** What a request asks, as sent; message values may be plain objects. */
export type RequestInit = NonNullable<MessageInitShape<typeof BridgeRequestSchema>['body']> & { case: string };
/** An answer or event, as received. */
export type ResponseBody = Exclude<BridgeResponse['body'], { case: undefined }>;
/** An answer or event, as sent; message values may be plain objects. */
export type ResponseInit = NonNullable<MessageInitShape<typeof BridgeResponseSchema>['body']> & { case: string };
/** The value of an answer of one kind. */
export type ResponseValue<C extends ResponseBody['case']> = Extract<ResponseBody, { case: C }>['value'];

/** Bounds of one stream; absent ones are those of protocols.ts. Deadlines go by `clock`. */
export interface RpcLimits extends FrameGuard {
  readonly maxFrameBytes?: number;
  readonly maxInFlight?: number;
  readonly maxUnreadEventBytes?: number;
  readonly clock?: Clock;
}

/** Options of one call. */
export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

interface PendingCall {
  readonly resolve: (body: ResponseBody) => void;
  readonly reject: (error: XcoreError) => void;
}

/** The calling end of a stream. Once the stream breaks, every call fails with UNREACHABLE. */
export class RpcClient {
  readonly #frames: FrameStream;
  readonly #onEvent: (body: ResponseBody) => void;
  readonly #maxInFlight: number;
  readonly #pending = new Map<number, PendingCall>();
  readonly #reading: Promise<void>;
  #lastId = 0;
  /** Requests that the connection has not taken yet, also of calls that were given up. */
  #unsent = 0;
  #failure: XcoreError | null = null;

  constructor(stream: ByteStream, onEvent: (body: ResponseBody) => void = () => {}, limits: RpcLimits = {}) {
    this.#frames = new FrameStream(stream, limits.maxFrameBytes ?? BRIDGE_FRAME_BYTES, limits.clock);
    this.#onEvent = onEvent;
    this.#maxInFlight = limits.maxInFlight ?? MAX_IN_FLIGHT;
    this.#reading = this.#read();
  }

  /** Resolves when the stream has ended and every pending call has failed. */
  get closed(): Promise<void> {
    return this.#reading;
  }

  /** Calls and waits for an answer of one kind. The peer's Failure is thrown; TIMEOUT, UNREACHABLE, ABORTED, PROTOCOL; EAGAIN when too many calls wait. */
  async call<C extends ResponseBody['case']>(
    body: RequestInit,
    expected: C,
    options: CallOptions = {},
  ): Promise<ResponseValue<C>> {
    const { signal } = options;
    if (this.#failure) throw this.#failure;
    if (signal?.aborted) throw abortError(signal);
    if (Math.max(this.#pending.size, this.#unsent) >= this.#maxInFlight)
      throw new XcoreError('EAGAIN', 'too many calls wait for an answer');
    const id = this.#nextId();
    const { promise, resolve, reject } = Promise.withResolvers<ResponseBody>();
    this.#pending.set(id, { resolve, reject });
    const timeoutMs = options.timeoutMs ?? CALL_TIMEOUT_MS;
    const timer = this.#frames.clock.after(timeoutMs, () =>
      reject(new XcoreError('TIMEOUT', `no answer to ${body.case} within ${timeoutMs} ms`)),
    );
    const onAbort = (): void => reject(abortError(signal));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const message = toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id, body }));
      this.#unsent += 1;
      this.#frames
        .write(message)
        .catch((error: unknown) => reject(toNetworkError(error)))
        .finally(() => (this.#unsent -= 1));
      const answer = await promise;
      if (answer.case === 'failure') throw errorOf(answer.value);
      if (answer.case !== expected) {
        throw new XcoreError('PROTOCOL', `${body.case} was answered with ${answer.case}`);
      }
      return answer.value as ResponseValue<C>;
    } finally {
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
      this.#pending.delete(id);
    }
  }

  /** Ends the stream; pending calls fail with `error`. */
  async close(error = new XcoreError('CLOSED', 'the connection was closed')): Promise<void> {
    this.#fail(error);
    this.#frames.abort(error);
    await this.#reading;
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const frame = await this.#frames.read();
        if (!frame) break;
        this.#take(frame);
      }
      this.#fail(new XcoreError('UNREACHABLE', 'the peer ended the stream'));
    } catch (error) {
      this.#fail(toNetworkError(error));
    }
    this.#frames.abort(this.#failure ?? new XcoreError('CLOSED'));
  }

  #take(frame: Buffer): void {
    const { id, body } = decode(() => fromBinary(BridgeResponseSchema, frame));
    if (body.case === undefined || id > this.#lastId) throw new XcoreError('PROTOCOL', 'an answer to nothing');
    if (id === 0) this.#onEvent(body);
    else this.#pending.get(id)?.resolve(body); // one that is not pending came after its deadline
  }

  #nextId(): number {
    this.#lastId += 1;
    if (this.#lastId >= 2 ** 32) {
      const error = new XcoreError('UNREACHABLE', 'the stream has used up its ids');
      this.#frames.abort(error);
      throw error;
    }
    return this.#lastId;
  }

  #fail(error: XcoreError): void {
    this.#failure ??= error;
    for (const call of this.#pending.values()) call.reject(this.#failure);
  }
}

/** One caller's stream, as a handler sees it; the same object for all its requests. */
export interface RpcSession {
  readonly remotePeer: PeerName;
  /** Aborted when the stream ends. */
  readonly signal: AbortSignal;
  /** Sends an event (id 0). A caller that reads too slowly loses its stream, and false comes back. */
  push(event: ResponseInit): boolean;
  /** Takes messages up to the full limit from now on: the caller has said who it is. */
  widen(): void;
}

/** What comes with a request. */
export interface RpcContext {
  readonly remotePeer: PeerName;
  readonly session: RpcSession;
  /** Aborted when the stream ends. */
  readonly signal: AbortSignal;
}

/** Answers one request; an XcoreError travels to the caller, any other error becomes INTERNAL there. */
export type RpcHandler = (body: RequestBody, context: RpcContext) => Promise<ResponseInit>;

/** What a server may want to log: errors that the caller is told nothing about. */
export type InternalErrorListener = (error: Error, request: string) => void;

/** Serves one inbound stream until it ends; never rejects. Requests run side by side, up to maxInFlight, then reading waits. */
export async function serveRpc(
  stream: ByteStream,
  remotePeer: PeerName,
  handler: RpcHandler,
  limits: RpcLimits = {},
  onInternalError: InternalErrorListener = () => {},
): Promise<void> {
  const maxInFlight = limits.maxInFlight ?? MAX_IN_FLIGHT;
  const maxUnreadEventBytes = limits.maxUnreadEventBytes ?? MAX_UNREAD_EVENT_BYTES;
  const frames = new FrameStream(stream, limits.maxFrameBytes ?? BRIDGE_FRAME_BYTES, limits.clock, limits);
  const running = new Set<Promise<void>>();
  let unreadEventBytes = 0;

  const session: RpcSession = {
    remotePeer,
    signal: frames.signal,
    widen: () => frames.widen(),
    push(event) {
      const message = encode(0, event);
      if (unreadEventBytes + message.length > maxUnreadEventBytes) {
        frames.abort(new XcoreError('UNREACHABLE', 'the watcher is too slow'));
      }
      if (frames.signal.aborted) return false;
      unreadEventBytes += message.length;
      frames.write(message).then(
        () => (unreadEventBytes -= message.length),
        () => {},
      );
      return true;
    },
  };

  const answer = async (id: number, body: RequestBody): Promise<void> => {
    let message: Uint8Array;
    try {
      message = encode(id, await handler(body, { remotePeer, session, signal: frames.signal }));
    } catch (error) {
      if (!(error instanceof XcoreError)) onInternalError(asError(error), body.case);
      message = encode(id, { case: 'failure', value: failureOf(error) });
    }
    try {
      await frames.write(message);
    } catch (error) {
      if (!(error instanceof XcoreError) || error.code !== 'TOO_LARGE') return; // the stream is gone
      await frames.write(encode(id, { case: 'failure', value: failureOf(error) })).catch(() => {});
    }
  };

  try {
    for (;;) {
      if (running.size >= maxInFlight) await Promise.race(running);
      const frame = await frames.read();
      if (!frame) break;
      const { id, body } = decode(() => fromBinary(BridgeRequestSchema, frame));
      if (id === 0) throw new XcoreError('PROTOCOL', 'a request without an id');
      if (body.case === undefined) throw new XcoreError('PROTOCOL', 'an unknown request');
      const task: Promise<void> = answer(id, body).finally(() => running.delete(task));
      running.add(task);
    }
    await Promise.all(running);
    await frames.close();
  } catch (error) {
    frames.abort(toNetworkError(error));
    await Promise.all(running);
  }
}

function encode(id: number, body: ResponseInit): Uint8Array {
  return toBinary(BridgeResponseSchema, create(BridgeResponseSchema, { id, body }));
}

/** Runs a decoder; what it throws is the peer's fault. */
function decode<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed message', { cause: error });
  }
}

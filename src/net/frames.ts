// Frames over a libp2p stream.
// Knows nothing of what is inside a frame.

import { Uint8ArrayList } from 'uint8arraylist';
import { systemClock } from '../lib/clock.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { freeReceived } from '../lib/free-buffer.ts';
import { toNetworkError } from './failure.ts';
import {
  encodeFrame,
  encodePrefix,
  FrameDecoder,
  joinParts,
  MAX_COPIED_BYTES,
  MAX_PREFIX_BYTES,
} from './frame-codec.ts';
import type { ByteStream } from './node.ts';
import { StreamValve } from './stream-valve.ts';

/** Bytes received and not yet read, beyond which the sender is made to wait; at least one frame. */
const READ_AHEAD_BYTES = 1024 * 1024;
/** Bytes that wait for the connection, beyond which write() waits too. */
const MAX_UNSENT_BYTES = 512 * 1024;
/** How long an ended stream may linger until the other side has ended it too. */
const CLOSE_GRACE_MS = 2_000;

/** How a server guards itself against whoever opens a stream. */
export interface FrameGuard {
  /** Longest frame, and what is read ahead, until widen(). */
  readonly greetingBytes?: number | undefined;
  /** A frame that is waited for and has begun is whole after so long, or the stream ends. */
  readonly frameTimeoutMs?: number | undefined;
}

interface Reader {
  resolve: (frame: Uint8Array[] | null) => void;
  reject: (error: Error) => void;
}

/**
 * Frames on one libp2p stream: one reader at a time, any number of writers. A malformed or oversize frame ends
 * the stream, and every later call fails with PROTOCOL; a broken connection fails them with UNREACHABLE.
 */
export class FrameStream {
  /** What the stream's deadlines go by. */
  readonly clock: Clock;
  readonly #stream: ByteStream;
  readonly #valve: StreamValve;
  readonly #decoder: FrameDecoder;
  readonly #maxFrameBytes: number;
  #readAheadBytes: number;
  readonly #frameTimeoutMs: number | undefined;
  #late: Timer | null = null;
  #reader: Reader | null = null;
  #ended = false;
  #failure: XcoreError | null = null;
  #writing: Promise<void> = Promise.resolve();
  readonly #closed = Promise.withResolvers<void>();
  readonly #abort = new AbortController();

  constructor(stream: ByteStream, maxFrameBytes: number, clock: Clock = systemClock, guard: FrameGuard = {}) {
    this.clock = clock;
    this.#stream = stream;
    this.#valve = new StreamValve(stream);
    this.#maxFrameBytes = maxFrameBytes;
    this.#frameTimeoutMs = guard.frameTimeoutMs;
    this.#readAheadBytes = guard.greetingBytes ? 2 * guard.greetingBytes : readAheadFor(maxFrameBytes);
    this.#decoder = new FrameDecoder(guard.greetingBytes ?? maxFrameBytes);
    stream.addEventListener('message', (event) => this.#onData(event.data));
    stream.addEventListener('end', () => this.#onEnd());
    stream.addEventListener('close', (event) => this.#onClose(event.error));
    if (stream.readableEnded) this.#onEnd();
    if (stream.status !== 'open' && stream.status !== 'closing') this.#onClose(undefined);
  }

  /** Takes frames up to the full limit from now on. */
  widen(): void {
    this.#readAheadBytes = readAheadFor(this.#maxFrameBytes);
    this.#decoder.limitTo(this.#maxFrameBytes);
  }

  /** Resolves when the stream is closed both ways or broken. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Aborted when the stream is closed both ways or broken. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Bytes written that the connection has not taken yet. */
  get unsentBytes(): number {
    return this.#stream.writeBufferLength;
  }

  /** The next frame, or null when the other side has ended cleanly. */
  async read(): Promise<Buffer | null> {
    const parts = await this.#readParts();
    return parts && joinParts(parts);
  }

  /** Reads the next frame into `target` and returns its length, or null as read(). PROTOCOL for a frame that is longer. */
  async readInto(target: Uint8Array): Promise<number | null> {
    const parts = await this.#readParts();
    if (!parts) return null;
    let at = 0;
    for (const part of parts) {
      if (at + part.length > target.length) throw new XcoreError('PROTOCOL', 'more bytes than announced');
      target.set(part, at);
      at += part.length;
      freeReceived(part);
    }
    return at;
  }

  /** Sends a frame, or several that leave together, and resolves when the connection takes more. One over 64 KiB, or of several, is not copied: its bytes must not change until the other side has answered or the stream is of no more use. TOO_LARGE, before anything is sent, for one over the limit. */
  async write(...payloads: readonly Uint8Array[]): Promise<void> {
    if (payloads.some(({ length }) => length > this.#maxFrameBytes)) {
      throw new XcoreError('TOO_LARGE', `a frame has at most ${this.#maxFrameBytes} bytes`);
    }
    const turn = this.#writing.then(() => this.#send(payloads));
    this.#writing = turn.catch(() => {});
    return turn;
  }

  /** Ends this side once all that was written is sent. The stream is reset if the other side does not end too. */
  async close(): Promise<void> {
    const late = (): void => this.abort(new XcoreError('TIMEOUT', 'the stream did not end'));
    const grace = this.clock.after(CLOSE_GRACE_MS, late);
    void this.#closed.promise.then(() => grace.cancel());
    try {
      await this.#stream.close();
    } catch (error) {
      this.abort(toNetworkError(error));
    }
  }

  /** Ends both sides at once; waiting calls fail with `error`. */
  abort(error: XcoreError): void {
    this.#fail(error);
    this.#stream.abort(error);
  }

  async #readParts(): Promise<Uint8Array[] | null> {
    if (this.#reader) throw new TypeError('a frame stream has one reader');
    if (this.#failure) throw this.#failure;
    let frame = this.#cut();
    if (this.#valve.isShut && this.#decoder.pendingBytes <= this.#readAheadBytes / 2) {
      this.#valve.open();
      frame ??= this.#cut();
    }
    if (frame) return frame;
    if (this.#ended) return this.#finish();
    const waiting = Promise.withResolvers<Uint8Array[] | null>();
    this.#reader = waiting;
    this.#watchFrame();
    return waiting.promise;
  }

  /** A frame that has begun must end. */
  #watchFrame(): void {
    if (this.#frameTimeoutMs === undefined || this.#late || this.#decoder.pendingBytes === 0) return;
    this.#late = this.clock.after(
      this.#frameTimeoutMs,
      () => this.abort(new XcoreError('TIMEOUT', 'a frame has begun and does not end')),
      { background: true },
    );
  }

  async #send(payloads: readonly Uint8Array[]): Promise<void> {
    if (this.#failure) throw this.#failure;
    try {
      this.#stream.send(encodeFrames(payloads));
      while (this.#stream.writeBufferLength > MAX_UNSENT_BYTES) await this.#drain();
    } catch (error) {
      // Part of a frame may be queued: the stream is of no more use.
      const failure = this.#failure ?? toNetworkError(error);
      this.abort(failure);
      throw failure;
    }
  }

  /** The next moment at which bytes may have left. The stream's own onDrain() answers only once. */
  async #drain(): Promise<void> {
    const moved = Promise.withResolvers<void>();
    const onMove = (): void => moved.resolve();
    const onClose = (): void => moved.reject(this.#failure ?? new XcoreError('UNREACHABLE', 'the stream is closed'));
    if (this.#abort.signal.aborted) onClose();
    this.#stream.addEventListener('drain', onMove);
    this.#stream.addEventListener('idle', onMove);
    this.#abort.signal.addEventListener('abort', onClose);
    try {
      await moved.promise;
    } finally {
      this.#stream.removeEventListener('drain', onMove);
      this.#stream.removeEventListener('idle', onMove);
      this.#abort.signal.removeEventListener('abort', onClose);
    }
  }

  #onData(data: Uint8Array | Iterable<Uint8Array>): void {
    if (this.#failure) return;
    for (const part of data instanceof Uint8Array ? [data] : data) this.#decoder.push(part);
    if (this.#reader) {
      try {
        const frame = this.#cut();
        if (frame) this.#settle(frame);
        else this.#watchFrame();
      } catch {
        return; // the reader has been told
      }
    }
    if (this.#decoder.pendingBytes > this.#readAheadBytes) this.#valve.shut();
  }

  /** The next frame that is already here; a malformed one ends the stream. */
  #cut(): Uint8Array[] | null {
    try {
      return this.#decoder.nextParts();
    } catch (error) {
      const failure = new XcoreError('PROTOCOL', asError(error).message, { cause: error });
      this.abort(failure);
      throw failure;
    }
  }

  #settle(frame: Uint8Array[] | null): void {
    this.#late?.cancel();
    this.#late = null;
    this.#reader?.resolve(frame);
    this.#reader = null;
  }

  #finish(): null {
    if (this.#decoder.pendingBytes === 0) return null;
    const error = new XcoreError('UNREACHABLE', 'the stream ended inside a frame');
    this.#fail(error);
    throw error;
  }

  #onEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (!this.#reader) return;
    if (this.#decoder.pendingBytes > 0) {
      this.#fail(new XcoreError('UNREACHABLE', 'the stream ended inside a frame'));
    } else {
      this.#settle(null);
    }
  }

  #onClose(error: Error | undefined): void {
    if (error) this.#fail(toNetworkError(error));
    else if (!this.#valve.isShut) this.#onEnd();
    this.#abort.abort(this.#failure ?? new XcoreError('UNREACHABLE', 'the stream is closed'));
    this.#closed.resolve();
  }

  #fail(error: XcoreError): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#late?.cancel();
    this.#reader?.reject(error);
    this.#reader = null;
  }
}

function encodeFrames(payloads: readonly Uint8Array[]): Uint8Array | Uint8ArrayList {
  const [only] = payloads;
  if (only && payloads.length === 1 && only.length <= MAX_COPIED_BYTES) return encodeFrame(only);
  return new Uint8ArrayList(...payloads.flatMap((payload) => [encodePrefix(payload.length), payload]));
}

function readAheadFor(maxFrameBytes: number): number {
  return Math.max(READ_AHEAD_BYTES, 2 * (maxFrameBytes + MAX_PREFIX_BYTES));
}

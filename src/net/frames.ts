// Length-prefixed frames over a libp2p stream: an unsigned LEB128 length, then so many bytes.
// Knows nothing of what is inside a frame.

import type { Stream } from '@libp2p/interface';
import { asError, XcoreError } from '../lib/errors.ts';
import { toNetworkError } from './failure.ts';

const MAX_PREFIX_BYTES = 4;
/** Bytes received and not yet read, beyond which the sender is made to wait; at least one frame. */
const READ_AHEAD_BYTES = 1024 * 1024;
/** Frames up to this length are copied out of the network's buffers. */
const MAX_COPIED_BYTES = 64 * 1024;
/** Bytes that wait for the connection, beyond which write() waits too. */
const MAX_UNSENT_BYTES = 512 * 1024;
/** How long an ended stream may linger until the other side has ended it too. */
const CLOSE_GRACE_MS = 2_000;

/** One frame, ready to be sent; empty ones do not exist. */
export function encodeFrame(payload: Uint8Array): Buffer {
  if (payload.length === 0) throw new RangeError('empty frame');
  let prefixBytes = 1;
  for (let rest = payload.length >>> 7; rest > 0; rest >>>= 7) prefixBytes += 1;
  if (prefixBytes > MAX_PREFIX_BYTES) throw new RangeError('frame too long');
  const frame = Buffer.allocUnsafe(prefixBytes + payload.length);
  let rest = payload.length;
  for (let at = 0; at < prefixBytes; at++) {
    frame[at] = (rest & 0x7f) | (at < prefixBytes - 1 ? 0x80 : 0);
    rest >>>= 7;
  }
  frame.set(payload, prefixBytes);
  return frame;
}

/** Cuts a byte stream into frames, one at a time and only when asked. */
export class FrameDecoder {
  readonly #maxFrameBytes: number;
  #parts: Uint8Array[] = [];
  #pendingBytes = 0;
  /** Length of the frame that comes next, or -1 while its prefix is incomplete. */
  #length = -1;

  constructor(maxFrameBytes: number) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Bytes pushed and not yet returned in a frame. */
  get pendingBytes(): number {
    return this.#pendingBytes + (this.#length >= 0 ? 1 : 0);
  }

  /** Adds bytes, which are kept, not copied. */
  push(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#parts.push(data);
    this.#pendingBytes += data.length;
  }

  /** The next whole frame, which may share memory with what was pushed, or null. PROTOCOL for a malformed length or an empty frame, TOO_LARGE for one over the limit. */
  next(): Buffer | null {
    if (this.#length < 0 && !this.#takePrefix()) return null;
    if (this.#pendingBytes < this.#length) return null;
    const frame = this.#take(this.#length);
    this.#length = -1;
    return frame;
  }

  #takePrefix(): boolean {
    let length = 0;
    let at = 0;
    for (const part of this.#parts) {
      for (const byte of part.subarray(0, MAX_PREFIX_BYTES)) {
        length |= (byte & 0x7f) << (7 * at);
        at += 1;
        if (byte < 0x80) {
          if (byte === 0) throw new XcoreError('PROTOCOL', 'malformed frame length');
          if (length > this.#maxFrameBytes) {
            throw new XcoreError('TOO_LARGE', `a frame of ${length} bytes is over the limit of ${this.#maxFrameBytes}`);
          }
          this.#take(at);
          this.#length = length;
          return true;
        }
        if (at === MAX_PREFIX_BYTES) throw new XcoreError('PROTOCOL', 'malformed frame length');
      }
    }
    return false;
  }

  #take(sizeBytes: number): Buffer {
    const taken: Uint8Array[] = [];
    let missing = sizeBytes;
    let used = 0;
    while (missing > 0) {
      const part = this.#parts[used] as Uint8Array;
      if (part.length <= missing) {
        taken.push(part);
        used += 1;
      } else {
        taken.push(part.subarray(0, missing));
        this.#parts[used] = part.subarray(missing);
      }
      missing -= taken[taken.length - 1]?.length ?? 0;
    }
    this.#parts.splice(0, used);
    this.#pendingBytes -= sizeBytes;
    const [only] = taken;
    // A small frame is copied: who keeps a part of it must not keep a whole network buffer alive.
    if (only && taken.length === 1 && sizeBytes > MAX_COPIED_BYTES) {
      return Buffer.from(only.buffer, only.byteOffset, only.byteLength);
    }
    return Buffer.concat(taken, sizeBytes);
  }
}

interface Reader {
  resolve: (frame: Buffer | null) => void;
  reject: (error: Error) => void;
}

/**
 * Frames on one libp2p stream: one reader at a time, any number of writers. A malformed or oversize frame ends
 * the stream, and every later call fails with PROTOCOL; a broken connection fails them with UNREACHABLE.
 */
export class FrameStream {
  readonly #stream: Stream;
  readonly #decoder: FrameDecoder;
  readonly #maxFrameBytes: number;
  readonly #readAheadBytes: number;
  #reader: Reader | null = null;
  #paused = false;
  #ended = false;
  #failure: XcoreError | null = null;
  #writing: Promise<void> = Promise.resolve();
  readonly #closed = Promise.withResolvers<void>();
  readonly #abort = new AbortController();

  constructor(stream: Stream, maxFrameBytes: number) {
    this.#stream = stream;
    this.#maxFrameBytes = maxFrameBytes;
    this.#readAheadBytes = Math.max(READ_AHEAD_BYTES, 2 * (maxFrameBytes + MAX_PREFIX_BYTES));
    this.#decoder = new FrameDecoder(maxFrameBytes);
    stream.addEventListener('message', (event) => this.#onData(event.data));
    stream.addEventListener('end', () => this.#onEnd());
    stream.addEventListener('close', (event) => this.#onClose(event.error));
    if (stream.readableEnded) this.#onEnd();
    if (stream.status !== 'open' && stream.status !== 'closing') this.#onClose(undefined);
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
    if (this.#reader) throw new TypeError('a frame stream has one reader');
    if (this.#failure) throw this.#failure;
    let frame = this.#cut();
    if (this.#paused && this.#decoder.pendingBytes <= this.#readAheadBytes / 2) {
      this.#resume();
      frame ??= this.#cut();
    }
    if (frame) return frame;
    if (this.#ended) return this.#finish();
    const waiting = Promise.withResolvers<Buffer | null>();
    this.#reader = waiting;
    return waiting.promise;
  }

  /** Sends one frame and resolves when the connection takes more. TOO_LARGE, before anything is sent, for one over the limit. */
  async write(payload: Uint8Array): Promise<void> {
    if (payload.length > this.#maxFrameBytes) {
      throw new XcoreError('TOO_LARGE', `a frame has at most ${this.#maxFrameBytes} bytes`);
    }
    const turn = this.#writing.then(() => this.#send(payload));
    this.#writing = turn.catch(() => {});
    return turn;
  }

  /** Ends this side once all that was written is sent. The stream is reset if the other side does not end too. */
  async close(): Promise<void> {
    const grace = setTimeout(() => this.abort(new XcoreError('TIMEOUT', 'the stream did not end')), CLOSE_GRACE_MS);
    void this.#closed.promise.then(() => clearTimeout(grace));
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

  async #send(payload: Uint8Array): Promise<void> {
    if (this.#failure) throw this.#failure;
    try {
      this.#stream.send(encodeFrame(payload));
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
      } catch {
        return; // the reader has been told
      }
    }
    if (!this.#paused && this.#decoder.pendingBytes > this.#readAheadBytes) this.#pause();
  }

  /** The next frame that is already here; a malformed one ends the stream. */
  #cut(): Buffer | null {
    try {
      return this.#decoder.next();
    } catch (error) {
      const failure = new XcoreError('PROTOCOL', asError(error).message, { cause: error });
      this.abort(failure);
      throw failure;
    }
  }

  #settle(frame: Buffer | null): void {
    this.#reader?.resolve(frame);
    this.#reader = null;
  }

  #finish(): null {
    if (this.#decoder.pendingBytes === 0) return null;
    const error = new XcoreError('UNREACHABLE', 'the stream ended inside a frame');
    this.#fail(error);
    throw error;
  }

  #pause(): void {
    this.#paused = true;
    try {
      this.#stream.pause();
    } catch {
      // The readable end is closing: nothing more comes.
    }
  }

  #resume(): void {
    this.#paused = false;
    try {
      this.#stream.resume();
    } catch {
      // The readable end is closed; its 'end' event settles the reader.
    }
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
    else if (!this.#paused) this.#onEnd();
    this.#abort.abort(this.#failure ?? new XcoreError('UNREACHABLE', 'the stream is closed'));
    this.#closed.resolve();
  }

  #fail(error: XcoreError): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#reader?.reject(error);
    this.#reader = null;
  }
}

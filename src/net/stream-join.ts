// Hands what comes on one stream to another, and back, no faster than each of them takes it.
// Knows nothing of relays.

import type { Stream } from '@libp2p/interface';
import { asError, XcoreError } from '../lib/errors.ts';
import { StreamValve } from './stream-valve.ts';

/** What joining uses of a stream. */
export type JoinedStream = Pick<
  Stream,
  | 'addEventListener'
  | 'status'
  | 'readableEnded'
  | 'writeBufferLength'
  | 'writableNeedsDrain'
  | 'send'
  | 'pause'
  | 'resume'
  | 'close'
  | 'abort'
>;

/**
 * Two streams that are one from now on. Each holds at most a receive window that the other has not taken yet, and as
 * much that its peer has not: a sender that is quicker waits for its window.
 */
export class StreamJoin {
  readonly #streams: readonly [JoinedStream, JoinedStream];
  /** Resolves once both streams are closed; never rejects. */
  readonly ended: Promise<void>;
  #left: number;

  /** Both are ended with TOO_LARGE after so many bytes, both ways together. */
  constructor(one: JoinedStream, other: JoinedStream, maxBytes: number) {
    this.#streams = [one, other];
    this.#left = maxBytes;
    this.ended = Promise.all(this.#streams.map(closed)).then(() => {});
    this.#handOn(one, other);
    this.#handOn(other, one);
  }

  /** Ends both streams. */
  abort(error: Error): void {
    for (const stream of this.#streams) stream.abort(error);
  }

  #handOn(from: JoinedStream, to: JoinedStream): void {
    const valve = new StreamValve(from);
    const onTaken = (): void => {
      if (to.writeBufferLength === 0 && !to.writableNeedsDrain) valve.open();
    };
    // Both come while the stream is still at it: what is sent then would be left lying.
    const soon = (): void => queueMicrotask(onTaken);
    to.addEventListener('drain', soon);
    to.addEventListener('idle', soon);

    from.addEventListener('message', ({ data }) => {
      this.#left -= data.byteLength;
      if (this.#left < 0) {
        this.abort(new XcoreError('TOO_LARGE', 'a relayed connection may carry no more'));
        return;
      }
      try {
        if (!to.send(data)) valve.shut();
      } catch (error) {
        this.abort(asError(error));
      }
    });
    from.addEventListener('close', ({ error }) => {
      if (error) to.abort(error);
    });
    const onEnd = (): void => {
      // One that breaks ends first, and closes then.
      if (from.status !== 'reset' && from.status !== 'aborted') void this.#finish(from, to);
    };
    if (from.readableEnded) onEnd();
    else from.addEventListener('end', onEnd, { once: true });
  }

  /** Never rejects. */
  async #finish(from: JoinedStream, to: JoinedStream): Promise<void> {
    try {
      await to.close();
      await closed(from);
      // It was the connection that ended, not the other one: nothing more can be handed back.
      if (!to.readableEnded) to.abort(new XcoreError('UNREACHABLE', 'the other end is gone'));
    } catch (error) {
      this.abort(asError(error));
    }
  }
}

function closed(stream: JoinedStream): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (stream.status === 'open' || stream.status === 'closing') {
    stream.addEventListener('close', () => resolve(), { once: true });
  } else {
    resolve();
  }
  return promise;
}

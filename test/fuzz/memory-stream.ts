// Two ends of a stream in this process, as the servers know streams: what one end sends, the other gets a moment later.

import type { Stream } from '@libp2p/interface';
import type { Uint8ArrayList } from 'uint8arraylist';
import type { ByteStream } from '../../src/net/node.ts';

type Data = Uint8Array | Uint8ArrayList;

/** The end that a server has, and what a peer does at the other one. */
export class MemoryStream extends EventTarget {
  status: Stream['status'] = 'open';
  readableEnded = false;
  writeBufferLength = 0;
  /** What the server sent. */
  readonly received: Buffer[] = [];
  #paused = false;
  #waiting: Uint8Array[] = [];
  #isEnding = false;

  /** The server's end. */
  get served(): ByteStream {
    return this;
  }

  /** The peer sends bytes. */
  deliver(data: Uint8Array): void {
    if (this.status !== 'open') return;
    if (this.#paused) this.#waiting.push(data);
    else this.dispatchEvent(Object.assign(new Event('message'), { data }));
  }

  /** The peer sends no more. */
  end(): void {
    this.#isEnding = true;
    if (this.#paused || this.readableEnded) return;
    this.readableEnded = true;
    this.dispatchEvent(new Event('end'));
  }

  /** The peer breaks the stream. */
  reset(): void {
    this.#finish(new Error('reset'));
  }

  send(data: Data): boolean {
    if (this.status !== 'open') throw new Error('the stream is closed');
    this.received.push(Buffer.from(data instanceof Uint8Array ? data : data.subarray()));
    return true;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    for (const data of this.#waiting.splice(0)) this.deliver(data);
    if (this.#isEnding) this.end();
  }

  async close(): Promise<void> {
    this.#finish(undefined);
  }

  abort(error: Error): void {
    this.#finish(error);
  }

  #finish(error: Error | undefined): void {
    if (this.status !== 'open') return;
    this.status = error ? 'aborted' : 'closed';
    this.#waiting = [];
    this.dispatchEvent(Object.assign(new Event('close'), { error }));
  }
}

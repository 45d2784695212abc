// Pausing and resuming of one stream. Knows not why.

import type { Stream } from '@libp2p/interface';

/** Lets a stream's messages through or holds them, and its sender with them; open at first. */
export class StreamValve {
  readonly #stream: Pick<Stream, 'pause' | 'resume'>;
  #isShut = false;
  #isOpening = false;

  constructor(stream: Pick<Stream, 'pause' | 'resume'>) {
    this.#stream = stream;
  }

  get isShut(): boolean {
    return this.#isShut;
  }

  /** No messages from now on. */
  shut(): void {
    if (this.#isShut) return;
    this.#isShut = true;
    // A stream that is paused while it resumes lets its sender go on all the same, until it overflows.
    if (!this.#isOpening) this.#pause();
  }

  /** Messages again, what was held at once; they may shut it. */
  open(): void {
    if (!this.#isShut || this.#isOpening) return;
    this.#isShut = false;
    this.#isOpening = true;
    try {
      this.#stream.resume();
    } catch {
      // Its readable end is closed: what it held has been given.
    } finally {
      this.#isOpening = false;
    }
    if (this.isShut) this.#pause();
  }

  #pause(): void {
    try {
      this.#stream.pause();
    } catch {
      // Its readable end is closed: nothing more comes.
    }
  }
}

// How long to wait before the next try.

const FIRST_DELAY_MS = 200;
const MAX_DELAY_MS = 10_000;

/** Delays that double from 0.2 s to 10 s, each shortened by up to half at random so that peers do not return in step. */
export class BackOff {
  readonly #random: () => number;
  #tries = 0;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The next delay in milliseconds. */
  nextMs(): number {
    const fullMs = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(this.#tries, 16));
    this.#tries += 1;
    return Math.round(fullMs * (1 - this.#random() / 2));
  }

  /** Starts again from the shortest delay. */
  reset(): void {
    this.#tries = 0;
  }
}

// What went wrong lately, for `xcore status`.

import type { Problem } from './network.ts';

const MAX_PROBLEMS = 100;

/** The last 100 different problems; one that comes again moves to the end with its new time. */
export class Problems {
  readonly #problems = new Map<string, Problem>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  add(code: string, message: string): void {
    this.#problems.delete(message);
    this.#problems.set(message, { timeMs: this.#now(), code, message });
    const [oldest] = this.#problems.keys();
    if (this.#problems.size > MAX_PROBLEMS && oldest !== undefined) this.#problems.delete(oldest);
  }

  /** Newest last. */
  list(): Problem[] {
    return [...this.#problems.values()];
  }
}

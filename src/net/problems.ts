// What went wrong lately, for `xcore status`.

import type { Problem } from './network.ts';

const MAX_PROBLEMS = 100;

/** The last 100 different problems; one that comes again moves to the end with its new time. */
export class Problems {
  readonly #problems = new Map<string, Problem & { readonly about?: string }>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** `about`: what over() is to be told of, once it is well again; without it, a problem stays until others take its place. */
  add(code: string, message: string, about?: string): void {
    this.#problems.delete(message);
    this.#problems.set(message, { timeMs: this.#now(), code, message, ...(about === undefined ? {} : { about }) });
    const [oldest] = this.#problems.keys();
    if (this.#problems.size > MAX_PROBLEMS && oldest !== undefined) this.#problems.delete(oldest);
  }

  /** What was wrong with that is so no more. */
  over(about: string): void {
    for (const [key, problem] of this.#problems) if (problem.about === about) this.#problems.delete(key);
  }

  /** Newest last. */
  list(): Problem[] {
    return Array.from(this.#problems.values(), ({ timeMs, code, message }) => ({ timeMs, code, message }));
  }
}

// What is wrong with a mount, each thing once, for `xcore status`.

import type { Clock } from '../lib/clock.ts';
import type { StatusProblem } from './control-api.ts';

const MAX_PROBLEMS = 100;

/** Problems by a key, so that what goes on is one line and what is over disappears. */
export class Problems {
  readonly #clock: Clock;
  readonly #problems = new Map<string, StatusProblem>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes a problem, or that it goes on. */
  set(key: string, code: string, message: string, advice: string): void {
    const timeMs = this.#problems.get(key)?.timeMs ?? this.#clock.now();
    this.#problems.set(key, { timeMs, code, message, advice });
    const oldest = this.#problems.keys().next().value;
    if (this.#problems.size > MAX_PROBLEMS && oldest !== undefined) this.#problems.delete(oldest);
  }

  /** Notes that a problem is over. */
  clear(key: string): void {
    this.#problems.delete(key);
  }

  list(): StatusProblem[] {
    return [...this.#problems.values()];
  }
}

// Runs tasks with the same key one after another, and tasks with different keys side by side.

import { XcoreError } from './errors.ts';

/** Serialises work on one thing, whatever its key names. */
export class KeyedQueue {
  readonly #tails = new Map<string, { tail: Promise<unknown>; length: number }>();
  readonly #maxLength: number;

  /** `maxLength`: tasks of one key that may run or wait; one more is REFUSED. */
  constructor(maxLength: number) {
    this.#maxLength = maxLength;
  }

  /** Runs `task` after all earlier tasks of `key`, however those ended. */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const queue = this.#tails.get(key) ?? { tail: Promise.resolve(), length: 0 };
    if (queue.length >= this.#maxLength) throw new XcoreError('REFUSED', 'too many requests wait for the same thing');
    this.#tails.set(key, queue);
    queue.length += 1;
    const result = queue.tail.then(task);
    queue.tail = result.catch(() => {});
    try {
      return await result;
    } finally {
      queue.length -= 1;
      if (queue.length === 0) this.#tails.delete(key);
    }
  }
}

// Joins calls that are made at about the same time into one.

import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { toNetworkError } from './failure.ts';
import { MAX_WAITING } from './limiter.ts';

interface Item<I, O> {
  readonly input: I;
  readonly resolve: (output: O) => void;
  readonly reject: (error: XcoreError) => void;
}

/**
 * Collects inputs while calls are under way and sends them together, `maxItems` at most in one call. `send` returns
 * one output for each input, in order. What a call is refused for may be one item's fault: they are then tried alone.
 */
export class Batcher<I, O> {
  readonly #send: (inputs: I[]) => Promise<O[]>;
  readonly #maxItems: number;
  readonly #maxCalls: number;
  readonly #clock: Clock;
  #queue: Item<I, O>[] = [];
  #calls = 0;
  #scheduled = false;

  constructor(send: (inputs: I[]) => Promise<O[]>, maxItems: number, maxCalls: number, clock: Clock = systemClock) {
    this.#clock = clock;
    this.#send = send;
    this.#maxItems = maxItems;
    this.#maxCalls = maxCalls;
  }

  /** The output for one input; rejects with what its call failed with. */
  add(input: I): Promise<O> {
    if (this.#queue.length >= MAX_WAITING) {
      return Promise.reject(new XcoreError('EAGAIN', 'too many calls wait'));
    }
    const { promise, resolve, reject } = Promise.withResolvers<O>();
    this.#queue.push({ input, resolve, reject });
    this.#schedule();
    return promise;
  }

  #schedule(): void {
    if (this.#scheduled || this.#calls >= this.#maxCalls || this.#queue.length === 0) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      const items = this.#queue.splice(0, this.#maxItems);
      this.#calls += 1;
      void this.#run(items).finally(() => {
        this.#calls -= 1;
        this.#schedule();
      });
      this.#schedule();
    });
  }

  /** Settles every item; never rejects. */
  async #run(items: Item<I, O>[]): Promise<void> {
    try {
      const outputs = await this.#send(items.map((item) => item.input));
      if (outputs.length !== items.length) throw new XcoreError('PROTOCOL', 'an answer of the wrong length');
      items.forEach((item, n) => item.resolve(outputs[n] as O));
    } catch (error) {
      const failure = toNetworkError(error);
      if (items.length > 1 && !hasCode(failure, 'UNREACHABLE', 'TIMEOUT', 'CLOSED')) {
        for (const item of items) await this.#run([item]);
      } else {
        for (const item of items) item.reject(failure);
      }
    }
  }
}

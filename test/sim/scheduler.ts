// Virtual time: what is to happen, in order. Time passes only from one event to the next, once all that the last
// one set off has come to rest.

import { createHash } from 'node:crypto';
import { asError } from '../../src/lib/errors.ts';

/** Events that one turn of the real event loop runs, to save turns; promises settle between any two of them. */
const EVENTS_PER_TURN = 32;

/** Something that will happen. */
export interface Planned {
  cancelled: boolean;
}

interface Event extends Planned {
  readonly atMs: number;
  readonly number: number;
  readonly run: () => void;
}

/** The time of one simulated world, and the trace of what happened in it. */
export class Scheduler {
  #nowMs = 0;
  #count = 0;
  /** A binary heap. */
  readonly #events: Event[] = [];
  readonly #hash = createHash('sha256');
  /** Called for each line of the trace. */
  onTrace: ((line: string) => void) | undefined;

  /** Milliseconds since the beginning. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Whether the world has ended. */
  over = false;

  /** Events that have happened. */
  events = 0;

  /** Plans something; after the end of the world nothing comes of it. */
  after(delayMs: number, run: () => void): Planned {
    if (this.over) return { cancelled: true };
    this.#count += 1;
    const event: Event = { atMs: this.#nowMs + Math.max(0, delayMs), number: this.#count, run, cancelled: false };
    this.#push(event);
    return event;
  }

  /** Notes something for the trace. */
  trace(line: string): void {
    const whole = `${this.#nowMs.toFixed(3)} ${line}`;
    this.#hash.update(whole);
    this.onTrace?.(whole);
  }

  /** What stands for the whole trace so far. */
  digest(): string {
    return this.#hash.copy().digest('hex').slice(0, 16);
  }

  /** Lets time pass until the condition holds, at most until `untilMs`; whether it holds. Rejects with what an event throws. */
  async run(untilMs: number, condition: () => boolean = () => false): Promise<boolean> {
    for (;;) {
      const outcome = await this.#turn(untilMs, condition);
      if (outcome !== 'more') return outcome === 'holds';
    }
  }

  #turn(untilMs: number, condition: () => boolean): Promise<'more' | 'holds' | 'late'> {
    return new Promise((resolve, reject) => {
      let left = EVENTS_PER_TURN;
      let ended = false;
      const one = (): void => {
        if (ended) return;
        left -= 1;
        try {
          const outcome = this.#step(untilMs, condition);
          if (outcome === 'more' && left > 0) return;
          ended = true;
          resolve(outcome);
        } catch (error) {
          ended = true;
          reject(asError(error));
        }
      };
      for (let event = 0; event < EVENTS_PER_TURN; event += 1) setImmediate(one);
    });
  }

  #step(untilMs: number, condition: () => boolean): 'more' | 'holds' | 'late' {
    if (condition()) return 'holds';
    let next = this.#events[0];
    while (next?.cancelled === true) {
      this.#pop();
      next = this.#events[0];
    }
    if (!next || next.atMs > untilMs) {
      this.#nowMs = Math.max(this.#nowMs, untilMs);
      return 'late';
    }
    this.#pop();
    this.#nowMs = next.atMs;
    this.events += 1;
    next.run();
    return 'more';
  }

  #push(event: Event): void {
    const heap = this.#events;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (isBefore(heap[parent]!, event)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#events;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (isBefore(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.number < b.number);
}

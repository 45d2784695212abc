// A process of the simulated world: its clock, and an end that may come between any two of its steps. What a dead
// one still waits for never comes.

import type { Clock, Timer } from '../../src/lib/clock.ts';
import { asError } from '../../src/lib/errors.ts';
import type { Luck } from './luck.ts';
import type { Planned, Scheduler } from './scheduler.ts';

/** Wall time at the beginning of each world, about 2027. */
const EPOCH_MS = 1_800_000_000_000;
const NS_PER_MS = 1_000_000n;
/** Timers of a dead process that pass after the end of the world. */
const MAX_AFTER_END = 200;

/** One process. */
export class SimProcess {
  readonly name: string;
  readonly luck: Luck;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  alive = true;
  /** Whether its world is over: deadlines pass at once, nothing is waited for. */
  buried = false;
  /** By which its clock is ahead of the world's. */
  lagMs = 0;
  /** Steps until a crash that is planned; none when absent. */
  #stepsLeft = Infinity;
  #onCrash: () => void = () => {};
  #afterEnd = 0;
  readonly #onDeath = new Set<() => void>();
  /** What its clock is still to do. */
  readonly #plans = new Map<Planned, () => void>();

  constructor(name: string, scheduler: Scheduler, luck: Luck, skewMs: number) {
    this.name = name;
    this.scheduler = scheduler;
    this.luck = luck;
    this.clock = new SimClock(this, skewMs);
  }

  /** Has the process die in its `steps`-th step from now on: before what that does, or after it. */
  crashIn(steps: number, crash: () => void): void {
    this.#stepsLeft = steps;
    this.#onCrash = crash;
  }

  /** Called once when the process ends. */
  onDeath(action: () => void): void {
    this.#onDeath.add(action);
  }

  /** Ends it. */
  die(): void {
    if (!this.alive) return;
    this.alive = false;
    for (const action of this.#onDeath) action();
  }

  /** Plans something for its clock. */
  plan(ms: number, run: () => void): Planned {
    const planned = this.scheduler.after(ms, () => {
      if (!this.alive) return;
      this.#plans.delete(planned);
      run();
    });
    this.#plans.set(planned, run);
    return planned;
  }

  /** Runs what its clock never came to, after the end of the world: Node keeps every signal of which somebody waits for the end. */
  bury(): void {
    this.die();
    this.buried = true;
    for (const [{ cancelled }, run] of this.#plans) if (!cancelled) run();
    this.#plans.clear();
  }

  /** Something that it does outside of itself at once: a step. Throws if the process is dead by then; nothing comes of that. */
  stepNow<T>(action: () => T): T {
    if (!this.alive) throw new Error('the process is dead');
    this.#stepsLeft -= 1;
    const dies = this.#stepsLeft <= 0;
    if (dies) this.#stepsLeft = Infinity;
    if (dies && this.luck.chance(0.5)) {
      this.#onCrash();
      throw new Error('the process is dead');
    }
    const result = action();
    if (!dies) return result;
    this.#onCrash();
    throw new Error('the process is dead');
  }

  /** Counts what it still waits for after the end of the world. */
  afterEnd(): number {
    return (this.#afterEnd += 1);
  }

  /** It did nothing else for so long: its clock went on. */
  lag(ms: number): void {
    this.lagMs += ms;
  }

  /** Something that the process does outside of itself, taking so long: a step. Settles never if the process is dead by then. */
  step<T>(delayMs: number, action: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (!this.alive) return;
      this.#stepsLeft -= 1;
      const dies = this.#stepsLeft <= 0;
      if (dies) this.#stepsLeft = Infinity;
      if (dies && this.luck.chance(0.5)) {
        this.#onCrash();
        return;
      }
      this.scheduler.after(delayMs, () => {
        if (!this.alive) return;
        try {
          const result = action();
          if (dies) this.#onCrash();
          else resolve(result);
        } catch (error) {
          reject(asError(error));
        }
      });
    });
  }
}

class SimClock implements Clock {
  readonly #process: SimProcess;
  readonly #skewMs: number;

  constructor(process: SimProcess, skewMs: number) {
    this.#process = process;
    this.#skewMs = skewMs;
  }

  now(): number {
    return Math.floor(EPOCH_MS + this.#skewMs + this.#process.scheduler.nowMs + this.#process.lagMs);
  }

  nowNs(): bigint {
    return BigInt(this.now()) * NS_PER_MS;
  }

  monotonicMs(): number {
    return 1_000 + this.#process.scheduler.nowMs + this.#process.lagMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#process.buried) return;
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        planned.cancelled = true;
        reject(signal?.reason as Error);
      };
      const planned = this.#plan(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  after(ms: number, run: () => void): Timer {
    if (this.#process.buried) {
      // a loop that waits between its rounds would go on for ever
      if (this.#process.afterEnd() <= MAX_AFTER_END) queueMicrotask(run);
      return { cancel: () => {}, restart: () => {} };
    }
    let planned = this.#plan(ms, run);
    return {
      cancel: () => {
        planned.cancelled = true;
      },
      restart: () => {
        planned.cancelled = true;
        if (this.#process.buried) return;
        planned = this.#plan(ms, run);
      },
    };
  }

  soon(run: () => void): void {
    this.#plan(0, run);
  }

  #plan(ms: number, run: () => void): Planned {
    return this.#process.plan(ms, run);
  }
}

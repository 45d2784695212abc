// What a bridge does on its own, round after round.

import type { Clock } from '../lib/clock.ts';
import { asError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';

/** One round of something; the signal says that it is to end soon. */
export type UpkeepTask = (signal: AbortSignal) => Promise<void>;

/** Runs tasks one after another, waits, and starts again, from start() to stop(). A failing task is logged and tried again. */
export class Upkeep {
  readonly #tasks: Readonly<Record<string, UpkeepTask>>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #intervalMs: number;
  readonly #stopping = new AbortController();
  /** What was logged of each task last. */
  readonly #complaints = new Map<string, string>();
  #running: Promise<void> | null = null;

  constructor(
    components: {
      readonly tasks: Readonly<Record<string, UpkeepTask>>;
      readonly clock: Clock;
      readonly log: Logger;
    },
    options: { readonly intervalMs: number },
  ) {
    this.#tasks = components.tasks;
    this.#clock = components.clock;
    this.#log = components.log;
    this.#intervalMs = options.intervalMs;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the rounds and waits for the one under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#clock.sleep(this.#intervalMs, signal).catch(() => {});
      if (signal.aborted) return;
      for (const [name, task] of Object.entries(this.#tasks)) {
        try {
          await task(signal);
          this.#complaints.delete(name);
        } catch (error) {
          if (signal.aborted) return;
          const { message } = asError(error);
          // Once, not in each round.
          if (this.#complaints.get(name) !== message) this.#log.error({ err: error, task: name }, 'upkeep failed');
          this.#complaints.set(name, message);
        }
      }
    }
  }
}

// Checks the tables that an open index began with, beside other work: LevelDB takes them as they are, and where a key is
// damaged its record is missing. Whoever would take something for absent can wait for the end of it.

import { XcoreError } from '../lib/errors.ts';
import { findDamagedTable } from './check-tables.ts';
import type { DamagedTable } from './check-tables.ts';
import { damagedIndex } from './index-database.ts';

/** It begins so long after the index was opened, or when somebody waits for it. */
const CHECK_DELAY_MS = 5_000;

/** The error of an index with a damaged table. */
export function damagedTable({ name, reason }: DamagedTable): XcoreError {
  return damagedIndex(`of its file ${name}, ${reason}`);
}

/** One check of an index, from its opening to its closing. */
export class TableCheck {
  readonly #dir: string;
  readonly #names: readonly string[];
  readonly #onDamaged: (error: Error) => void;
  readonly #stopped = new AbortController();
  readonly #timer: NodeJS.Timeout | null;
  #running: Promise<void> | null = null;
  #isWhole: boolean;

  /** `names`: tables that were there before LevelDB opened, which are written and closed. */
  constructor(dir: string, names: readonly string[], onDamaged: (error: Error) => void) {
    this.#dir = dir;
    this.#names = names;
    this.#onDamaged = onDamaged;
    this.#isWhole = names.length === 0;
    this.#timer = this.#isWhole ? null : setTimeout(() => void this.#start(), CHECK_DELAY_MS).unref();
  }

  /** Null once all tables are known to be whole; else resolves then, or rejects with CORRUPT_RECORD. */
  whole(): Promise<void> | null {
    return this.#isWhole ? null : this.#start();
  }

  #start(): Promise<void> {
    if (this.#running === null) {
      this.#running = this.#run();
      // whoever waits is told; there may be nobody
      this.#running.catch(() => undefined);
    }
    return this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    const damaged = await findDamagedTable(this.#dir, this.#names, signal);
    if (signal.aborted) throw new XcoreError('CLOSED', 'the index is closed');
    if (damaged !== null) {
      const error = damagedTable(damaged);
      this.#onDamaged(error);
      throw error;
    }
    this.#isWhole = true;
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#stopped.abort();
    await this.#running?.catch(() => undefined);
  }
}

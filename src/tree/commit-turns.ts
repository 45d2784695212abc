// When commits are made: one after another, each for all who asked before it began; soon where nobody asks, and again
// after one that failed. Knows not what a commit is.

import { systemClock } from '../lib/clock.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';

/** A change that nobody waits for is committed after so long. */
const COMMIT_DELAY_MS = 10;
/** After a failed commit the next try comes after so long. */
const RETRY_DELAY_MS = 1_000;

/** One who waits for a commit, or several. */
interface Waiter {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  sync: boolean;
}

/** What is committed. */
export interface Committing {
  /** Whether there is something that no commit has taken. */
  hasChanges(): boolean;
  /** Takes all changes; `sync`: so that they survive a power cut. */
  begin(sync: boolean): void;
  /** Brings to disk what was taken. */
  write(sync: boolean): Promise<void>;
  /** What was taken waits again. */
  abandon(): void;
}

/** Options of the turns; the machine's own clock unless told. */
export interface TurnOptions {
  readonly clock?: Clock;
  /** Changes cannot be committed; null when they can again. */
  readonly onHealth?: (failure: Error | null) => void;
}

/** The commits of one index. */
export class CommitTurns {
  readonly #work: Committing;
  readonly #clock: Clock;
  readonly #onHealth: (failure: Error | null) => void;
  #next: Waiter | null = null;
  #current: Waiter | null = null;
  #running: Promise<void> = Promise.resolve();
  #timer: Timer | null = null;
  #failure: Error | null = null;
  #unsynced = false;
  /** A sync failed, and records may say already what is true only once it succeeds: the next commit is one, too. */
  #owesSync = false;
  /** The last commits: one may wait behind the sync that close() asked for, and nothing comes after it. */
  #isClosing = false;
  #closed = false;

  constructor(work: Committing, { clock = systemClock, onHealth = () => undefined }: TurnOptions = {}) {
    this.#work = work;
    this.#clock = clock;
    this.#onHealth = onHealth;
  }

  /** What the last commit failed with, if it failed. */
  get failure(): Error | null {
    return this.#failure;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Whether a commit is under way that is to survive a power cut. */
  get isSyncing(): boolean {
    return this.#current?.sync === true;
  }

  /** Throws what the last commit failed with, if it failed; CLOSED after close(). */
  assertHealthy(): void {
    if (this.#closed) throw new XcoreError('CLOSED', 'the index is closed');
    if (this.#failure !== null) throw this.#failure;
  }

  /** There is a change for which nobody waits. */
  soon(): void {
    this.#schedule(COMMIT_DELAY_MS);
  }

  #schedule(delayMs: number): void {
    if (this.#timer !== null || this.#closed) return;
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timer = null;
      this.commit(false).catch(() => undefined); // kept in #failure and tried again
    });
  }

  /** Resolves when all changes made so far are committed; `sync`: and survive a power cut. */
  commit(sync: boolean): Promise<void> {
    if (!this.#work.hasChanges() && this.#next === null && this.#failure === null) {
      const enough = !sync || (this.#current === null ? !this.#unsynced : this.#current.sync);
      if (enough) return this.#current?.promise ?? Promise.resolve();
    }
    this.#next ??= { ...Promise.withResolvers<void>(), sync };
    this.#next.sync ||= sync;
    const { promise } = this.#next;
    if (this.#current === null) this.#running = this.#run();
    return promise;
  }

  async #run(): Promise<void> {
    while (this.#next !== null) {
      const waiter = this.#next;
      this.#next = null;
      this.#current = waiter;
      waiter.sync ||= this.#owesSync || this.#isClosing;
      this.#work.begin(waiter.sync);
      try {
        await this.#work.write(waiter.sync);
        this.#unsynced = !waiter.sync;
        this.#owesSync = false;
        if (this.#failure !== null) this.#onHealth(null);
        this.#failure = null;
        waiter.resolve();
      } catch (error) {
        this.#work.abandon();
        this.#failure = asError(error);
        this.#owesSync = waiter.sync;
        this.#onHealth(this.#failure);
        this.#schedule(RETRY_DELAY_MS);
        waiter.promise.catch(() => undefined);
        waiter.reject(this.#failure);
      }
    }
    this.#current = null;
  }

  /** Commits what is left, for good; `mustSync`: also where there is nothing that no commit has taken. */
  async close(mustSync: boolean): Promise<void> {
    this.#unsynced ||= mustSync;
    this.#isClosing = true;
    try {
      await this.commit(true);
    } finally {
      this.#closed = true;
      // also the next try of what failed just now, which would open the database again
      this.#timer?.cancel();
      this.#timer = null;
      await this.#running;
    }
  }
}

// Which changes survive a power cut already, and whose turn it is to sync the others: one sync at a time, and whoever
// asks meanwhile shares the next one. Knows how many changes there were, not what they are.

import type { Now } from '../lib/now.ts';

/** The syncs of one index. */
export class SyncTurns {
  /** What an earlier start left may not be safe either. */
  #changes = 1;
  #safe = 0;
  #underWay: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  /** Something was changed. */
  note(): void {
    this.#changes++;
  }

  /** Changes so far; to be taken before they are synced. */
  get changes(): number {
    return this.#changes;
  }

  /** Whether no change needs a sync. */
  get isSafe(): boolean {
    return this.#safe === this.#changes;
  }

  /** So many changes survive a power cut. */
  noteSafe(changes: number): void {
    this.#safe = Math.max(this.#safe, changes);
  }

  /** Syncs, or shares the sync that comes after the one under way. */
  take(sync: () => Now<void>): Now<void> {
    if (this.#underWay === null) return this.#begin(sync);
    this.#next ??= this.#underWay
      .catch(() => undefined)
      .then(() => {
        this.#next = null;
        return this.isSafe ? undefined : this.#begin(sync);
      });
    return this.#next;
  }

  #begin(sync: () => Now<void>): Now<void> {
    const begun = sync();
    if (!(begun instanceof Promise)) return;
    const work = begun.finally(() => {
      if (this.#underWay === work) this.#underWay = null;
    });
    this.#underWay = work;
    return work;
  }
}

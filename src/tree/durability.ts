// How changes of an index come to outlive the process and the power: by an entry of the journal, by a record of the
// sync journal, or in a batch of LevelDB. Knows keys and batches, not when commits are made.

import type { Now } from '../lib/now.ts';
import type { ChangeJournal, JournalMarks } from './change-journal.ts';
import type { TreeRecord } from './records.ts';
import type { Tail } from './sync-journal-format.ts';
import type { SyncJournal, TailSource } from './sync-journal.ts';
import { SyncTurns } from './sync-turns.ts';
import type { Batch, TalliedIndex } from './tallied-index.ts';
import type { Tally } from './tally.ts';

/** How the bytes get to their files and the disk that changes refer to; takeTails() lets them go into the sync journal. */
export interface Barrier extends TailSource {
  /** Waits until all bytes that commits may refer to are in their files; `sync`: also on the disk. */
  wait(sync: boolean): Promise<void>;
  /** May still change records of the commit that is about to be synced. */
  beforeSync(): void;
  /** As wait() without a sync, at once: false when it would have to wait. */
  now(): boolean;
}

/** What this needs of the store whose changes it keeps. */
export interface ChangeSource {
  /** Whether changes may go into a journal now, instead of a batch. */
  mayJournal(): boolean;
  /** What a key was changed to; undefined for a change that is not for the journal. */
  changeOf(key: string): TreeRecord | null | undefined;
  /** Commits all changes made so far; `sync`: so that they survive a power cut. */
  commit(sync: boolean): Promise<void>;
}

/** What a batch is begun with, and ended. */
export interface BatchMarks {
  readonly journal: JournalMarks;
  /** Changes so far, which it holds. */
  readonly changes: number;
}

/** Of changes that refer to no bytes, and go into no journal. */
export const NO_BARRIER: Barrier = {
  wait: () => Promise.resolve(),
  beforeSync: () => undefined,
  now: () => false,
  takeTails: () => null,
};

/** The journals of one index, and what is in them. */
export class Durability {
  readonly #index: TalliedIndex;
  readonly #journal: ChangeJournal;
  readonly #syncs: SyncJournal | null;
  readonly #source: ChangeSource;
  readonly #turns = new SyncTurns();
  #barrier = NO_BARRIER;
  /** Ends of segments that a crash left in the sync journal, and that are not in their files yet. */
  #leftTails: readonly Tail[];
  #isEnding = false;

  constructor(
    index: TalliedIndex,
    journal: ChangeJournal,
    syncs: SyncJournal | null,
    leftTails: readonly Tail[],
    source: ChangeSource,
  ) {
    this.#index = index;
    this.#journal = journal;
    this.#syncs = syncs;
    this.#leftTails = leftTails;
    this.#source = source;
  }

  setBarrier(barrier: Barrier): void {
    this.#barrier = barrier;
  }

  /** Lets ends of segments that a crash left in the sync journal be put into their files; until then the journal stays as it is. */
  async restoreTails(restore: (tails: readonly Tail[]) => Promise<void>): Promise<void> {
    await restore(this.#leftTails);
    this.#leftTails = [];
  }

  /** Whether only the sync journal makes something safe. */
  get isInUse(): boolean {
    return this.#syncs?.isInUse === true;
  }

  /** A record was changed. */
  note(key: string): void {
    this.#journal.note(key);
    this.#turns.note();
  }

  /** Lets all changes made so far outlive this process: at once where the journal takes them, else with a commit. */
  persist(isHealthy: boolean): Now<void> {
    if (isHealthy && this.#journal.isComplete) return;
    if (!this.#journalNow()) return this.#source.commit(false);
  }

  /**
   * Lets all changes made so far survive a power cut: through the sync journal where that has room, else with a commit.
   * At once where no change needs it.
   */
  sync(isHealthy: boolean): Now<void> {
    if (this.#turns.isSafe && isHealthy) return;
    return this.#turns.take(() => this.#syncNow());
  }

  #syncNow(): Now<void> {
    const { changes } = this.#turns;
    const syncs = this.#syncs;
    if (syncs?.isUsable !== true || !this.#source.mayJournal()) return this.#source.commit(true);
    const entry = this.#journal.isComplete ? undefined : this.#seal();
    if (entry === null) return this.#source.commit(true);
    const written = syncs.append(this.#barrier);
    if (written === undefined) {
      // a start after a kill finds all of it there: neither the journal nor the files of segments need it now
      this.#journal.noteKept();
      this.#turns.noteSafe(changes);
      return;
    }
    // close(2) may come before the disk has it, and its entry be read only behind this one
    if (entry !== undefined && !this.#keep(entry)) this.#journal.refuse();
    if (written === null) return this.#source.commit(true);
    return written.then(
      () => this.#turns.noteSafe(changes),
      () => this.#source.commit(true),
    );
  }

  #journalNow(): boolean {
    if (!this.#source.mayJournal() || !this.#barrier.now()) return false;
    const entry = this.#seal();
    return entry !== null && this.#journal.keep(entry);
  }

  /** An entry with all changes, for both journals. */
  #seal(): Buffer | null {
    const entry = this.#journal.seal((key) => this.#source.changeOf(key), this.#index.tally.batch);
    if (entry !== null) this.#syncs?.noteEntry(this.#journal.sequence, entry);
    return entry;
  }

  /** Brings an entry to the journal, after the bytes that it refers to; false where one of both fails. */
  #keep(entry: Uint8Array): boolean {
    return this.#barrier.now() && this.#journal.keep(entry);
  }

  /** To be called when the changes that wait are taken for a batch. */
  beginBatch(sync: boolean): BatchMarks {
    if (sync) this.#barrier.beforeSync();
    return { journal: this.#journal.beginBatch(), changes: this.#turns.changes };
  }

  /** Brings a batch to the index, after the bytes that it refers to; `sync`: to the disk, through the journal where that has room. */
  async write(batch: Batch, tally: Tally, sync: boolean): Promise<void> {
    const syncs = this.#syncs;
    const barrier = this.#barrier;
    if (sync) {
      syncs?.note(tally.batch, batch.operations, tally.journal);
      const journaled = syncs === null ? null : syncs.append(barrier);
      if (journaled !== null) {
        // what the index says is synced must be so, wherever a power cut comes
        await settledBoth(Promise.resolve(journaled), barrier.now() ? Promise.resolve() : barrier.wait(false));
        await this.#index.write(batch, tally, false);
        return;
      }
      await syncs?.idle();
    }
    await barrier.wait(sync);
    await this.#index.write(batch, tally, sync);
    if (!sync) syncs?.note(tally.batch, batch.operations, tally.journal);
    else if (this.#leftTails.length === 0 && !this.#isEnding) syncs?.reset();
  }

  /** The batch is written and, if `sync`, on the disk. */
  endBatch({ journal, changes }: BatchMarks, sync: boolean): void {
    this.#journal.endBatch(journal, true);
    if (sync) this.#turns.noteSafe(changes);
  }

  /** The batch failed: its changes wait again, and the sync journal takes nothing before a full sync. */
  abandonBatch({ journal }: BatchMarks): void {
    this.distrust();
    this.#journal.endBatch(journal, false);
  }

  /** The sync journal takes nothing before the next full sync. */
  distrust(): void {
    this.#syncs?.distrust();
  }

  /** The sync journal takes nothing any more: each sync is one of all files. */
  end(): void {
    this.#isEnding = true;
    this.distrust();
  }

  /** Closes the journals; `clean`: everything is synced. */
  async close(clean: boolean): Promise<void> {
    await this.#syncs?.close(clean);
    await this.#journal.close();
  }
}

/** Waits for both, also when one fails; the first failure is thrown. */
async function settledBoth(first: Promise<void>, second: Promise<void>): Promise<void> {
  const results = await Promise.allSettled([first, second]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

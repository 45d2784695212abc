// Records over LevelDB: sealed values, a cache of decoded records, and changes that are gathered in
// memory and committed together. Knows keys and records, not what a filesystem means by them.

import type { Sealer } from '../crypto/sealer.ts';
import type { Now } from '../lib/now.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { ChangeJournal } from './change-journal.ts';
import { CommitTurns } from './commit-turns.ts';
import type { TurnOptions } from './commit-turns.ts';
import { Durability } from './durability.ts';
import type { Barrier, BatchMarks } from './durability.ts';
import { keyBytes, outboxKey, PUBLISHED_KINDS } from './keys.ts';
import type { StoreSnapshot } from './index-database.ts';
import { PendingRecords } from './pending-records.ts';
import type { Changes, Taken } from './pending-records.ts';
import { changeSetBytes } from './record-bytes.ts';
import type { KeyChange } from './record-bytes.ts';
import { newRecordCache } from './record-cache.ts';
import { RecordRanges } from './record-ranges.ts';
import type { RangeOptions, ScannedRecord } from './record-ranges.ts';
import type { TreeRecord } from './records.ts';
import { TalliedIndex } from './tallied-index.ts';
import type { Tally } from './tally.ts';
import type { Batch, IndexOptions, StoredRecord } from './tallied-index.ts';
import type { Tail } from './sync-journal-format.ts';
import { NOTHING_LEFT, readSyncJournal, SyncJournal } from './sync-journal.ts';

export type { StoreSnapshot };

/** Changed records after which callers of settle() wait for a commit. */
const MAX_DIRTY_RECORDS = 20_000;

/** How an index is opened, and who is told of its health. */
export interface StoreOptions extends Omit<IndexOptions, 'left'>, TurnOptions {
  /** File of its sync journal; without one, every sync is one of all files. */
  readonly syncJournal?: string;
  /** Numbers of journals; the system's unless told. */
  readonly randomBytes?: RandomBytes;
}

const NOTHING: StoredRecord = { record: null, stamp: 0n };
const publishedKinds: ReadonlySet<string> = new Set(PUBLISHED_KINDS);

/**
 * The index of one volume. get() never waits; put() and delete() take effect in memory at once and
 * on disk with the next commit, all changes between two turns of the event loop together. A record
 * may be changed in place, then put(); none may be held across an await.
 */
export class RecordStore {
  readonly #index: TalliedIndex;
  readonly #ranges: RecordRanges;
  readonly #cache = newRecordCache();
  readonly #pending = new PendingRecords();
  readonly #durability: Durability;
  readonly #turns: CommitTurns;
  /** What the commit under way has taken. */
  #taken: { readonly records: Taken; readonly marks: BatchMarks } | null = null;
  #lastCommit = 0;
  #firstUnpublished = 1;
  #recordsChanges = false;
  readonly #lineage: Buffer;

  private constructor(
    index: TalliedIndex,
    journal: ChangeJournal,
    sealer: Sealer,
    lineage: Buffer,
    leftTails: readonly Tail[],
    options: StoreOptions,
  ) {
    this.#index = index;
    const syncs = options.syncJournal === undefined ? null : new SyncJournal(options.syncJournal, options);
    this.#durability = new Durability(index, journal, syncs, leftTails, {
      mayJournal: () => this.#mayJournal(),
      changeOf: (key) => this.#changeOf(key),
      commit: (sync) => this.commit(sync),
    });
    const work = {
      hasChanges: () => this.#pending.waiting > 0,
      begin: (sync: boolean) => this.#begin(sync),
      write: (sync: boolean) => this.#write(sync),
      abandon: () => this.#abandon(),
    };
    this.#turns = new CommitTurns(work, options);
    this.#ranges = new RecordRanges(index, sealer);
    this.#lineage = lineage;
    this.#lastCommit = index.tally.lastCommit;
    this.#firstUnpublished = index.tally.firstUnpublished;
  }

  /**
   * Opens or creates an index. `lineage`, 16 bytes, tells this index from any other of the volume.
   * Errors as those of TalliedIndex.open().
   */
  static async open(dir: string, sealer: Sealer, lineage: Buffer, options: StoreOptions = {}): Promise<RecordStore> {
    const { syncJournal: path, ...rest } = options;
    const left = path === undefined ? NOTHING_LEFT : await readSyncJournal(path, options.disk);
    const index = await TalliedIndex.open(dir, sealer, { ...rest, left });
    try {
      const { journal, changes } = await ChangeJournal.open(
        dir,
        sealer,
        index.tally,
        left.entries,
        options.disk,
        options.randomBytes,
      );
      const store = new RecordStore(index, journal, sealer, lineage, left.tails, options);
      if (changes.size > 0) await store.#replay(changes);
      return store;
    } catch (error) {
      await index.close(false);
      throw error;
    }
  }

  /** Commits what a killed process, which was the volume's writer, had in its journal only. */
  async #replay(changes: Changes): Promise<void> {
    for (const [key, record] of changes) this.#pending.set(key, record);
    this.#recordsChanges = true;
    await this.commit();
    this.#recordsChanges = false;
  }

  /** Number of the newest commit; never used twice by one lineage. */
  get lastCommit(): number {
    return this.#lastCommit;
  }

  /** First commit that is not published, lastCommit + 1 when there is none. */
  get firstUnpublished(): number {
    return Math.min(this.#firstUnpublished, this.#lastCommit + 1);
  }

  get lineage(): Buffer {
    return this.#lineage;
  }

  /** Changed records that no commit has taken yet. */
  get dirtyRecords(): number {
    return this.#pending.waiting;
  }

  /** Whether commits are kept for publication: true for a writer, false for a follower. */
  setRecording(on: boolean, lastCommit?: number): void {
    this.#recordsChanges = on;
    if (lastCommit !== undefined && lastCommit > this.#lastCommit) {
      this.#lastCommit = lastCommit;
      this.#firstUnpublished = lastCommit + 1;
    }
  }

  /** Whether this index belongs to the volume's writer. */
  get recording(): boolean {
    return this.#recordsChanges;
  }

  /** Says how the bytes that changes refer to get to their files, and to the disk. */
  setBarrier(barrier: Barrier): void {
    this.#durability.setBarrier(barrier);
  }

  /** Lets ends of segments that a crash left in the sync journal be put into their files; until then the journal stays as it is. */
  restoreTails(restore: (tails: readonly Tail[]) => Promise<void>): Promise<void> {
    return this.#durability.restoreTails(restore);
  }

  /** Resolves when an index that is being opened anew (REOPENING) can be read; EIO when it could not for too long. */
  readable(): Promise<void> {
    return this.#index.readable();
  }

  /**
   * Null once the files of the index are known to be whole, so that a record that is not there never was; else resolves
   * then, or rejects with CORRUPT_RECORD.
   */
  whole(): Promise<void> | null {
    return this.#index.whole();
  }

  /** The record of a key, or undefined. CORRUPT_RECORD when the index was changed or damaged, REOPENING as readable(). */
  get(key: string): TreeRecord | undefined {
    const changed = this.#pending.of(key);
    if (changed !== undefined) return changed ?? undefined;
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached.record ?? undefined;
    if (this.#pending.isFresh(key)) return undefined;
    const read = this.#index.read(key);
    this.#cache.set(key, read);
    return read.record ?? undefined;
  }

  /** Sets a record; the store owns it from now on. */
  put(key: string, record: TreeRecord): void {
    this.#pending.notePublished(key, false);
    this.#change(key, record);
  }

  /** Says that there is no record of a key, which saves looking for one; holds until the next commit. */
  expectNone(key: string): void {
    // of one that was deleted just now, a commit may still find the old one
    if (this.#pending.of(key) === undefined) this.#pending.expectNone(key);
  }

  delete(key: string): void {
    this.#change(key, null);
  }

  #change(key: string, record: TreeRecord | null): void {
    this.#pending.set(key, record);
    this.#durability.note(key);
    this.#turns.soon();
  }

  /** Deletes a record whose deletion the log carries already. */
  deletePublished(key: string): void {
    this.#pending.notePublished(key, true);
    this.delete(key);
  }

  /** Whether the last commit succeeded. */
  get isHealthy(): boolean {
    return !this.#turns.closed && this.#turns.failure === null;
  }

  /** Throws what the last commit failed with, if it failed: nothing new is taken until one succeeds. */
  assertHealthy(): void {
    this.#turns.assertHealthy();
  }

  /** A promise to wait for when too much is uncommitted, else null. */
  settle(): Promise<void> | null {
    return this.#pending.waiting > MAX_DIRTY_RECORDS ? this.commit() : null;
  }

  /** Resolves when all changes made so far are committed; `sync`: and survive a power cut. */
  commit(sync = false): Promise<void> {
    return this.#turns.commit(sync);
  }

  /** Lets all changes made so far outlive this process: at once where the journal takes them, else with a commit. */
  persist(): Now<void> {
    return this.#durability.persist(this.#turns.failure === null);
  }

  /** Lets all changes made so far survive a power cut; at once where no change needs it. */
  sync(): Now<void> {
    return this.#durability.sync(this.#turns.failure === null);
  }

  #mayJournal(): boolean {
    // a sync under way may have changed records to what is true only once it succeeds
    return this.#recordsChanges && this.isHealthy && !this.#turns.isSyncing;
  }

  #changeOf(key: string): TreeRecord | null | undefined {
    return this.#pending.isPublished(key) ? undefined : this.#pending.of(key);
  }

  #begin(sync: boolean): void {
    this.#taken = { marks: this.#durability.beginBatch(sync), records: this.#pending.take() };
  }

  async #write(sync: boolean): Promise<void> {
    const { marks, records } = this.#taken!;
    if (await this.#index.ready()) this.#cache.clear();
    const { batch, commit } = this.#encode(records);
    const outbox = { lastCommit: commit, firstUnpublished: this.#firstUnpublished };
    const tally = this.#index.complete(batch, { ...outbox, ...marks.journal });
    await this.#durability.write(batch, tally, sync);
    this.#durability.endBatch(marks, sync);
    this.#lastCommit = Math.max(this.#lastCommit, commit);
    for (const [key, record] of records.changes) {
      this.#cache.set(key, { record, stamp: batch.stamps.get(key) ?? 0n });
    }
    this.#pending.settle();
  }

  #abandon(): void {
    this.#durability.abandonBatch(this.#taken!.marks);
    this.#pending.giveBack();
  }

  /** Seals what changed: the only moment at which records are read for a commit. */
  #encode({ changes: taken, fresh }: Taken): { batch: Batch; commit: number } {
    const batch = this.#index.begin();
    const changes: KeyChange[] = [];
    for (const [key, record] of taken) {
      const before = fresh.has(key) ? NOTHING : this.#cache.get(key);
      // what came and went between two commits
      if (record === null && before?.record === null) continue;
      const value = this.#index.add(batch, key, record, before?.stamp);
      const published = publishedKinds.has(key.charAt(0)) && !this.#pending.isPublished(key);
      if (!this.#recordsChanges || !published) continue;
      changes.push({ key: keyBytes(key), value });
    }
    if (changes.length === 0) return { batch, commit: this.#lastCommit };
    const commit = this.#lastCommit + 1;
    this.#index.addCommit(batch, commit, changeSetBytes(changes, this.#lineage, commit));
    return { batch, commit };
  }

  /** Changes that no commit has brought to disk yet, of keys that begin with `prefix`, by key; null is deleted. */
  uncommitted(prefix: string): { key: string; record: TreeRecord | null }[] {
    return this.#pending.under(prefix);
  }

  /** Committed records whose keys begin with `prefix`, in lists of some hundreds. */
  lists(prefix: string, options: RangeOptions = {}): AsyncGenerator<{ key: string; record: TreeRecord }[]> {
    return this.#ranges.lists(prefix, options);
  }

  /** Committed records whose keys begin with `prefix`. */
  range(prefix: string, options: RangeOptions = {}): AsyncGenerator<{ key: string; record: TreeRecord }> {
    return this.#ranges.range(prefix, options);
  }

  /** As range(), with the records' plaintext bytes. */
  plaintexts(prefix: string, options: RangeOptions = {}): AsyncGenerator<{ key: string; value: Buffer }> {
    return this.#ranges.plaintexts(prefix, options);
  }

  /** Every committed record, of any kind, with its stamp. */
  scan(snapshot: StoreSnapshot): AsyncGenerator<ScannedRecord> {
    return this.#ranges.scan(snapshot);
  }

  /** What the index held after its last batch. */
  get tally(): Tally {
    return this.#index.tally;
  }

  /** A view of what is committed now; the caller closes it. */
  snapshot(): StoreSnapshot {
    return this.#index.snapshot();
  }

  /** Forgets commits up to `commit`, which are published, together with the changes put() before. */
  async published(commit: number): Promise<void> {
    const first = this.firstUnpublished;
    for (let n = first; n <= commit; n++) this.#pending.set(outboxKey(n), null);
    this.#firstUnpublished = Math.max(this.#firstUnpublished, commit + 1);
    await this.commit();
  }

  /** Commits what is left and closes the database. */
  async close(): Promise<void> {
    if (this.#turns.closed) return;
    // nothing may be left to the sync journal
    const mustSync = this.#durability.isInUse;
    this.#durability.end();
    try {
      await this.#turns.close(mustSync);
    } finally {
      const isClean = this.#turns.failure === null;
      await this.#durability.close(isClean);
      await this.#index.close(isClean);
    }
  }
}

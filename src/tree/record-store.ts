// Records over LevelDB: sealed values, a cache of decoded records, and changes that are gathered in
// memory and committed together. Knows keys and records, not what a filesystem means by them.

import type { Sealer } from '../crypto/sealer.ts';
import { systemClock } from '../lib/clock.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { ChangeJournal } from './change-journal.ts';
import { Durability } from './durability.ts';
import type { Barriers } from './durability.ts';
import { keyBytes, outboxKey, PUBLISHED_KINDS } from './keys.ts';
import type { StoreSnapshot } from './index-database.ts';
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
/** A change that nobody waits for is committed after so long. */
const COMMIT_DELAY_MS = 10;
/** After a failed commit the next try comes after so long. */
const RETRY_DELAY_MS = 1_000;

interface Waiter {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  sync: boolean;
}

/** How an index is opened, and who is told of its health. */
export interface StoreOptions extends Omit<IndexOptions, 'left'> {
  /** File of its sync journal; without one, every sync is one of all files. */
  readonly syncJournal?: string;
  /** The machine's own unless told. */
  readonly clock?: Clock;
  /** Numbers of journals; the system's unless told. */
  readonly randomBytes?: RandomBytes;
  /** Changes cannot be committed; null when they can again. */
  readonly onHealth?: (failure: Error | null) => void;
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
  readonly #clock: Clock;
  readonly #ranges: RecordRanges;
  readonly #onHealth: (failure: Error | null) => void;
  readonly #cache = newRecordCache();
  #dirty = new Map<string, TreeRecord | null>();
  #inFlight = new Map<string, TreeRecord | null>();
  /** Keys of which no record was ever written; those that the last commits took are not among them any more. */
  #fresh = new Set<string>();
  readonly #alreadyPublished = new Set<string>();
  readonly #durability: Durability;
  #next: Waiter | null = null;
  #current: Waiter | null = null;
  #running: Promise<void> = Promise.resolve();
  #timer: Timer | null = null;
  #failure: Error | null = null;
  #unsynced = false;
  /** A sync failed, and records may say already what is true only once it succeeds: the next commit is one, too. */
  #owesSync = false;
  #closed = false;
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
    this.#clock = options.clock ?? systemClock;
    const syncs = options.syncJournal === undefined ? null : new SyncJournal(options.syncJournal, options);
    this.#durability = new Durability(index, journal, syncs, leftTails, {
      mayJournal: () => this.#mayJournal(),
      changeOf: (key) => this.#changeOf(key),
      commit: (sync) => this.commit(sync),
    });
    this.#ranges = new RecordRanges(index, sealer);
    this.#lineage = lineage;
    this.#onHealth = options.onHealth ?? (() => undefined);
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
  async #replay(changes: Map<string, TreeRecord | null>): Promise<void> {
    this.#dirty = changes;
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
    return this.#dirty.size;
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
  setBarrier(
    wait: Barriers['wait'],
    beforeSync?: Barriers['beforeSync'],
    now?: Barriers['now'],
    takeTails?: Barriers['takeTails'],
  ): void {
    this.#durability.setBarriers({
      wait,
      ...(beforeSync && { beforeSync }),
      ...(now && { now }),
      ...(takeTails && { takeTails }),
    });
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
    const dirty = this.#dirty.get(key);
    if (dirty !== undefined) return dirty ?? undefined;
    const inFlight = this.#inFlight.get(key);
    if (inFlight !== undefined) return inFlight ?? undefined;
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached.record ?? undefined;
    if (this.#fresh.has(key)) return undefined;
    const read = this.#index.read(key);
    this.#cache.set(key, read);
    return read.record ?? undefined;
  }

  /** Sets a record; the store owns it from now on. */
  put(key: string, record: TreeRecord): void {
    this.#alreadyPublished.delete(key);
    this.#dirty.set(key, record);
    this.#durability.note(key);
    this.#schedule(COMMIT_DELAY_MS);
  }

  /** Says that no record of a key was ever written, which saves looking for one; holds until the next commit. */
  expectNone(key: string): void {
    this.#fresh.add(key);
  }

  delete(key: string): void {
    this.#dirty.set(key, null);
    this.#durability.note(key);
    this.#schedule(COMMIT_DELAY_MS);
  }

  /** Deletes a record whose deletion the log carries already. */
  deletePublished(key: string): void {
    this.#alreadyPublished.add(key);
    this.delete(key);
  }

  #schedule(delayMs: number): void {
    if (this.#timer !== null || this.#closed) return;
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timer = null;
      this.commit().catch(() => undefined); // kept in #failure and tried again
    });
  }

  /** Whether the last commit succeeded. */
  get isHealthy(): boolean {
    return !this.#closed && this.#failure === null;
  }

  /** Throws what the last commit failed with, if it failed: nothing new is taken until one succeeds. */
  assertHealthy(): void {
    if (this.#closed) throw new XcoreError('CLOSED', 'the index is closed');
    if (this.#failure !== null) throw this.#failure;
  }

  /** A promise to wait for when too much is uncommitted, else null. */
  settle(): Promise<void> | null {
    return this.#dirty.size > MAX_DIRTY_RECORDS ? this.commit() : null;
  }

  /** Resolves when all changes made so far are committed; `sync`: and survive a power cut. */
  commit(sync = false): Promise<void> {
    if (this.#dirty.size === 0 && this.#next === null && this.#failure === null) {
      const enough = !sync || (this.#current === null ? !this.#unsynced : this.#current.sync);
      if (enough) return this.#current?.promise ?? Promise.resolve();
    }
    this.#next ??= { ...Promise.withResolvers<void>(), sync };
    this.#next.sync ||= sync;
    const { promise } = this.#next;
    if (this.#current === null) this.#running = this.#run();
    return promise;
  }

  /** Lets all changes made so far outlive this process: at once where the journal takes them, else with a commit. */
  persist(): Now<void> {
    return this.#durability.persist(this.#failure === null);
  }

  /** Lets all changes made so far survive a power cut; at once where no change needs it. */
  sync(): Now<void> {
    return this.#durability.sync(this.#failure === null);
  }

  #mayJournal(): boolean {
    // a sync under way may have changed records to what is true only once it succeeds
    return this.#recordsChanges && this.#failure === null && !this.#closed && this.#current?.sync !== true;
  }

  #changeOf(key: string): TreeRecord | null | undefined {
    if (this.#alreadyPublished.has(key)) return undefined;
    const waiting = this.#dirty.get(key);
    return waiting === undefined ? this.#inFlight.get(key) : waiting;
  }

  async #run(): Promise<void> {
    while (this.#next !== null) {
      const waiter = this.#next;
      this.#next = null;
      this.#current = waiter;
      waiter.sync ||= this.#owesSync;
      const marks = this.#durability.beginBatch(waiter.sync);
      const dirty = this.#dirty;
      const fresh = this.#fresh;
      this.#dirty = new Map();
      this.#fresh = new Set();
      this.#inFlight = dirty;
      try {
        if (await this.#index.ready()) this.#cache.clear();
        const { batch, commit } = this.#encode(dirty, fresh);
        const outbox = { lastCommit: commit, firstUnpublished: this.#firstUnpublished };
        const tally = this.#index.complete(batch, { ...outbox, ...marks.journal });
        await this.#durability.write(batch, tally, waiter.sync);
        this.#durability.endBatch(marks, waiter.sync);
        this.#lastCommit = Math.max(this.#lastCommit, commit);
        this.#unsynced = !waiter.sync;
        this.#owesSync = false;
        if (this.#failure !== null) this.#onHealth(null);
        this.#failure = null;
        for (const [key, record] of dirty) {
          this.#cache.set(key, { record, stamp: batch.stamps.get(key) ?? 0n });
          if (!this.#dirty.has(key)) this.#alreadyPublished.delete(key);
        }
        this.#inFlight = new Map();
        waiter.resolve();
      } catch (error) {
        this.#durability.abandonBatch(marks);
        this.#failure = asError(error);
        this.#owesSync = waiter.sync;
        this.#onHealth(this.#failure);
        for (const [key, record] of this.#dirty) dirty.set(key, record);
        this.#dirty = dirty;
        this.#inFlight = new Map();
        if (!this.#closed) this.#schedule(RETRY_DELAY_MS);
        waiter.promise.catch(() => undefined);
        waiter.reject(this.#failure);
      }
    }
    this.#current = null;
  }

  /** Seals what changed: the only moment at which records are read for a commit. */
  #encode(dirty: ReadonlyMap<string, TreeRecord | null>, fresh: ReadonlySet<string>): { batch: Batch; commit: number } {
    const batch = this.#index.begin();
    const changes: KeyChange[] = [];
    for (const [key, record] of dirty) {
      const before = fresh.has(key) ? NOTHING : this.#cache.get(key);
      // what came and went between two commits
      if (record === null && before?.record === null) continue;
      const value = this.#index.add(batch, key, record, before?.stamp);
      const published = publishedKinds.has(key.charAt(0)) && !this.#alreadyPublished.has(key);
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
    const found = new Map<string, TreeRecord | null>();
    for (const changes of [this.#inFlight, this.#dirty]) {
      for (const [key, record] of changes) if (key.startsWith(prefix)) found.set(key, record);
    }
    return [...found].map(([key, record]) => ({ key, record })).sort((a, b) => (a.key < b.key ? -1 : 1));
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
    for (let n = first; n <= commit; n++) this.#dirty.set(outboxKey(n), null);
    this.#firstUnpublished = Math.max(this.#firstUnpublished, commit + 1);
    await this.commit();
  }

  /** Commits what is left and closes the database. */
  async close(): Promise<void> {
    if (this.#closed) return;
    // nothing may be left to the sync journal
    this.#unsynced ||= this.#durability.isInUse;
    this.#durability.distrust();
    try {
      await this.commit(true);
    } finally {
      this.#closed = true;
      // also the next try of what failed just now, which would open the database again
      this.#timer?.cancel();
      this.#timer = null;
      await this.#running;
      await this.#durability.close(this.#failure === null);
      await this.#index.close(this.#failure === null);
    }
  }
}

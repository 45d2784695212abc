// An index whose losses are noticed: sealed records in LevelDB, and with each batch of changes the
// tally of what is there. Knows keys and records, not what is cached or waits to be committed.

import type { Sealer } from '../crypto/sealer.ts';
import { asError, hasCode } from '../lib/errors.ts';
import { readClosedBatch, writeClosedBatch } from './closed-batch.ts';
import { damagedIndex } from './index-database.ts';
import type { BatchOperation, IndexBase, StoreSnapshot } from './index-database.ts';
import { openDatabase } from './open-database.ts';
import type { OpenDatabase, OpenedDatabase, OpenDatabaseOptions } from './open-database.ts';
import type { LeftSyncJournal } from './sync-journal-format.ts';
import { ALL_KEYS, decodeNumber, KIND, keyBytes, keyRange, outboxKey } from './keys.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import type { TreeRecord } from './records.ts';
import { EMPTY_TALLY, isTallied, newestTally, openTally, sealTally, TallyCount } from './tally.ts';
import type { Tally } from './tally.ts';

const ITERATOR_BATCH = 512;

/** A record as it lies on disk: its stamp is 0n, and the record null, where there is none. */
export interface StoredRecord {
  readonly record: TreeRecord | null;
  readonly stamp: bigint;
}

/** How an index is opened. */
export interface IndexOptions extends OpenDatabaseOptions {
  /** What opens the database beneath it; LevelDB unless told. */
  readonly openDatabase?: OpenDatabase;
  /** It was written before there were tallies: all records are counted once. */
  readonly adopt?: boolean;
  /** What a crash left in its sync journal. */
  readonly left?: LeftSyncJournal;
}

/** One batch of changes while it is put together. */
export interface Batch {
  readonly operations: BatchOperation[];
  /** Of the records that it puts. */
  readonly stamps: Map<string, bigint>;
  readonly count: TallyCount;
}

/** Sealed records by key, changed in counted batches. */
export class TalliedIndex {
  readonly #dir: string;
  readonly #opened: OpenedDatabase;
  readonly #db: IndexBase;
  readonly #sealer: Sealer;
  readonly #options: IndexOptions;
  /** As of the last batch that is on disk. */
  #tally = EMPTY_TALLY;
  #failed = false;

  private constructor(dir: string, opened: OpenedDatabase, sealer: Sealer, options: IndexOptions) {
    this.#dir = dir;
    this.#opened = opened;
    this.#db = opened.db;
    this.#sealer = sealer;
    this.#options = options;
  }

  /**
   * Opens or creates an index. HOME_LOCKED when another process has it open; CORRUPT_RECORD when it
   * is damaged, or lacks batches that it had, as far as that shows without reading all of it.
   */
  static async open(dir: string, sealer: Sealer, options: IndexOptions = {}): Promise<TalliedIndex> {
    const opened = await (options.openDatabase ?? openDatabase)(dir, options);
    const index = new TalliedIndex(dir, opened, sealer, options);
    try {
      index.#tally = await index.#readTally();
      await index.#replay();
      if (index.#tally.batch === 0) await index.#countAll();
      if (index.#tally.batch < (await readClosedBatch(dir, options.disk)))
        throw damagedIndex('its last changes are gone');
      index.#checkOutbox();
    } catch (error) {
      await opened.close();
      throw error;
    }
    return index;
  }

  async #readTally(): Promise<Tally> {
    const tallies: Tally[] = [];
    for await (const entries of this.#db.lists(keyRange(KIND.tally), ITERATOR_BATCH)) {
      for (const [key, value] of entries) {
        try {
          tallies.push(openTally(this.#sealer, key, value));
        } catch (error) {
          throw damagedIndex('a record of its last changes is damaged', error);
        }
      }
    }
    const { newest, missing } = newestTally(tallies);
    if (missing > 0) throw damagedIndex(`${missing} of its last ${tallies.length + missing} changes are gone`);
    return newest;
  }

  /** Writes the batches of the sync journal that a power cut took. */
  async #replay(): Promise<void> {
    const { batch } = this.#tally;
    let next = batch + 1;
    for (const { number, operations } of this.#options.left?.batches ?? []) {
      if (number > next) break;
      if (number === next) await this.#db.write([...operations], false);
      next = Math.max(next, number + 1);
    }
    if (next > batch + 1) this.#tally = await this.#readTally();
    // no power cut takes what was synced: the journal, or the index before it, was damaged
    if ((this.#options.left?.newest ?? 0) > this.#tally.batch) throw damagedIndex('changes that were synced are gone');
  }

  /** An index without a tally is new, or was written when there was none. */
  async #countAll(): Promise<void> {
    const count = new TallyCount();
    let [first, last, found] = [0, 0, false];
    for await (const entries of this.#db.lists(ALL_KEYS, ITERATOR_BATCH)) {
      if (this.#options.adopt !== true) throw damagedIndex('its tallies are gone');
      found = true;
      for (const [key, value] of entries) {
        const kind = String.fromCharCode(key[0] ?? 0);
        if (isTallied(kind)) count.replace(0n, this.#sealer.openStamped(value, key).stamp);
        if (kind !== KIND.outbox) continue;
        last = decodeNumber(key.toString('latin1'), 1);
        if (first === 0) first = last;
      }
    }
    if (!found) return;
    const outbox = { lastCommit: last, firstUnpublished: first === 0 ? last + 1 : first };
    const batch: Batch = { operations: [], stamps: new Map(), count };
    await this.write(batch, this.complete(batch, { ...outbox, journal: 0, journalId: 0n }), true);
  }

  #checkOutbox(): void {
    const { firstUnpublished, lastCommit } = this.#tally;
    for (const commit of firstUnpublished <= lastCommit ? [firstUnpublished, lastCommit] : []) {
      if (this.#db.get(keyBytes(outboxKey(commit))) === undefined) {
        throw damagedIndex(`change ${commit}, which was never published, is gone`);
      }
    }
  }

  get tally(): Tally {
    return this.#tally;
  }

  /** The committed record of a key. CORRUPT_RECORD when it was changed or damaged. */
  read(key: string): StoredRecord {
    try {
      const bytes = keyBytes(key);
      const sealed = this.#db.get(bytes);
      if (sealed === undefined) return { record: null, stamp: 0n };
      const opened = this.#sealer.openStamped(sealed, bytes);
      const record = decodeRecord(key.charAt(0), opened.bytes, key.length >= 9 ? decodeNumber(key, 1) : 0);
      return { record, stamp: opened.stamp };
    } catch (error) {
      if (!hasCode(error, 'REOPENING', 'CLOSED')) this.#options.onDamaged?.(asError(error));
      throw error;
    }
  }

  /** Resolves when an index that is being opened anew can be read; EIO when it could not for too long. */
  readable(): Promise<void> {
    return this.#db.readable();
  }

  /** Null once its tables are known to be whole, so that what is not there never was; else resolves then, or CORRUPT_RECORD. */
  whole(): Promise<void> | null {
    return this.#opened.whole();
  }

  #stampOnDisk(key: Buffer): bigint {
    try {
      const sealed = this.#db.get(key);
      return sealed === undefined ? 0n : this.#sealer.openStamped(sealed, key).stamp;
    } catch (error) {
      // it is replaced; that the tally is wrong from now on is for a full check to say
      this.#options.onDamaged?.(asError(error));
      return 0n;
    }
  }

  /** Begins a batch. */
  begin(): Batch {
    const { records, sum } = this.#tally;
    return { operations: [], stamps: new Map(), count: new TallyCount(records, sum) };
  }

  /** Adds one change, null a deletion, to a batch; returns the plaintext. `stamp`: of what it replaces, if known. */
  add(batch: Batch, keyText: string, record: TreeRecord | null, stamp: bigint | undefined): Uint8Array | null {
    const key = keyBytes(keyText);
    const kind = keyText.charAt(0);
    const before = isTallied(kind) ? (stamp ?? this.#stampOnDisk(key)) : 0n;
    if (record === null) {
      batch.operations.push({ type: 'del', key });
      batch.count.replace(before, 0n);
      return null;
    }
    const plaintext = encodeRecord(kind, record);
    const { bytes, stamp: after } = this.#sealer.sealStamped(plaintext, key);
    batch.operations.push({ type: 'put', key, value: bytes });
    batch.count.replace(before, after);
    batch.stamps.set(keyText, after);
    return plaintext;
  }

  /** Adds a commit of the outbox to a batch. */
  addCommit(batch: Batch, commit: number, changeSet: Uint8Array): void {
    const key = keyBytes(outboxKey(commit));
    batch.operations.push({ type: 'put', key, value: this.#sealer.seal(changeSet, key) });
  }

  /**
   * To be called before a batch is begun: after a failed write it opens the database anew. True when
   * it did, and what was read before is void: the batch that failed is there or is not.
   */
  async ready(): Promise<boolean> {
    if (!(await this.#db.ready()) && !this.#failed) return false;
    this.#failed = true;
    const tally = await this.#readTally();
    if (tally.batch < this.#tally.batch) throw damagedIndex('its last changes are gone');
    this.#tally = tally;
    this.#failed = false;
    return true;
  }

  /** Ends a batch, which gets its tally. */
  complete(batch: Batch, marks: Omit<Tally, 'batch' | 'records' | 'sum'>): Tally {
    const { records, sum } = batch.count;
    const tally: Tally = {
      ...{ batch: this.#tally.batch + 1, records, sum },
      ...marks,
      firstUnpublished: Math.min(marks.firstUnpublished, marks.lastCommit + 1),
    };
    // also makes a batch of an empty one, which LevelDB would skip with the sync of all earlier ones
    batch.operations.push({ type: 'put', ...sealTally(this.#sealer, tally) });
    return tally;
  }

  /** Writes a batch that is complete, whole or not at all; `sync`: it, and all before, survive a power cut. */
  async write(batch: Batch, tally: Tally, sync: boolean): Promise<void> {
    await this.#db.write(batch.operations, sync);
    this.#tally = tally;
  }

  /** Sealed records of a range, in lists of some hundreds. */
  lists(range: {
    gte: Buffer;
    lt: Buffer;
    limit?: number;
    snapshot?: StoreSnapshot;
  }): AsyncGenerator<[Buffer, Buffer][]> {
    return this.#db.lists(range, ITERATOR_BATCH);
  }

  /** A view of what is committed now; the caller closes it. */
  snapshot(): StoreSnapshot {
    return this.#db.snapshot();
  }

  /** Closes the database; `clean`: nothing that was acknowledged is missing in it. */
  async close(clean: boolean): Promise<void> {
    await this.#opened.close();
    if (clean) await writeClosedBatch(this.#dir, this.#tally.batch, this.#options.disk);
  }
}

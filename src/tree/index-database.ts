// The LevelDB beneath the index: its lock, its options, and how it goes on after a full disk. Knows
// bytes only.

import { readdirSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import type { Iterator } from 'level';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { asError, ERRNO, errnoOf, XcoreError } from '../lib/errors.ts';
import { isHeadless } from '../lib/headless-level.ts';
import { levelFailure } from '../lib/level-failure.ts';

type Database = Level<Buffer, Buffer>;
type Snapshot = ReturnType<Database['snapshot']>;

/** One change of a batch. */
export type BatchOperation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer };

/** A consistent view of the committed state. */
export interface StoreSnapshot {
  close(): Promise<void>;
}

/** What an index asks of the database beneath it; IndexDatabase, unless a test hands in another one. */
export type IndexBase = Pick<IndexDatabase, 'get' | 'readable' | 'ready' | 'write' | 'lists' | 'snapshot' | 'close'>;

/** What opening the database again may need: its log becomes a table, and new files begin. */
const REOPEN_BYTES = 32 * 1024 * 1024;
/** Bytes that an iterator brings at once: each time is a way to another thread and back. */
const LIST_BYTES = 64 * 1024;
/** After so long without it, readers of a database that is being opened anew wait no more. */
const REOPEN_DEADLINE_MS = 10_000;

const HEADLESS = 'its file CURRENT is gone';

/** Who watches over the writes of an index; what before() throws is their failure. */
export interface IndexGuard {
  readonly before: (sync: boolean) => void | Promise<void>;
  readonly after: (sync: boolean) => void;
  /** The database is closed, and is opened again once this resolves. */
  readonly reopening?: () => Promise<void>;
}

/** How a database is opened. */
export interface DatabaseOptions {
  readonly guard?: IndexGuard;
  /** Through which logs of LevelDB are synced that it does not sync itself; this machine's unless told. */
  readonly disk?: Disk;
  /** REOPEN_DEADLINE_MS unless told. */
  readonly reopenDeadlineMs?: number;
}

/** Readers that wait while the database is being opened anew. */
interface Reopening {
  readonly readable: PromiseWithResolvers<void>;
  readonly deadline: NodeJS.Timeout;
}

/** The error of an index that only a rebuild brings back. */
export function damagedIndex(what: string, cause?: unknown): XcoreError {
  return new XcoreError(
    'CORRUPT_RECORD',
    `the index of this volume is damaged: ${what}; nothing was changed. To rebuild it: xcore fsck --repair`,
    { cause },
  );
}

/** Sorted bytes on disk, changed in batches. */
export class IndexDatabase {
  readonly #db: Database;
  readonly #dir: string;
  readonly #guard: IndexGuard | undefined;
  readonly #disk: Disk;
  readonly #reopenDeadlineMs: number;
  #broken = false;
  #reopening: Reopening | null = null;

  private constructor(
    dir: string,
    { guard, disk = systemDisk, reopenDeadlineMs = REOPEN_DEADLINE_MS }: DatabaseOptions,
  ) {
    this.#disk = disk;
    this.#dir = dir;
    this.#guard = guard;
    this.#reopenDeadlineMs = reopenDeadlineMs;
    this.#db = new Level(dir, {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
      // what a write keeps in memory before it becomes a file, and what reads keep of files
      writeBufferSize: 4 * 1024 * 1024,
      cacheSize: 8 * 1024 * 1024,
      maxOpenFiles: 200,
    });
  }

  /** Opens or creates a database. HOME_LOCKED when another process has it open, CORRUPT_RECORD when it is damaged. */
  static async open(dir: string, options: DatabaseOptions = {}): Promise<IndexDatabase> {
    // LevelDB would take it for a new one, and remove what is there; it opens by itself once it is made
    if (isHeadless(dir)) throw damagedIndex(HEADLESS);
    const database = new IndexDatabase(dir, options);
    await database.#open();
    return database;
  }

  /** Numbers of the tables that make it up; what other tables there are, nobody needs. */
  get tables(): number[] {
    const listed = (this.#db as unknown as { getProperty(name: string): string }).getProperty('leveldb.sstables');
    return [...listed.matchAll(/^ (\d+):\d+\[/gm)].map(([, number]) => Number(number));
  }

  async #open(): Promise<void> {
    try {
      await this.#db.open();
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (!(cause instanceof Error)) throw error;
      if ('errno' in cause) throw cause;
      if ('code' in cause && cause.code === 'LEVEL_LOCKED') {
        throw new XcoreError('HOME_LOCKED', `another xcore process uses ${this.#dir}`, { cause: error });
      }
      const failure = levelFailure('the index cannot be opened', cause);
      throw failure.code === 'EIO' ? damagedIndex(cause.message, error) : failure;
    }
  }

  /** The value of a key, or undefined; CORRUPT_RECORD when the files cannot be read, REOPENING while they are opened anew. */
  get(key: Buffer): Buffer | undefined {
    try {
      return this.#db.getSync(key);
    } catch (error) {
      throw this.#readFailure(error);
    }
  }

  #readFailure(cause: unknown): XcoreError {
    const code = cause instanceof Error && 'code' in cause ? cause.code : '';
    // an iterator or a snapshot from before is closed, also when all is well again
    if (this.#reopening !== null || code === 'LEVEL_ITERATOR_NOT_OPEN' || code === 'LEVEL_SNAPSHOT_NOT_OPEN') {
      return new XcoreError('REOPENING', 'the index is being opened anew', { cause });
    }
    if (this.#db.status !== 'open') return new XcoreError('CLOSED', 'the index is closed', { cause });
    return damagedIndex('a part of it cannot be read', cause);
  }

  /** Resolves when a database that is being opened anew can be read; EIO when it could not for too long. */
  readable(): Promise<void> {
    return this.#reopening?.readable.promise ?? Promise.resolve();
  }

  /** To be called before write(): true when the database had to be opened anew, and what was read before is void. */
  async ready(): Promise<boolean> {
    if (!this.#broken) return false;
    await this.#reopen();
    return true;
  }

  /** Makes all changes or none; `sync`: they, and all before them, survive a power cut. ENOSPC, EROFS, EIO. */
  async write(operations: BatchOperation[], sync: boolean): Promise<void> {
    let hasBegun = false;
    try {
      await this.#guard?.before(sync);
      hasBegun = true;
      await this.#db.batch(operations, { sync });
      if (sync) await this.#syncEarlierLogs();
      this.#guard?.after(sync);
    } catch (error) {
      // a write that LevelDB never saw leaves it as it was
      this.#broken ||= hasBegun;
      throw levelFailure('the index cannot be written', asError(error));
    }
  }

  /** A sync of LevelDB is one of its newest log: what is in one before, and in no table yet, it leaves to chance. */
  async #syncEarlierLogs(): Promise<void> {
    const logs = readdirSync(this.#dir).filter((name) => name.endsWith('.log'));
    // their names are numbers, of six digits or more
    for (const name of logs.sort((a, b) => Number.parseInt(a) - Number.parseInt(b)).slice(0, -1)) {
      const file = await this.#disk.open(join(this.#dir, name), 'r').catch((error: unknown) => {
        // its table is written meanwhile, and synced
        if (errnoOf(error) === ERRNO.ENOENT) return null;
        throw error;
      });
      if (file === null) continue;
      try {
        await file.datasync();
      } finally {
        await file.close();
      }
    }
  }

  /**
   * After a failed write LevelDB refuses all others, or puts them behind half a record, where they
   * are lost at the next start. It stays open, and readable, until there is room to open it anew.
   */
  async #reopen(): Promise<void> {
    if (isHeadless(this.#dir)) throw damagedIndex(HEADLESS);
    if (this.#db.status !== 'closed') {
      const { bavail, bsize } = statfsSync(this.#dir);
      if (bavail * bsize < REOPEN_BYTES) throw new XcoreError('ENOSPC', 'the local disk is full');
      this.#reopening ??= this.#beginReopening();
      await this.#db.close();
    }
    await this.#guard?.reopening?.();
    await this.#open();
    this.#broken = false;
    this.#endReopening();
  }

  #beginReopening(): Reopening {
    const readable = Promise.withResolvers<void>();
    const late = (): void => readable.reject(new XcoreError('EIO', 'the index could not be opened anew'));
    // whoever waits is told; there may be nobody
    readable.promise.catch(() => undefined);
    return { readable, deadline: setTimeout(late, this.#reopenDeadlineMs) };
  }

  #endReopening(): void {
    const reopening = this.#reopening;
    this.#reopening = null;
    if (reopening === null) return;
    clearTimeout(reopening.deadline);
    reopening.readable.resolve();
  }

  /** Entries with gte <= key < lt, in order, in lists of up to `batch`. */
  async *lists(
    range: { gte: Buffer; lt: Buffer; limit?: number; reverse?: boolean; snapshot?: StoreSnapshot },
    batch: number,
  ): AsyncGenerator<[Buffer, Buffer][]> {
    const iterator = this.#iterator(range);
    try {
      for (;;) {
        const entries = await iterator.nextv(batch).catch((error: unknown) => {
          throw this.#readFailure(error);
        });
        if (entries.length === 0) return;
        yield entries;
      }
    } finally {
      await iterator.close();
    }
  }

  #iterator(range: { gte: Buffer; lt: Buffer; snapshot?: StoreSnapshot }): Iterator<Database, Buffer, Buffer> {
    try {
      return this.#db.iterator({
        ...(range as typeof range & { snapshot?: Snapshot }),
        highWaterMarkBytes: LIST_BYTES,
      });
    } catch (error) {
      throw this.#readFailure(error);
    }
  }

  /** A view of what is committed now; the caller closes it. */
  snapshot(): StoreSnapshot {
    return this.#db.snapshot();
  }

  close(): Promise<void> {
    this.#endReopening();
    return this.#db.close();
  }
}

// The LevelDB beneath the index: its lock, its options, and how it goes on after a full disk. Knows
// bytes only.

import { statfsSync } from 'node:fs';
import { Level } from 'level';
import { asError, XcoreError } from '../lib/errors.ts';

type Database = Level<Buffer, Buffer>;

/** One change of a batch. */
export type BatchOperation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer };

/** A consistent view of the committed state. */
export type StoreSnapshot = ReturnType<Database['snapshot']>;

/** What opening the database again may need: its log becomes a table, and new files begin. */
const REOPEN_BYTES = 32 * 1024 * 1024;

/** Sorted bytes on disk, changed in batches. */
export class IndexDatabase {
  readonly #db: Database;
  readonly #dir: string;
  #broken = false;

  private constructor(dir: string) {
    this.#dir = dir;
    this.#db = new Level(dir, {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
      // what a write keeps in memory before it becomes a file, and what reads keep of files
      writeBufferSize: 4 * 1024 * 1024,
      cacheSize: 8 * 1024 * 1024,
      maxOpenFiles: 200,
    });
  }

  /** Opens or creates a database. HOME_LOCKED when another process has it open. */
  static async open(dir: string): Promise<IndexDatabase> {
    const database = new IndexDatabase(dir);
    await database.#open();
    return database;
  }

  async #open(): Promise<void> {
    try {
      await this.#db.open();
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined;
      if (cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED') {
        throw new XcoreError('HOME_LOCKED', `another xcore process uses ${this.#dir}`, { cause: error });
      }
      throw cause instanceof Error && 'errno' in cause ? cause : error;
    }
  }

  get(key: Buffer): Buffer | undefined {
    return this.#db.getSync(key);
  }

  /** Makes all changes or none; `sync`: they, and all before them, survive a power cut. ENOSPC, EIO. */
  async write(operations: BatchOperation[], sync: boolean): Promise<void> {
    if (this.#broken) await this.#reopen();
    try {
      await this.#db.batch(operations, { sync });
    } catch (error) {
      this.#broken = true;
      const full = asError(error).message.includes('No space left');
      throw new XcoreError(full ? 'ENOSPC' : 'EIO', 'the index cannot be written', { cause: error });
    }
  }

  /**
   * After a failed write LevelDB refuses all others, or puts them behind half a record, where they
   * are lost at the next start. It stays open, and readable, until there is room to open it anew.
   */
  async #reopen(): Promise<void> {
    if (this.#db.status !== 'closed') {
      const { bavail, bsize } = statfsSync(this.#dir);
      if (bavail * bsize < REOPEN_BYTES) throw new XcoreError('ENOSPC', 'the local disk is full');
      await this.#db.close();
    }
    await this.#open();
    this.#broken = false;
  }

  /** Entries with gte <= key < lt, in order, in lists of up to `batch`. */
  async *lists(
    range: { gte: Buffer; lt: Buffer; limit?: number; reverse?: boolean; snapshot?: StoreSnapshot },
    batch: number,
  ): AsyncGenerator<[Buffer, Buffer][]> {
    const iterator = this.#db.iterator(range);
    try {
      for (;;) {
        const entries = await iterator.nextv(batch);
        if (entries.length === 0) return;
        yield entries;
      }
    } finally {
      await iterator.close();
    }
  }

  /** A view of what is committed now; the caller closes it. */
  snapshot(): StoreSnapshot {
    return this.#db.snapshot();
  }

  close(): Promise<void> {
    return this.#db.close();
  }
}

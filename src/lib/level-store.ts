// A store in LevelDB, and how it goes on after a full disk. Knows nothing of what is kept in it.

import { constants } from 'node:fs';
import { access, readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { asError, hasCode, XcoreError } from './errors.ts';
import { headlessMessage, isHeadless } from './headless-level.ts';
import { levelFailure } from './level-failure.ts';
import { silentLogger } from './log.ts';
import type { Logger } from './log.ts';
import type { BinaryLevel } from './open-level.ts';
import type { Store, StoreRange, StoreWrite } from './store.ts';

/** Batches that wait while others are written; more are refused. */
const MAX_WAITING_BATCHES = 100_000;
/** Written in one go, unless a single batch is larger. */
const MAX_WRITES_AT_ONCE = 10_000;
/** Besides a table of what is in the log, which opening anew needs. */
const REOPEN_BYTES = 1024 * 1024;

/** Whose store it is. */
export interface LevelStoreOptions {
  /** Folder of the database. */
  readonly dir: string;
  /** "bridge", "host". */
  readonly user: string;
  readonly log?: Logger;
}

interface Batch {
  readonly writes: readonly StoreWrite[];
  readonly sync: boolean;
  readonly done: PromiseWithResolvers<void>;
}

/**
 * A store in an open database, which it closes. A write that fails is EAGAIN: after it LevelDB refuses all others, or
 * puts them behind half a record, where they are lost at the next start. So nothing more is written before the database
 * was opened anew, for which there has to be room; it can be read until then.
 */
export class LevelStore implements Store {
  readonly #db: BinaryLevel;
  readonly #dir: string;
  readonly #user: string;
  readonly #log: Logger;
  #waiting: Batch[] = [];
  #isWriting = false;
  #writing: Promise<void> = Promise.resolve();
  #reopening: Promise<void> | null = null;
  #failure: XcoreError | undefined;

  constructor(db: BinaryLevel, { dir, user, log = silentLogger }: LevelStoreOptions) {
    this.#db = db;
    this.#dir = dir;
    this.#user = user;
    this.#log = log;
  }

  get failure(): XcoreError | undefined {
    return this.#failure;
  }

  get(key: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#reopening ? this.#reopening.then(() => this.#db.get(key)) : this.#db.get(key);
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    return this.#reopening ? this.#reopening.then(() => this.#db.getMany([...keys])) : this.#db.getMany([...keys]);
  }

  range(range: StoreRange): AsyncIterable<readonly [Uint8Array, Uint8Array]> {
    return this.#reopening ? this.#rangeAfter(this.#reopening, range) : this.#iterator(range);
  }

  async *#rangeAfter(reopening: Promise<void>, range: StoreRange): AsyncGenerator<readonly [Uint8Array, Uint8Array]> {
    await reopening;
    yield* this.#iterator(range);
  }

  #iterator({ from, to, limit = -1 }: StoreRange): AsyncIterable<readonly [Uint8Array, Uint8Array]> {
    return this.#db.iterator({ gte: from, lt: to, limit });
  }

  /** EAGAIN when it cannot be written now; whether a power cut finds it written is then open. */
  batch(writes: readonly StoreWrite[], options: { readonly sync?: boolean } = {}): Promise<void> {
    if (this.#waiting.length >= MAX_WAITING_BATCHES) {
      return Promise.reject(new XcoreError('EAGAIN', `the ${this.#user} has too much to write`));
    }
    const done = Promise.withResolvers<void>();
    this.#waiting.push({ writes, sync: options.sync ?? false, done });
    if (!this.#isWriting) this.#writing = this.#writeAll();
    return done.promise;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#db.close();
  }

  /** One write after another, so that none that is acknowledged lies behind a failed one; all that waits goes together. */
  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    while (this.#waiting.length > 0) {
      const batches = this.#takeSome();
      try {
        if (this.#failure) await this.#reopen();
        await this.#db.batch(
          batches.flatMap(({ writes }) =>
            writes.map(({ key, value }) =>
              value ? { type: 'put' as const, key, value } : { type: 'del' as const, key },
            ),
          ),
          { sync: batches.some(({ sync }) => sync) },
        );
        for (const { done } of batches) done.resolve();
      } catch (error) {
        this.#fail(asError(error));
        const { message } = this.#failure!;
        for (const { done } of batches) done.reject(new XcoreError('EAGAIN', message, { cause: error }));
      }
    }
    this.#isWriting = false;
  }

  #takeSome(): Batch[] {
    let [count, writes] = [0, 0];
    for (const batch of this.#waiting) {
      writes += batch.writes.length;
      if (count > 0 && writes > MAX_WRITES_AT_ONCE) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  #fail(error: Error): void {
    const failure = hasCode(error, 'ENOSPC', 'EROFS', 'EIO')
      ? error
      : levelFailure(`the ${this.#user} can store nothing now`, asError(error.cause ?? error));
    // Once, not for each write.
    if (failure.message !== this.#failure?.message) this.#log.error({ dir: this.#dir }, failure.message);
    this.#failure = failure;
  }

  async #reopen(): Promise<void> {
    try {
      await this.#checkRoom();
    } catch (error) {
      throw levelFailure(`the ${this.#user} can store nothing now`, asError(error));
    }
    const reopened = Promise.withResolvers<void>();
    this.#reopening = reopened.promise;
    try {
      await this.#db.close();
      await this.#db.open();
      this.#failure = undefined;
      this.#log.warn({ dir: this.#dir }, `the ${this.#user} can store again`);
    } finally {
      this.#reopening = null;
      reopened.resolve();
    }
  }

  async #checkRoom(): Promise<void> {
    if (isHeadless(this.#dir)) throw new Error(headlessMessage(this.#dir));
    await access(this.#dir, constants.W_OK);
    const logs = (await readdir(this.#dir)).filter((name) => name.endsWith('.log'));
    const sizes = await Promise.all(logs.map(async (name) => (await stat(join(this.#dir, name))).size));
    const { bavail, bsize } = await statfs(this.#dir);
    const neededBytes = sizes.reduce((sum, size) => sum + size, REOPEN_BYTES);
    if (bavail * bsize < neededBytes) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
  }
}

// How the LevelDB of an index is opened and closed: what an earlier process left of it is looked at first. Knows bytes
// only.

import { XcoreError } from '../lib/errors.ts';
import { findDamagedTable, tablesIn } from './check-tables.ts';
import { IndexDatabase } from './index-database.ts';
import type { DatabaseOptions, IndexBase } from './index-database.ts';
import { tablesInProcess } from './index-process.ts';
import { noteClosed, noteInUse, readInUse } from './in-use.ts';
import { damagedTable, TableCheck } from './table-check.ts';

/** Tables that are checked before the index is opened, within some hundredths of a second. */
const CHECKED_AT_OPEN_BYTES = 16 * 1024 * 1024;

/** How a database is opened. */
export interface OpenDatabaseOptions extends DatabaseOptions {
  /** Its tables are checked first, also when it was closed as it should be. */
  readonly verify?: boolean;
  /** Tables up to so many bytes are checked before it is opened; CHECKED_AT_OPEN_BYTES unless told. */
  readonly checkedAtOpenBytes?: number;
  /** Told when a record or a table is damaged or cannot be read. */
  readonly onDamaged?: (error: Error) => void;
}

/** A database that this process has. */
export interface OpenedDatabase {
  readonly db: IndexBase;
  /** Null once its tables are known to be whole, so that what is not there never was; else resolves then, or CORRUPT_RECORD. */
  whole(): Promise<void> | null;
  close(): Promise<void>;
}

/** Opens or creates the database in a folder; errors as those of openDatabase(). */
export type OpenDatabase = (dir: string, options: OpenDatabaseOptions) => Promise<OpenedDatabase>;

/**
 * Opens the LevelDB of an index. Its tables are looked at before it does, since it ends the process over some that are
 * damaged: all of them where the last process did not close it, else as many as take no time, and the others meanwhile.
 * HOME_LOCKED when another process has it, CORRUPT_RECORD when it is damaged.
 */
export const openDatabase: OpenDatabase = async (dir, options) => {
  const use = readInUse(dir);
  if (use === 'held') throw new XcoreError('HOME_LOCKED', `another xcore process uses ${dir}`);
  const isThorough = use === 'left' || options.verify === true;
  const { checkedAtOpenBytes = CHECKED_AT_OPEN_BYTES } = options;
  const { now, later } = tablesIn(dir, isThorough ? Infinity : checkedAtOpenBytes);
  let damaged = await findDamagedTable(dir, now);
  if (damaged !== null) {
    // it may be one that was being written when the process ended, or when the index was closed, and nobody's
    const needed = await tablesInProcess(dir);
    if (needed)
      damaged = await findDamagedTable(
        dir,
        now.filter((name) => needed.has(Number.parseInt(name, 10))),
      );
  }
  if (damaged !== null) throw damagedTable(damaged);
  noteInUse(dir);
  try {
    const db = await IndexDatabase.open(dir, options);
    const check = new TableCheck(dir, later, (error) => options.onDamaged?.(error));
    const close = async (): Promise<void> => {
      await check.stop();
      await db.close();
      noteClosed(dir);
    };
    return { db, whole: () => check.whole(), close };
  } catch (error) {
    noteClosed(dir);
    throw error;
  }
};

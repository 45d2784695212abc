// Opens a LevelDB of binary keys and values: its lock, its format version. Knows nothing of what is kept in it.

import { mkdir } from 'node:fs/promises';
import { Level } from 'level';
import { asError, XcoreError } from './errors.ts';
import { headlessMessage, isHeadless } from './headless-level.ts';
import { levelFailure } from './level-failure.ts';

/** A LevelDB whose keys and values are bytes. */
export type BinaryLevel = Level<Uint8Array, Uint8Array>;

/** What is opened, and what LevelDB is told. */
export interface OpenLevelOptions {
  /** Stored at the first opening; another one is refused from then on. */
  readonly formatVersion: number;
  /** Versions that the user can read as well; a database of one of them becomes one of `formatVersion`. */
  readonly olderVersions?: readonly number[];
  /** Who uses it, for messages: "bridge", "host". */
  readonly user: string;
  readonly writeBufferBytes?: number;
  /** Of its table files; LevelDB takes at least 1 MiB. */
  readonly maxFileBytes?: number;
  /** Table files that are open at once. */
  readonly maxOpenFiles?: number;
  /** Of decompressed blocks in memory. */
  readonly cacheBytes?: number;
}

/** Where the version lies; keys of the user must not begin with an exclamation mark. */
const FORMAT_KEY = Buffer.from('!format');

/** Opens or creates a database. HOME_LOCKED when it is open already, here or in another process; BAD_FORMAT when it is not ours; ENOSPC and EROFS. */
export async function openLevel(dir: string, options: OpenLevelOptions): Promise<BinaryLevel> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  if (isHeadless(dir)) throw new XcoreError('BAD_FORMAT', headlessMessage(dir));
  const db: BinaryLevel = new Level<Uint8Array, Uint8Array>(dir, {
    keyEncoding: 'view',
    valueEncoding: 'view',
    ...(options.writeBufferBytes === undefined ? {} : { writeBufferSize: options.writeBufferBytes }),
    ...(options.maxFileBytes === undefined ? {} : { maxFileSize: options.maxFileBytes }),
    ...(options.maxOpenFiles === undefined ? {} : { maxOpenFiles: options.maxOpenFiles }),
    ...(options.cacheBytes === undefined ? {} : { cacheSize: options.cacheBytes }),
  });
  try {
    await db.open();
  } catch (error) {
    throw asOpenError(dir, options.user, error);
  }
  try {
    await checkFormat(db, dir, options);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

async function checkFormat(db: BinaryLevel, dir: string, options: OpenLevelOptions): Promise<void> {
  const { formatVersion, olderVersions = [], user } = options;
  const stored = await db.get(FORMAT_KEY);
  if (stored) {
    if (stored.length === 1 && stored[0] === formatVersion) return;
    if (stored.length === 1 && olderVersions.includes(stored[0]!)) return setFormat(db, formatVersion);
    throw new XcoreError(
      'BAD_FORMAT',
      `${dir} has format ${stored[0] ?? 0}, which is none of a ${user} that this xcore knows: update xcore, or give the ${user} a folder of its own`,
    );
  }
  for await (const _key of db.keys({ limit: 1 })) {
    throw new XcoreError('BAD_FORMAT', `${dir} holds data of another program; give the ${user} a folder of its own`);
  }
  await setFormat(db, formatVersion);
}

function setFormat(db: BinaryLevel, version: number): Promise<void> {
  return db.batch([{ type: 'put', key: FORMAT_KEY, value: Uint8Array.of(version) }], { sync: true });
}

function asOpenError(dir: string, user: string, error: unknown): XcoreError {
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED') {
    return new XcoreError('HOME_LOCKED', `another ${user} already uses ${dir}; stop it, or choose another folder`, {
      cause,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(error);
  const failure = levelFailure(`the ${user}'s data in ${dir} cannot be opened`, asError(cause ?? error));
  if (failure.code !== 'EIO')
    return new XcoreError(failure.code, `${failure.message}; mend that first`, { cause: error });
  return new XcoreError('BAD_FORMAT', `the ${user}'s data in ${dir} cannot be opened: ${reason}`, { cause: error });
}

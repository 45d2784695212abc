// What can still be read of an index that cannot be used any more: the changes that were never
// published, and how many of them there should be. Nothing is changed in it.

import { spawn } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import type { Sealer } from '../crypto/sealer.ts';
import { hasCode } from '../lib/errors.ts';
import { readClosedBatch } from './closed-batch.ts';
import { IndexDatabase } from './index-database.ts';
import { ALL_KEYS, decodeNumber, KIND, metaKey } from './keys.ts';
import { ChangeSetSchema } from './proto/tree_pb.ts';
import type { ChangeSet } from './proto/tree_pb.ts';
import { decodeRecord, unpack } from './records.ts';
import type { HeadState, Upload } from './records.ts';
import { decodeTally, newestTally } from './tally.ts';
import type { Tally } from './tally.ts';

const ITERATOR_BATCH = 512;
/** A repair of an index takes no longer than this. */
const REPAIR_TIMEOUT_MS = 600_000;
/** On Node, `level` is `classic-level`, which can repair. */
const REPAIR = `import('level').then(({ Level }) => Level.repair(process.argv[1])).catch(() => process.exit(1))`;

/** What was found. */
export interface Salvage {
  /** Commits by their numbers; published ones may be among them. */
  readonly commits: ReadonlyMap<number, ChangeSet>;
  readonly head: HeadState | null;
  readonly uploads: ReadonlyMap<number, Upload>;
  /** Number of the newest commit that is known to have been made, and whether later ones may have been lost. */
  readonly lastCommit: number;
  readonly isWhole: boolean;
}

const NOTHING: Salvage = { commits: new Map(), head: null, uploads: new Map(), lastCommit: 0, isWhole: false };

/** Reads an index; where LevelDB refuses it, a copy in `scratch`, which it repairs as far as it can. */
export async function salvage(dir: string, scratch: string, sealer: Sealer): Promise<Salvage> {
  const closed = readClosedBatch(dir);
  const direct = await readFrom(dir, sealer, closed);
  if (direct !== null) return direct;
  try {
    await rm(scratch, { recursive: true, force: true });
    await cp(dir, scratch, { recursive: true });
    return (await repair(scratch)) ? ((await readFrom(scratch, sealer, closed)) ?? NOTHING) : NOTHING;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Lets LevelDB save what it can, in a process of its own: damage of some kinds ends it. */
async function repair(dir: string): Promise<boolean> {
  const child = spawn(process.execPath, ['-e', REPAIR, dir], {
    cwd: import.meta.dirname,
    stdio: 'ignore',
    timeout: REPAIR_TIMEOUT_MS,
  });
  const code = await new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null));
    child.once('close', resolve);
  });
  return code === 0;
}

/** Null when LevelDB cannot read all of it. */
async function readFrom(dir: string, sealer: Sealer, closed: number): Promise<Salvage | null> {
  try {
    const database = await IndexDatabase.open(dir);
    try {
      return await read(database, sealer, closed);
    } finally {
      await database.close();
    }
  } catch (error) {
    if (hasCode(error, 'CORRUPT_RECORD')) return null;
    throw error;
  }
}

async function read(database: IndexDatabase, sealer: Sealer, closed: number): Promise<Salvage> {
  const commits = new Map<number, ChangeSet>();
  const uploads = new Map<number, Upload>();
  const tallies: Tally[] = [];
  let head: HeadState | null = null;
  let damaged = 0;
  const take = (key: string, value: Buffer): void => {
    const kind = key.charAt(0);
    if (kind === KIND.outbox) commits.set(decodeNumber(key, 1), unpack(ChangeSetSchema, value));
    else if (kind === KIND.upload) uploads.set(decodeNumber(key, 1), decodeRecord(kind, value, 0) as Upload);
    else if (kind === KIND.tally) tallies.push(decodeTally(value));
    else if (key === metaKey('head')) head = decodeRecord(kind, value, 0) as HeadState;
  };
  const wanted = new Set<string>([KIND.outbox, KIND.upload, KIND.tally, KIND.meta]);
  for await (const entries of database.lists(ALL_KEYS, ITERATOR_BATCH)) {
    for (const [bytes, sealed] of entries) {
      const key = bytes.toString('latin1');
      if (!wanted.has(key.charAt(0))) continue;
      try {
        take(key, sealer.open(sealed, bytes));
      } catch {
        damaged++;
      }
    }
  }
  const { newest, missing } = newestTally(tallies);
  const lastCommit = Math.max(newest.lastCommit, ...commits.keys(), 0);
  // a ring without a gap that goes as far as the commits do: nothing is gone
  const isWhole = damaged === 0 && missing === 0 && newest.batch > 0 && newest.batch >= closed;
  return { commits, head, uploads, lastCommit, isWhole: isWhole && newest.lastCommit === lastCommit };
}

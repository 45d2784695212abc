// What can still be read of an index that cannot be used any more: the changes that were never
// published, and how many of them there should be. Nothing is changed in it.

import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sealer } from '../crypto/sealer.ts';
import { findDamagedTable, tablesIn } from './check-tables.ts';
import { readClosedBatch } from './closed-batch.ts';
import { readInProcess } from './index-process.ts';
import { readJournal } from './journal.ts';
import { decodeNumber, KIND, metaKey } from './keys.ts';
import { ChangeSetSchema } from './proto/tree_pb.ts';
import type { ChangeSet } from './proto/tree_pb.ts';
import { decodeRecord, unpack } from './record-codec.ts';
import type { HeadState, Upload } from './records.ts';
import { decodeTally, newestTally } from './tally.ts';
import type { Tally } from './tally.ts';

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

/** Kinds of records that are read. */
const WANTED = [KIND.outbox, KIND.upload, KIND.tally, KIND.meta].join('');

const NOTHING: Salvage = { commits: new Map(), head: null, uploads: new Map(), lastCommit: 0, isWhole: false };

/** Reads an index; where LevelDB refuses it, a copy in `scratch`, which it repairs as far as it can. HOME_LOCKED when it is in use. */
export async function salvage(dir: string, scratch: string, sealer: Sealer): Promise<Salvage> {
  const closed = readClosedBatch(dir);
  const direct = await readInProcess(dir, WANTED, false);
  if (direct !== null) return await understand(direct, dir, sealer, closed);
  try {
    for (const sparing of [false, true]) {
      await rm(scratch, { recursive: true, force: true });
      await cp(dir, scratch, { recursive: true });
      // what not even a repair survives has to go
      if (sparing) await removeDamagedTables(scratch);
      const repaired = await readInProcess(scratch, WANTED, true);
      if (repaired !== null) return await understand(repaired, dir, sealer, closed);
    }
    return NOTHING;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function removeDamagedTables(dir: string): Promise<void> {
  for (;;) {
    const damaged = await findDamagedTable(dir, tablesIn(dir).now);
    if (damaged === null) return;
    await rm(join(dir, damaged.name));
  }
}

async function understand(
  records: readonly [Buffer, Buffer][],
  dir: string,
  sealer: Sealer,
  closed: number,
): Promise<Salvage> {
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
  for (const [bytes, sealed] of records) {
    try {
      take(bytes.toString('latin1'), sealer.open(sealed, bytes));
    } catch {
      damaged++;
    }
  }
  const { newest, missing } = newestTally(tallies);
  const lastCommit = Math.max(newest.lastCommit, ...commits.keys(), 0);
  // what only the journal has is not carried over: it stays with the old folder
  const journaled = await readJournal(dir, sealer, newest);
  // a ring without a gap that goes as far as the commits do: nothing is gone
  const isWhole = damaged === 0 && missing === 0 && newest.batch > 0 && newest.batch >= closed;
  return {
    commits,
    head,
    uploads,
    lastCommit,
    isWhole: isWhole && journaled.length === 0 && newest.lastCommit === lastCommit,
  };
}

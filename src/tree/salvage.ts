// What can still be read of an index that cannot be used any more, and of the journals beside it: the changes
// that were never published, and how many of them there should be. Nothing is changed in it.

import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sealer } from '../crypto/sealer.ts';
import { asError } from '../lib/errors.ts';
import { findDamagedTable, tablesIn } from './check-tables.ts';
import { readClosedBatch } from './closed-batch.ts';
import { readInProcess } from './index-process.ts';
import { readJournal } from './journal.ts';
import type { JournalContent } from './journal.ts';
import { decodeNumber, KIND, metaKey, PUBLISHED_KINDS } from './keys.ts';
import { ChangeSetSchema } from './proto/tree_pb.ts';
import type { Change, ChangeSet } from './proto/tree_pb.ts';
import { decodeRecord, unpack } from './record-codec.ts';
import type { HeadState, Upload } from './records.ts';
import { NOTHING_LEFT, readSyncJournal } from './sync-journal.ts';
import type { LeftSyncJournal, NumberedBatch, Tail } from './sync-journal-format.ts';
import { decodeTally, newestTally } from './tally.ts';
import type { Tally } from './tally.ts';

/** Where what is to be saved lies. */
export interface SalvagePlaces {
  /** Folder of the index. */
  readonly index: string;
  readonly syncJournal: string;
  /** Folder for a copy of the index that is repaired; removed afterwards. */
  readonly scratch: string;
}

/** What was found. */
export interface Salvage {
  /** Commits by their numbers; published ones may be among them. */
  readonly commits: ReadonlyMap<number, ChangeSet>;
  /** What only the journal of the index holds: changes that come after the newest commit. */
  readonly journaled: readonly Change[];
  /** Ends of segments that the sync journal holds. */
  readonly tails: readonly Tail[];
  readonly head: HeadState | null;
  readonly uploads: ReadonlyMap<number, Upload>;
  /** Number of the newest commit that is known to have been made. */
  readonly lastCommit: number;
  /** The first commit that was not published as of `head`; null where that is not certain. */
  readonly firstUnpublished: number | null;
  /** Why changes may have been lost, one sentence each without a full stop; none when nothing was. */
  readonly missing: readonly string[];
}

/** Kinds of records that are read. */
const WANTED = [KIND.outbox, KIND.upload, KIND.tally, KIND.meta].join('');

const published: ReadonlySet<string> = new Set(PUBLISHED_KINDS);

/** Reads an index; where LevelDB refuses it, a copy that it repairs as far as it can. HOME_LOCKED when it is in use. */
export async function salvage(places: SalvagePlaces, sealer: Sealer): Promise<Salvage> {
  const records = await readIndex(places);
  const missing = records === null ? ['nothing of the index can be read'] : [];
  const left = await readSyncJournal(places.syncJournal).catch((error: unknown): LeftSyncJournal => {
    missing.push(`the sync journal cannot be read: ${asError(error).message}`);
    return NOTHING_LEFT;
  });
  return await understand(new Found(records ?? [], sealer, left.batches), left, places.index, sealer, missing);
}

async function readIndex({ index, scratch }: SalvagePlaces): Promise<[Buffer, Buffer][] | null> {
  const direct = await readInProcess(index, WANTED, false);
  if (direct !== null) return direct;
  try {
    for (const sparing of [false, true]) {
      await rm(scratch, { recursive: true, force: true });
      await cp(index, scratch, { recursive: true });
      // what not even a repair survives has to go
      if (sparing) await removeDamagedTables(scratch);
      const repaired = await readInProcess(scratch, WANTED, true);
      if (repaired !== null) return repaired;
    }
    return null;
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

/** Records of an index by key, with those of the batches that a sync journal holds: what can be opened, and what not. */
class Found {
  readonly plaintexts = new Map<string, Buffer>();
  readonly damaged = new Set<string>();
  readonly tallies: readonly Tally[];

  constructor(records: readonly [Buffer, Buffer][], sealer: Sealer, batches: readonly NumberedBatch[]) {
    const put = (key: Buffer, sealed: Buffer): void => {
      const name = key.toString('latin1');
      try {
        this.plaintexts.set(name, sealer.open(sealed, key));
        this.damaged.delete(name);
      } catch {
        this.damaged.add(name);
      }
    };
    for (const [key, sealed] of records) put(key, sealed);
    const { newest } = newestTally(this.#readTallies());
    for (const { number, operations } of batches) {
      for (const operation of operations) {
        const name = operation.key.toString('latin1');
        // an index that goes as far as this batch may hold what came after it
        const isOlder = number <= newest.batch && (operation.type === 'del' || this.plaintexts.has(name));
        if (isOlder || !WANTED.includes(name.charAt(0))) continue;
        if (operation.type === 'put') put(operation.key, operation.value);
        else this.plaintexts.delete(name);
      }
    }
    this.tallies = this.#readTallies();
  }

  #readTallies(): Tally[] {
    const tallies: Tally[] = [];
    for (const [key, value] of this.plaintexts) if (key.startsWith(KIND.tally)) tallies.push(decodeTally(value));
    return tallies;
  }
}

async function understand(
  { plaintexts, damaged, tallies }: Found,
  { entries, tails, newest: newestSynced }: LeftSyncJournal,
  index: string,
  sealer: Sealer,
  missing: string[],
): Promise<Salvage> {
  const commits = new Map<number, ChangeSet>();
  const uploads = new Map<number, Upload>();
  let head: HeadState | null = null;
  for (const [key, value] of plaintexts) {
    const kind = key.charAt(0);
    if (kind === KIND.outbox) commits.set(decodeNumber(key, 1), unpack(ChangeSetSchema, value));
    else if (kind === KIND.upload) uploads.set(decodeNumber(key, 1), decodeRecord(kind, value, 0) as Upload);
    else if (key === metaKey('head')) head = decodeRecord(kind, value, 0) as HeadState;
  }
  const { newest, missing: gaps } = newestTally(tallies);
  const lastCommit = Math.max(newest.lastCommit, ...commits.keys(), 0);
  const journal = await journalOf(index, sealer, newest, tallies, entries, missing);
  const isRing = newest.batch > 0 && gaps === 0;
  if (damaged.size > 0) missing.push(`${damaged.size} records of the index are damaged`);
  // a ring without a gap that goes as far as the commits do: nothing is gone
  if (!isRing || newest.lastCommit !== lastCommit) missing.push('some of the last changes of the index are gone');
  if (newest.batch < Math.max(await readClosedBatch(index), newestSynced)) {
    missing.push('the last changes of the index are gone, or damaged in its sync journal');
  }
  return {
    ...{ commits, journaled: takeJournaled(journal.payloads, uploads), tails, head, uploads, lastCommit, missing },
    firstUnpublished: isRing && newest.lastCommit === lastCommit ? newest.firstUnpublished : null,
  };
}

async function journalOf(
  index: string,
  sealer: Sealer,
  newest: Tally,
  tallies: readonly Tally[],
  synced: readonly Uint8Array[],
  missing: string[],
): Promise<JournalContent> {
  const batches = tallies.filter(({ journalId }) => journalId === newest.journalId).map(({ batch }) => batch);
  try {
    const found = await readJournal(index, sealer, newest, Math.min(...batches), synced);
    if (found.unusable > 0) {
      missing.push(`${found.unusable} changes in the journal of the index are damaged, or come after what is gone`);
    }
    return found;
  } catch (error) {
    missing.push(`the journal of the index cannot be read: ${asError(error).message}`);
    return { payloads: [], unusable: 0 };
  }
}

/** What entries of a journal say, the last of each record; uploads are noted as they are then. */
function takeJournaled(payloads: readonly Buffer[], uploads: Map<number, Upload>): Change[] {
  const changes = new Map<string, Change>();
  for (const payload of payloads) {
    for (const change of unpack(ChangeSetSchema, payload).changes) {
      const key = Buffer.from(change.key).toString('latin1');
      const kind = key.charAt(0);
      if (published.has(kind)) changes.set(key, change);
      if (kind !== KIND.upload) continue;
      const shard = decodeNumber(key, 1);
      if (change.value === undefined) uploads.delete(shard);
      else uploads.set(shard, decodeRecord(kind, change.value, 0) as Upload);
    }
  }
  return [...changes.values()];
}

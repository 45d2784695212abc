// The journal of an index: changes that are acknowledged and that no batch of LevelDB holds yet, so that
// close(2) costs one short write. Knows sealed entries and their order, not what they change.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Sealer } from '../crypto/sealer.ts';
import type { Disk, DiskFile } from '../lib/disk.ts';
import { systemDisk } from '../lib/disk.ts';
import { asError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { damagedIndex } from './index-database.ts';
import { encodeNumber, keyBytes } from './keys.ts';
import type { Tally } from './tally.ts';

/** Past this size entries are refused until a batch holds all of them. */
export const MAX_JOURNAL_BYTES: number = 4 * 1024 * 1024;
/** Of one entry; more at once is as well off in a batch. */
const MAX_ENTRY_BYTES = 256 * 1024;
/** What is numbered so much higher than the newest entry or batch is no entry. */
const MAX_LOST = 2 ** 24;
/** Length of the sealed entry (4), its number (8), the number of the batch that it comes after (8). */
const HEADER_BYTES = 20;

/** What an entry is bound to its place by: a journal, a number in it, a batch. */
function associatedOf(id: bigint, sequence: number, batch: number): Buffer {
  const bytes = keyBytes(`j........${encodeNumber(sequence)}${encodeNumber(batch)}`);
  bytes.writeBigUInt64BE(id, 1);
  return bytes;
}

/**
 * Numbered entries in one file, each of which says what changed since the entry and the batch before it. A batch that
 * holds the changes of all entries up to a number says so; from then on these are void, and the file is written from
 * its start again. Where a power cut took the end of LevelDB's log, entries that come after what is gone are void, too;
 * and so that none of them ever follows on what was written instead, each start gives the journal a new random number.
 */
export class Journal {
  readonly #file: DiskFile;
  readonly #sealer: Sealer;
  readonly id: bigint;
  #sequence = 0;
  /** The index does not know this journal yet. */
  #position = MAX_JOURNAL_BYTES;

  private constructor(file: DiskFile, sealer: Sealer, id: Uint8Array) {
    this.id = Buffer.from(id).readBigUInt64BE();
    this.#file = file;
    this.#sealer = sealer;
  }

  /**
   * Opens or creates the journal in the folder of an index with this tally; `synced` are the entries that its sync journal
   * holds. Returns what the entries that are not in the index say, in order: all of them after a kill; after a power cut
   * perhaps fewer, but all that were synced, else CORRUPT_RECORD. None is taken or overwritten before the first batch.
   */
  static async open(
    dir: string,
    sealer: Sealer,
    tally: Tally,
    synced: readonly Uint8Array[],
    disk: Disk = systemDisk,
    random: RandomBytes = randomBytes,
  ): Promise<{ journal: Journal; payloads: Buffer[] }> {
    const path = join(dir, 'journal');
    const found = await disk.readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    const { payloads, lost } = readEntries(found ?? Buffer.alloc(0), sealer, tally, synced);
    if (lost > 0) throw damagedIndex('changes that were synced are gone');
    const file = await disk.open(path, found === null ? 'w+' : 'r+', 0o600);
    return { journal: new Journal(file, sealer, random(8)), payloads };
  }

  /** Number of the newest entry. */
  get sequence(): number {
    return this.#sequence;
  }

  /**
   * A new entry, whose changes come after those of `batch`; the caller lets it outlive the process with write(), or in a
   * file of its own, before another follows. Null when it cannot be taken; nothing is changed then.
   */
  seal(payload: Uint8Array, batch: number): Buffer | null {
    const sequence = this.#sequence + 1;
    if (payload.length > MAX_ENTRY_BYTES || this.#position + payload.length > MAX_JOURNAL_BYTES) return null;
    const sealed = this.#sealer.seal(payload, associatedOf(this.id, sequence, batch));
    const entry = Buffer.allocUnsafe(HEADER_BYTES + sealed.length);
    entry.writeUInt32BE(sealed.length, 0);
    entry.write(encodeNumber(sequence) + encodeNumber(batch), 4, 'latin1');
    sealed.copy(entry, HEADER_BYTES);
    this.#sequence = sequence;
    return entry;
  }

  /** Writes an entry, which outlives the process then; false when that failed, and refuse() was called. */
  write(entry: Uint8Array): boolean {
    try {
      for (let done = 0; done < entry.length;) {
        done += this.#file.writeSync(entry, done, entry.length - done, this.#position + done);
      }
    } catch (error) {
      // the batch that comes instead meets the same disk, and says it
      asError(error);
      this.refuse();
      return false;
    }
    this.#position += entry.length;
    return true;
  }

  /** The newest entry is nowhere: those behind it could not be read, so that a batch has to come first. */
  refuse(): void {
    this.#position = MAX_JOURNAL_BYTES;
  }

  /** A batch that is written holds all entries up to `sequence`. */
  covered(sequence: number): void {
    if (sequence === this.#sequence) this.#position = 0;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** An entry as its header tells, before anything of it is checked. */
interface FoundEntry {
  readonly sequence: number;
  readonly batch: number;
  readonly sealed: Buffer;
  readonly end: number;
}

function entryAt(bytes: Buffer, at: number): FoundEntry | null {
  if (at + HEADER_BYTES > bytes.length) return null;
  const end = at + HEADER_BYTES + bytes.readUInt32BE(at);
  const sequence = Number(bytes.readBigUInt64BE(at + 4));
  const batch = Number(bytes.readBigUInt64BE(at + 12));
  return end > bytes.length ? null : { sequence, batch, sealed: bytes.subarray(at + HEADER_BYTES, end), end };
}

/** What an entry of the journal that a tally names says; null when it is none, or not whole. */
function open({ sequence, batch, sealed }: FoundEntry, sealer: Sealer, { journalId }: Tally): Buffer | null {
  try {
    return sealer.open(sealed, associatedOf(journalId, sequence, batch));
  } catch {
    return null;
  }
}

/** What entries say that an index lacks. */
interface ReadEntries {
  readonly payloads: Buffer[];
  /** Number of the entry that would follow, and where those in the file end. */
  readonly next: number;
  readonly end: number;
  /** Entries of the sync journal that do not follow. */
  readonly lost: number;
}

/**
 * The entries after those in the index, from the sync journal where they are there, up to the first one that is not
 * whole, or does not follow.
 */
function readEntries(bytes: Buffer, sealer: Sealer, tally: Tally, synced: readonly Uint8Array[]): ReadEntries {
  const safe = new Map<number, { entry: FoundEntry; payload: Buffer }>();
  for (const found of synced) {
    const entry = entryAt(Buffer.from(found.buffer, found.byteOffset, found.byteLength), 0);
    // others are of an earlier start
    const payload = entry !== null && entry.sequence > tally.journal ? open(entry, sealer, tally) : null;
    if (entry !== null && payload !== null) safe.set(entry.sequence, { entry, payload });
  }
  const payloads: Buffer[] = [];
  let next = tally.journal + 1;
  const takeSafe = (): void => {
    for (let found = safe.get(next); found !== undefined; found = safe.get(next)) {
      if (found.entry.batch > tally.batch) return;
      payloads.push(found.payload);
      next++;
    }
  };
  takeSafe();
  let end = 0;
  let previous = 0;
  for (let entry = entryAt(bytes, 0); entry !== null; entry = entryAt(bytes, end)) {
    const { sequence, batch } = entry;
    // one with a lower number is left of an earlier turn
    const follows = sequence <= next && batch <= tally.batch && sequence > previous;
    const payload = follows ? open(entry, sealer, tally) : null;
    if (payload === null) break;
    if (sequence === next) {
      payloads.push(payload);
      next++;
      takeSafe();
    }
    previous = sequence;
    end = entry.end;
  }
  return { payloads, next, end, lost: [...safe.keys()].filter((sequence) => sequence >= next).length };
}

/** What the journal of an index that is only looked at holds beyond it. */
export interface JournalContent {
  /** As Journal.open() returns them. */
  readonly payloads: Buffer[];
  /** Entries behind them that seem to have been acknowledged, and come after what is gone or damaged. */
  readonly unusable: number;
}

/**
 * Reads the journal of an index with this tally, which may have lost its last batches; `firstBatch` is the first that is
 * known to be of the start that the tally is of, `synced` what the sync journal holds of its entries.
 */
export async function readJournal(
  dir: string,
  sealer: Sealer,
  tally: Tally,
  firstBatch: number,
  synced: readonly Uint8Array[],
): Promise<JournalContent> {
  const bytes = await systemDisk.readFile(join(dir, 'journal')).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  });
  const { payloads, next, end, lost } = readEntries(bytes, sealer, tally, synced);
  let unusable = 0;
  for (let entry = entryAt(bytes, end); entry !== null; entry = entryAt(bytes, entry.end)) {
    const { sequence, batch } = entry;
    if (sequence === 0 || sequence > next + MAX_LOST || batch > tally.batch + MAX_LOST) break;
    // what is left of earlier entries has lower numbers, or earlier batches; of a later start nothing can be opened
    if (batch <= tally.batch && (sequence < next || batch < firstBatch)) break;
    unusable++;
  }
  return { payloads, unusable: Math.max(unusable, lost) };
}

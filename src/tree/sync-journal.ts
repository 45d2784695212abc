// What makes an fsync cheap: a file of fixed size into which the batches and the entries of the journal since the last
// full sync, and the ends of segments that they refer to, are written in place with one flush of the disk. When it is
// full, files and LevelDB are synced themselves, and it begins anew. Read only after a crash. Knows bytes, no records.

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from '../lib/atomic-file.ts';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { alignedMemory } from '../lib/direct-file.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk, DiskFile } from '../lib/disk.ts';
import { asError, ERRNO, errnoOf } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { DiskPatience } from '../lib/resident-read.ts';
import type { BatchOperation } from './index-database.ts';
import { decodeSyncJournal, encodeRecord, PAGE_BYTES, sizeOfBatch } from './sync-journal-format.ts';
import type { LeftSyncJournal, NumberedBatch, Tail } from './sync-journal-format.ts';

/** The file. */
const JOURNAL_BYTES = 4 * 1024 * 1024;
/** Batches and entries that wait in memory for the next sync; beyond, that one syncs all files. */
const MAX_PENDING_BYTES = 512 * 1024;

/** A record that is longer gets memory of its own. */
const USUAL_RECORD_BYTES = 64 * 1024;

/** Ends of segments that are not on the disk, which count as safe from now on; null when their files must be synced. */
export interface TailSource {
  takeTails(): readonly Tail[] | null;
}

/** What an absent journal holds. */
export const NOTHING_LEFT: LeftSyncJournal = { batches: [], entries: [], tails: [], newest: 0 };

/** What a journal holds after a crash; nothing where there is none. BAD_FORMAT for one of another version. */
export async function readSyncJournal(path: string, disk: Disk = systemDisk): Promise<LeftSyncJournal> {
  let file: Buffer;
  try {
    file = await disk.readFile(path);
  } catch (error) {
    if (errnoOf(error) === ERRNO.ENOENT) return NOTHING_LEFT;
    throw error;
  }
  return decodeSyncJournal(file);
}

/** What a journal works with; the system's unless told. */
export interface SyncJournalSurroundings {
  readonly disk?: Disk;
  readonly clock?: Clock;
  readonly randomBytes?: RandomBytes;
}

/** The journal of one index. It takes nothing until everything was synced once, which is what makes its content void. */
export class SyncJournal {
  readonly #path: string;
  readonly #disk: Disk;
  readonly #random: RandomBytes;
  #file: DiskFile | null = null;
  #making: Promise<void> | null = null;
  #usable = false;
  #generation: Uint8Array;
  #sequence = 0;
  #position = 0;
  #batches: NumberedBatch[] = [];
  /** Entries that come after all of these batches. */
  #entries: { readonly sequence: number; readonly bytes: Uint8Array }[] = [];
  #pendingBytes = 0;
  #memory: Buffer | null = null;
  /** Records reach the disk in their order. */
  #writing: Promise<void> | null = null;
  /** A thread costs about as much as a quick disk. */
  readonly #patience: DiskPatience;

  constructor(path: string, surroundings: SyncJournalSurroundings = {}) {
    const { disk = systemDisk, clock = systemClock, randomBytes: random = randomBytes } = surroundings;
    this.#path = path;
    this.#disk = disk;
    this.#random = random;
    this.#generation = random(8);
    this.#patience = new DiskPatience(clock);
  }

  /** Whether it holds what nothing else has made safe. */
  get isInUse(): boolean {
    return this.#position > 0;
  }

  /** Whether it takes anything now. */
  get isUsable(): boolean {
    return this.#usable && this.#file !== null;
  }

  /** Remembers a batch that is not synced; it holds the entries of the journal up to `lastEntry`. */
  note(number: number, operations: readonly BatchOperation[], lastEntry: number): void {
    if (!this.#usable) return;
    this.#entries = this.#entries.filter(({ sequence }) => sequence > lastEntry);
    this.#batches.push({ number, operations });
    this.#count(sizeOfBatch(operations));
  }

  /** Remembers an entry of the journal, as that has it. */
  noteEntry(sequence: number, bytes: Uint8Array): void {
    if (!this.#usable) return;
    this.#entries.push({ sequence, bytes });
    this.#count(bytes.length);
  }

  #count(sizeBytes: number): void {
    this.#pendingBytes += sizeBytes;
    if (this.#pendingBytes > MAX_PENDING_BYTES) this.distrust();
  }

  /**
   * Brings all that was noted and the ends of segments to the disk, at once where the disk is quick; null where it cannot,
   * and then all must be synced: once it has the ends, it takes nothing before that.
   */
  append(source: TailSource): Now<void> | null {
    if (!this.#usable || this.#file === null) return null;
    const tails = source.takeTails();
    if (tails === null) return null;
    const content = { batches: this.#batches, entries: this.#entries.map(({ bytes }) => bytes), tails };
    const record = encodeRecord(this.#generation, this.#sequence, content, this.#allocate);
    if (this.#position + record.length > JOURNAL_BYTES) {
      // the ends of segments count as safe already: without them, no shorter record may take the place of a full sync
      this.distrust();
      return null;
    }
    const position = this.#position;
    this.#position += record.length;
    this.#sequence++;
    this.#forget();
    const file = this.#file;
    const now = this.#writing === null ? this.#patience.wait(() => this.#writeNow(file, record, position)) : null;
    if (now !== null) return now === 'written' ? undefined : null;
    const writing = this.#write(file, record, position, this.#writing).finally(() => {
      if (this.#writing === writing) this.#writing = null;
    });
    this.#writing = writing;
    return writing;
  }

  /** Memory that direct writes can take: that of the last record, unless a thread writes it still. */
  readonly #allocate = (sizeBytes: number): Buffer => {
    const isUsual = sizeBytes <= USUAL_RECORD_BYTES && this.#writing === null;
    return isUsual ? (this.#memory ??= aligned(USUAL_RECORD_BYTES)).subarray(0, sizeBytes) : aligned(sizeBytes);
  };

  #writeNow(file: DiskFile, record: Buffer, position: number): 'written' | 'failed' {
    try {
      for (let done = 0; done < record.length;) {
        done += file.writeSync(record, done, record.length - done, position + done);
      }
    } catch (error) {
      // the sync of all files that comes instead meets the same disk, and says it
      asError(error);
      this.distrust();
      return 'failed';
    }
    return 'written';
  }

  async #write(file: DiskFile, record: Buffer, position: number, before: Promise<void> | null): Promise<void> {
    try {
      if (before !== null) await before;
      for (let done = 0; done < record.length;) {
        done += (await file.write(record, done, record.length - done, position + done)).bytesWritten;
      }
    } catch (error) {
      this.distrust();
      throw error;
    }
  }

  /** Resolves when nothing is being written. */
  async idle(): Promise<void> {
    // whoever waits for it hears of its failure
    await this.#writing?.catch(() => undefined);
  }

  #forget(): void {
    this.#batches = [];
    this.#entries = [];
    this.#pendingBytes = 0;
  }

  /** Something failed, or is missing in it: it takes nothing before the next reset(). */
  distrust(): void {
    this.#usable = false;
    this.#forget();
  }

  /** Everything is synced, and nothing is being written: what it holds is void, and it begins anew. */
  reset(): void {
    this.#generation = this.#random(8);
    this.#sequence = 0;
    this.#position = 0;
    this.#forget();
    this.#usable = true;
    // made when the first sync shows that it is of use; where it cannot be made, all syncs are full ones
    if (this.#file === null) this.#making ??= this.#make().catch(() => undefined);
  }

  /** Blocks that exist and were written once: a write in place then changes nothing but them. */
  async #make(): Promise<void> {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC;
    const file = await this.#disk.open(this.#path, flags, 0o600);
    try {
      const { size } = await file.stat();
      if (size !== JOURNAL_BYTES) await file.write(Buffer.alloc(JOURNAL_BYTES), 0, JOURNAL_BYTES, 0);
      if (size !== JOURNAL_BYTES) await file.sync();
      await syncFolder(dirname(this.#path), this.#disk);
    } catch (error) {
      await file.close();
      throw error;
    }
    const direct = await this.#openDirect(flags);
    if (direct !== null) await file.close();
    this.#file = direct ?? file;
  }

  /** Past the kernel's memory, which takes a copy and the care for dirty pages; null where the file system cannot. */
  async #openDirect(flags: number): Promise<DiskFile | null> {
    const file = await this.#disk.open(this.#path, flags | constants.O_DIRECT, 0o600).catch(() => null);
    try {
      // what is there is void still
      if (file !== null) await file.write(aligned(PAGE_BYTES).fill(0), 0, PAGE_BYTES, 0);
      return file;
    } catch {
      await file?.close().catch(() => undefined);
      return null;
    }
  }

  /** Closes the file; `clean`: everything is synced, and there is nothing to be read at the next start. */
  async close(clean: boolean): Promise<void> {
    this.distrust();
    await this.#making;
    await this.idle();
    const file = this.#file;
    this.#file = null;
    if (file === null) return;
    try {
      if (clean) await file.write(aligned(PAGE_BYTES).fill(0), 0, PAGE_BYTES, 0);
    } finally {
      await file.close();
    }
  }
}

function aligned(sizeBytes: number): Buffer {
  const memory = alignedMemory(sizeBytes);
  return Buffer.from(memory.buffer, memory.byteOffset, sizeBytes);
}

// Which changes of an index its journal holds, and which are still to be brought to it. Knows records
// as they are sealed, not where they wait.

import type { Sealer } from '../crypto/sealer.ts';
import type { Disk } from '../lib/disk.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { changesOf } from './change-set-bytes.ts';
import { Journal } from './journal.ts';
import { decodeNumber, keyBytes, KIND, PUBLISHED_KINDS } from './keys.ts';
import { changeSetBytes } from './record-bytes.ts';
import type { KeyChange } from './record-bytes.ts';
import { decodeRecord, encodeRecord } from './record-codec.ts';
import type { TreeRecord } from './records.ts';
import type { Tally } from './tally.ts';

const NO_LINEAGE = new Uint8Array(0);
/** Kinds of the changes that operations of a filesystem make; others wait for a batch. */
const journaledKinds: ReadonlySet<string> = new Set([...PUBLISHED_KINDS, KIND.upload]);

/** How far the journal is, as a batch notes it. */
export type JournalMarks = Pick<Tally, 'journal' | 'journalId'>;

/** The changes that entries of a journal make, the last of each record. */
export function changesIn(payloads: readonly Uint8Array[]): Map<string, TreeRecord | null> {
  const changes = new Map<string, TreeRecord | null>();
  for (const payload of payloads) {
    for (const { key, value } of changesOf(payload)) {
      const ino = key.length >= 9 ? decodeNumber(key, 1) : 0;
      changes.set(key, value === null ? null : decodeRecord(key.charAt(0), value, ino));
    }
  }
  return changes;
}

/** The journal of one index, with the keys of what is to go into its next entry. */
export class ChangeJournal {
  readonly #journal: Journal;
  /** Keys of changes that wait for a batch, and of those in the one under way. */
  #waiting = new Set<string>();
  #inFlight = new Set<string>();

  private constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** Opens or creates the journal in the folder of an index, as Journal.open(); `changes` are those that the index lacks. */
  static async open(
    dir: string,
    sealer: Sealer,
    tally: Tally,
    synced: readonly Uint8Array[],
    disk?: Disk,
    random?: RandomBytes,
  ): Promise<{ journal: ChangeJournal; changes: Map<string, TreeRecord | null> }> {
    const { journal, payloads } = await Journal.open(dir, sealer, tally, synced, disk, random);
    return { journal: new ChangeJournal(journal), changes: changesIn(payloads) };
  }

  /** Number of the newest entry. */
  get sequence(): number {
    return this.#journal.sequence;
  }

  /** Whether all changes are in the journal or in a batch that is written. */
  get isComplete(): boolean {
    return this.#waiting.size === 0 && this.#inFlight.size === 0;
  }

  /** A record was changed. */
  note(key: string): void {
    this.#waiting.add(key);
  }

  /** To be called when the changes that wait are taken for a batch. */
  beginBatch(): JournalMarks {
    this.#inFlight = this.#waiting;
    this.#waiting = new Set();
    return { journal: this.#journal.sequence, journalId: this.#journal.id };
  }

  /** The batch is written, or its changes wait again. */
  endBatch(marks: JournalMarks, isWritten: boolean): void {
    if (isWritten) this.#journal.covered(marks.journal);
    else for (const key of this.#inFlight) this.#waiting.add(key);
    this.#inFlight = new Set();
  }

  /**
   * A new entry of all changes that are in no batch which is written; `batch` is the newest such. In the same turn comes
   * keep(), noteKept() or refuse(). Undefined from `recordOf` is a change that is not for the journal. Null when they must
   * wait for a batch.
   */
  seal(recordOf: (key: string) => TreeRecord | null | undefined, batch: number): Buffer | null {
    const changes: KeyChange[] = [];
    for (const keys of [this.#inFlight, this.#waiting]) {
      for (const key of keys) {
        const kind = key.charAt(0);
        const record = recordOf(key);
        if (record === undefined || !journaledKinds.has(kind)) return null;
        changes.push({ key: keyBytes(key), value: record === null ? null : encodeRecord(kind, record) });
      }
    }
    return this.#journal.seal(changeSetBytes(changes, NO_LINEAGE, 0), batch);
  }

  /** Lets the entry that was sealed, and so all changes, outlive the process; false when they must wait for a batch. */
  keep(entry: Uint8Array): boolean {
    if (!this.#journal.write(entry)) return false;
    this.noteKept();
    return true;
  }

  /** The entry that was sealed outlives the process elsewhere. */
  noteKept(): void {
    this.#waiting.clear();
    this.#inFlight.clear();
  }

  /** The entry that was sealed is kept nowhere: no other is taken before a batch. */
  refuse(): void {
    this.#journal.refuse();
  }

  close(): Promise<void> {
    return this.#journal.close();
  }
}

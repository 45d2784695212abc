// Changes of records that no commit has brought to disk yet: those that wait for one, and those of the one under way.
// Knows keys and records, not how they are written.

import type { TreeRecord } from './records.ts';

/** Changed records by key; null is deleted. */
export type Changes = Map<string, TreeRecord | null>;

/** What a commit takes. */
export interface Taken {
  readonly changes: Changes;
  /** Keys among them of which no record was ever written. */
  readonly fresh: ReadonlySet<string>;
}

/** What is changed and not on disk; the newest change of each record. */
export class PendingRecords {
  #waiting: Changes = new Map();
  #inFlight: Changes = new Map();
  #fresh = new Set<string>();
  /** Keys whose deletion the log carries already. */
  readonly #alreadyPublished = new Set<string>();

  /** Changes that no commit has taken yet. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What a key was changed to; null: deleted, undefined: not changed. */
  of(key: string): TreeRecord | null | undefined {
    const waiting = this.#waiting.get(key);
    return waiting === undefined ? this.#inFlight.get(key) : waiting;
  }

  set(key: string, record: TreeRecord | null): void {
    this.#waiting.set(key, record);
  }

  /** Whether no record of a key was ever written, as far as anybody has said. */
  isFresh(key: string): boolean {
    return this.#fresh.has(key);
  }

  /** No record of a key was ever written; holds until the next commit takes it. */
  expectNone(key: string): void {
    this.#fresh.add(key);
  }

  /** Whether the log carries the deletion of a key already. */
  isPublished(key: string): boolean {
    return this.#alreadyPublished.has(key);
  }

  notePublished(key: string, isPublished: boolean): void {
    if (isPublished) this.#alreadyPublished.add(key);
    else this.#alreadyPublished.delete(key);
  }

  /** All changes go into a commit, after which comes settle() or giveBack(). */
  take(): Taken {
    const taken = { changes: this.#waiting, fresh: this.#fresh };
    this.#waiting = new Map();
    this.#fresh = new Set();
    this.#inFlight = taken.changes;
    return taken;
  }

  /** The commit is on disk. */
  settle(): void {
    for (const key of this.#inFlight.keys()) if (!this.#waiting.has(key)) this.#alreadyPublished.delete(key);
    this.#inFlight = new Map();
  }

  /** The commit failed: its changes wait again, unless there is a newer one of the same record. */
  giveBack(): void {
    for (const [key, record] of this.#waiting) this.#inFlight.set(key, record);
    this.#waiting = this.#inFlight;
    this.#inFlight = new Map();
  }

  /** Those of keys that begin with `prefix`, by key. */
  under(prefix: string): { key: string; record: TreeRecord | null }[] {
    const found: Changes = new Map();
    for (const changes of [this.#inFlight, this.#waiting]) {
      for (const [key, record] of changes) if (key.startsWith(prefix)) found.set(key, record);
    }
    return [...found].map(([key, record]) => ({ key, record })).sort((a, b) => (a.key < b.key ? -1 : 1));
  }
}

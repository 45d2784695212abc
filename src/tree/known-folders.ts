// Folders of which every name is known: what is not there need not be looked for, and a listing waits for nothing. Knows
// names and their keys, not where they are kept.

import { keyBytes } from './keys.ts';
import type { Dentry } from './records.ts';

/** Names that are known at once, of all folders; an empty folder counts as one. */
const MAX_KNOWN_NAMES = 20_000;
/** Of those, names of one folder. */
const MAX_FOLDER_NAMES = 12_500;

/** A dentry with its place in the directory's order. */
export interface ListedDentry {
  readonly dentry: Dentry;
  /** First 8 bytes of the hidden name, as an unsigned number. */
  readonly position: bigint;
}

/** Some dentries of a folder in their order; `isWhole`: no more follow. */
export interface DentryList {
  readonly dentries: ListedDentry[];
  readonly isWhole: boolean;
}

interface Known {
  readonly dentry: Dentry;
  readonly key: string;
}

interface Folder {
  readonly names: Map<string, Known>;
  /** In the order of their keys; null since a name came or went. */
  sorted: ListedDentry[] | null;
}

/** Place in a directory's order of the key of a dentry. */
export function positionOf(key: string): bigint {
  return keyBytes(key).readBigUInt64BE(9);
}

/** What folders hold that were made here or listed as a whole; the one that was not asked for longest goes first. */
export class KnownFolders {
  readonly #folders = new Map<number, Folder>();
  #names = 0;
  #changes = 0;

  /** Grows with each change of any folder. */
  get changes(): number {
    return this.#changes;
  }

  /** A name of a folder, null when it has none such; undefined when the folder is not known. */
  find(parent: number, name: string): Dentry | null | undefined {
    const folder = this.#folders.get(parent);
    return folder === undefined ? undefined : (folder.names.get(name)?.dentry ?? null);
  }

  /** All dentries of a folder, with their keys. */
  learn(parent: number, known: readonly Known[]): void {
    this.forget(parent);
    if (known.length > MAX_FOLDER_NAMES) return;
    this.#folders.set(parent, { names: new Map(known.map((entry) => [entry.dentry.name, entry])), sorted: null });
    this.#names += 1 + known.length;
    this.#trim();
  }

  #trim(): void {
    for (const oldest of this.#folders.keys()) {
      if (this.#names <= MAX_KNOWN_NAMES) return;
      this.forget(oldest);
    }
  }

  /** A name of a folder is set; true when it is known that there was none. */
  put(parent: number, dentry: Dentry, key: string): boolean {
    this.#changes++;
    const folder = this.#folders.get(parent);
    if (folder === undefined) return false;
    const isNew = !folder.names.has(dentry.name);
    folder.names.set(dentry.name, { dentry, key });
    folder.sorted = null;
    if (!isNew) return false;
    this.#names++;
    if (folder.names.size > MAX_FOLDER_NAMES) this.forget(parent);
    else this.#trim();
    return true;
  }

  delete(parent: number, name: string): void {
    this.#changes++;
    const folder = this.#folders.get(parent);
    if (folder?.names.delete(name) !== true) return;
    folder.sorted = null;
    this.#names--;
  }

  /** A folder is gone, or was changed by another hand. */
  forget(parent: number): void {
    this.#changes++;
    const folder = this.#folders.get(parent);
    if (folder === undefined) return;
    this.#folders.delete(parent);
    this.#names -= 1 + folder.names.size;
  }

  /** Nothing is known any more. */
  clear(): void {
    this.#changes++;
    this.#folders.clear();
    this.#names = 0;
  }

  /** Up to `limit` dentries of a folder from `position` on; null when it is not known. */
  list(parent: number, position: bigint, limit: number): DentryList | null {
    const folder = this.#folders.get(parent);
    if (folder === undefined) return null;
    // it is asked for
    this.#folders.delete(parent);
    this.#folders.set(parent, folder);
    folder.sorted ??= [...folder.names.values()]
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map(({ dentry, key }) => ({ dentry, position: positionOf(key) }));
    const first = position === 0n ? 0 : folder.sorted.findIndex((entry) => entry.position >= position);
    const dentries = first < 0 ? [] : folder.sorted.slice(first, first + limit);
    return { dentries, isWhole: first < 0 || first + dentries.length === folder.sorted.length };
  }
}

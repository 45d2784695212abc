// All that ever was in one owner's volume, as its users know it: each change makes a new moment out of the one before
// it, on whichever device. What a device shows must be one of these moments, whole; never something in between.

import type { Tree } from '../../src/tree/tree.ts';
import { ROOT_INO } from '../../src/tree/keys.ts';
import type { Content } from './content.ts';

export const FILES = ['f0', 'f1', 'f2', 'f3', 'f4'];
export const FOLDERS = ['d0', 'd1'];

/** What a name means. */
export interface Place {
  readonly ino: number;
  readonly isFolder: boolean;
  readonly sizeBytes: number;
  /** All of it, its attributes, and its times, which no two changes have in common. */
  readonly stamp: string;
}

/** What a tree shows, by path; the root is ''. */
export type Shown = ReadonlyMap<string, Place>;

/** What was once in a file. */
export interface Version {
  readonly content: Content;
  /** Power failed before it was synced: it may be unreadable, but not wrong. */
  doubtful: boolean;
}

/** Contents by inode number. */
export type Contents = ReadonlyMap<number, Version>;

/** What a change may touch: names, and every name of one inode; and what it makes of the contents. */
export interface Change {
  readonly what: string;
  readonly paths: ReadonlySet<string>;
  readonly ino?: number;
  readonly effect?: (before: Contents, after: Shown) => Contents;
}

/** The volume between two changes. */
export interface Moment {
  readonly parent: Moment | null;
  readonly depth: number;
  readonly device: string;
  readonly shown: Shown;
  readonly contents: Contents;
  readonly what: string;
}

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

/** What a tree shows now, at once. */
export function shownBy(tree: Tree): Shown {
  const shown = new Map<string, Place>();
  const note = (path: string, ino: number): boolean => {
    const inode = tree.inode(ino);
    if (!inode) {
      shown.set(path, { ino, isFolder: false, sizeBytes: -1, stamp: `${ino} is gone` });
      return false;
    }
    const { mode, sizeBytes, mtimeNs, ctimeNs, nlink } = inode;
    const attributes = [...tree.xattrs(ino)].map(
      ([name, value]) => ` ${name}=${Buffer.from(value).toString('latin1')}`,
    );
    shown.set(path, {
      ...{ ino, sizeBytes, isFolder: (mode & S_IFMT) === S_IFDIR },
      stamp: `${ino} ${mode} ${nlink} ${sizeBytes} ${mtimeNs} ${ctimeNs}${attributes.sort().join('')}`,
    });
    return (mode & S_IFMT) === S_IFDIR;
  };
  const walk = (at: string, ino: number): void => {
    if (!note(at, ino)) return;
    for (const name of at === '' ? [...FILES, ...FOLDERS] : FILES) {
      const dentry = tree.dentry(ino, name);
      if (dentry) walk(`${at}/${name}`, dentry.ino);
    }
  };
  if (!tree.isEmpty) walk('', ROOT_INO);
  return shown;
}

function keyOf(shown: Shown): string {
  return [...shown].map(([path, { stamp }]) => `${path} ${stamp}`).join('\n');
}

/** Whether `a` is `b`, or came before it. */
export function isBefore(a: Moment, b: Moment): boolean {
  let at: Moment | null = b;
  while (at && at.depth > a.depth) at = at.parent;
  return at === a;
}

/** What differs, for those who read complaints. */
export function differenceOf(a: Shown, b: Shown): string {
  const paths = [...new Set([...a.keys(), ...b.keys()])].filter((path) => a.get(path)?.stamp !== b.get(path)?.stamp);
  return paths
    .map((path) => `${path || '/'}: ${a.get(path)?.stamp ?? 'none'} and ${b.get(path)?.stamp ?? 'none'}`)
    .join('; ');
}

/** The history of one volume. */
export class History {
  readonly first: Moment;
  readonly complaints: string[] = [];
  /** The newest moment that is known to be in the log. */
  published: Moment;
  /** Whether a restored bridge was written to before it was handed in what it had lost. */
  forked = false;
  readonly #moments = new Map<string, Moment>();
  /** All parts of files that ever were, with their numbers. */
  readonly #parts = new Set<string>();
  readonly #trace: (line: string) => void;

  constructor(trace: (line: string) => void) {
    this.#trace = trace;
    const contents: Contents = new Map();
    this.first = { parent: null, depth: 0, device: '', shown: new Map(), contents, what: 'nothing' };
    this.published = this.first;
  }

  get moments(): number {
    return this.#moments.size;
  }

  complain(what: string): void {
    this.#trace(`complaint: ${what}`);
    if (this.complaints.length < 5) this.complaints.push(what);
  }

  /** Another entry is in the log than the one that was there before under the same number. */
  fork(seq: bigint): void {
    if (!this.forked) this.#trace(`the log forks at entry ${seq}`);
    this.forked = true;
  }

  /** The moment that a tree shows; undefined when there never was one. */
  find(shown: Shown): Moment | undefined {
    const known = this.#moments.get(keyOf(shown));
    // each device makes a root of its own for a volume in which nothing is yet
    return known ?? (shown.size <= 1 ? this.first : undefined);
  }

  /** The moment after a change; undefined when something else has changed as well. */
  add(before: Moment, shown: Shown, change: Change, device: string): Moment | undefined {
    const paths = new Set([...before.shown.keys(), ...shown.keys()]);
    for (const path of paths) {
      const [then, now] = [before.shown.get(path), shown.get(path)];
      if (then?.stamp === now?.stamp || change.paths.has(path)) continue;
      if (change.ino !== undefined && [then, now].every((place) => place?.ino === change.ino)) continue;
      // the root of a new volume is made when it gets its first writer
      if (path === '' && before === this.first) continue;
      return undefined;
    }
    const contents = change.effect?.(before.contents, shown) ?? before.contents;
    for (const [ino, version] of contents) {
      if (before.contents.get(ino) === version) continue;
      for (const [number, part] of version.content.parts().entries()) this.#parts.add(`${number} ${part}`);
    }
    const moment = { parent: before, depth: before.depth + 1, device, shown, contents, what: change.what };
    this.#moments.set(keyOf(shown), moment);
    this.#trace(`${device} moment ${moment.depth} ${change.what}`);
    return moment;
  }

  /** Whether each part of this was ever there in some file, in this place. */
  wasEver(content: Content): boolean {
    return content.parts().every((part, number) => this.#parts.has(`${number} ${part}`));
  }

  /** A moment is in the log: all others that are come before it, or after. */
  notePublished(moment: Moment, how: string): void {
    if (isBefore(moment, this.published)) return;
    if (!isBefore(this.published, moment) && !this.forked) {
      this.complain(
        `${how}: moment ${moment.depth} (${moment.device} ${moment.what}) does not follow on ${this.published.depth} (${this.published.device} ${this.published.what})`,
      );
      return;
    }
    this.#trace(`published ${moment.depth} ${how}`);
    this.published = moment;
  }
}

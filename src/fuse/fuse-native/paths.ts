// Finds inodes by path, as libfuse's high-level interface names them. Remembers folders until a name changes.

import { LRUCache } from 'lru-cache';
import { EILSEQ, ErrnoError } from './protocol.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { Filesystem } from '../../vfs/filesystem.ts';

const ROOT = 1;
/** Folders whose inode is remembered by path. */
const MAX_FOLDERS = 4096;
const REPLACEMENT = '�';
/** The names that libfuse gives to open files which are to go. */
const HIDDEN = /^\.fuse_hidden[0-9a-f]{16}$/;

/** Where a name is or would be. */
export interface Place {
  readonly parent: number;
  /** Its bytes as a latin1 string. */
  readonly name: string;
}

/** Path → inode of one mount. */
export class PathFinder {
  readonly #filesystem: Filesystem;
  readonly #folders = new LRUCache<string, number>({ max: MAX_FOLDERS });
  /** Files without a name that libfuse believes to have one. */
  readonly #hidden = new Map<string, number>();
  /** Grows with each change of names, so that a lookup under way is not remembered after it. */
  #changes = 0;

  constructor(filesystem: Filesystem) {
    this.#filesystem = filesystem;
  }

  /** Names have changed. */
  forget(): void {
    this.#changes++;
    this.#folders.clear();
  }

  /** ENOENT, ENOTDIR as lookup gives them; EILSEQ for a name that arrives damaged. */
  async inode(path: string): Promise<number> {
    if (path === '/') return ROOT;
    const hidden = this.hidden(path);
    if (hidden !== undefined) return hidden;
    const { parent, name } = await this.place(path);
    return await this.#lookup(parent, name);
  }

  /** The folder that a path's last name is in; the name itself need not be there. */
  async place(path: string): Promise<Place> {
    if (path.includes(REPLACEMENT)) throw new ErrnoError(EILSEQ);
    const end = path.lastIndexOf('/');
    if (end < 0 || end === path.length - 1) throw new XcoreError('EINVAL');
    return { parent: await this.#folder(path.slice(0, end)), name: bytesOf(path.slice(end + 1)) };
  }

  /** Whether this is a name that libfuse makes up. */
  isHidden(path: string): boolean {
    return HIDDEN.test(lastName(path));
  }

  /** From now on the made-up name means this inode. */
  hide(path: string, ino: number): void {
    this.#hidden.set(lastName(path), ino);
  }

  hidden(path: string): number | undefined {
    return this.#hidden.size === 0 ? undefined : this.#hidden.get(lastName(path));
  }

  /** The inode is closed: its made-up names mean nothing any more. */
  unhide(ino: number): void {
    for (const [name, hidden] of this.#hidden) if (hidden === ino) this.#hidden.delete(name);
  }

  /** `path` without a slash at its end; '' is the root. */
  async #folder(path: string): Promise<number> {
    if (path === '') return ROOT;
    const known = this.#folders.get(path);
    if (known !== undefined) return known;
    const changes = this.#changes;
    const end = path.lastIndexOf('/');
    const ino = await this.#lookup(await this.#folder(path.slice(0, end)), bytesOf(path.slice(end + 1)));
    if (changes === this.#changes) this.#folders.set(path, ino);
    return ino;
  }

  async #lookup(parent: number, name: string): Promise<number> {
    const attributes = await this.#filesystem.lookup(parent, name);
    if (attributes === null) throw new XcoreError('ENOENT');
    return attributes.ino;
  }
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function bytesOf(name: string): string {
  return Buffer.from(name, 'utf8').toString('latin1');
}

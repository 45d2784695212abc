// The open files of one mount, under numbers that fit the 31 bits which fuse-native carries.

import { ENFILE, ErrnoError } from './protocol.ts';
import { XcoreError } from '../../lib/errors.ts';

/** Files open at once. */
const MAX_HANDLES = 65_536;
const LAST_HANDLE = 0x7fff_ffff;

/** An open file of the filesystem. */
export interface Opened {
  readonly ino: number;
  /** The filesystem's own handle. */
  readonly handle: number;
}

/** Handle → open file. */
export class Handles {
  readonly #open = new Map<number, Opened>();
  readonly #opens = new Map<number, number>();
  #next = 1;

  /** Throws ENFILE when there is no room; to be called before the file is opened. */
  requireRoom(): void {
    if (this.#open.size >= MAX_HANDLES) throw new ErrnoError(ENFILE);
  }

  add(opened: Opened): number {
    while (this.#open.has(this.#next)) this.#advance();
    const handle = this.#next;
    this.#advance();
    this.#open.set(handle, opened);
    this.#opens.set(opened.ino, (this.#opens.get(opened.ino) ?? 0) + 1);
    return handle;
  }

  /** EBADF when it is not open. */
  get(handle: number): Opened {
    const opened = this.#open.get(handle);
    if (opened === undefined) throw new XcoreError('EBADF');
    return opened;
  }

  remove(handle: number): Opened {
    const opened = this.get(handle);
    this.#open.delete(handle);
    const left = (this.#opens.get(opened.ino) ?? 1) - 1;
    if (left === 0) this.#opens.delete(opened.ino);
    else this.#opens.set(opened.ino, left);
    return opened;
  }

  isOpen(ino: number): boolean {
    return this.#opens.has(ino);
  }

  /** All that is open, for who closes it. */
  values(): Opened[] {
    return [...this.#open.values()];
  }

  #advance(): void {
    this.#next = this.#next === LAST_HANDLE ? 1 : this.#next + 1;
  }
}

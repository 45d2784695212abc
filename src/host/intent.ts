// What the host's owner has told it to do, kept over restarts: to pause, to leave.

import { join } from 'node:path';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { levelFailure } from '../lib/level-failure.ts';

const FILE = 'intent.json';
const VERSION = 1;

/** The owner's wishes. */
export interface Wishes {
  /** Take nothing new. */
  readonly paused: boolean;
  /** Have everything moved away, then leave. */
  readonly exiting: boolean;
}

/** The wishes of one host, in its folder. */
export class Intent {
  readonly #path: string;
  readonly #disk: Disk;
  #wishes: Wishes;

  private constructor(path: string, disk: Disk, wishes: Wishes) {
    this.#path = path;
    this.#disk = disk;
    this.#wishes = wishes;
  }

  /** Reads what is stored; BAD_FORMAT for what is not ours. */
  static async open(dir: string, disk: Disk = systemDisk): Promise<Intent> {
    const path = join(dir, FILE);
    return new Intent(path, disk, await read(path, disk));
  }

  get wishes(): Wishes {
    return this.#wishes;
  }

  /** Changes wishes, durably; EROFS, ENOSPC or EIO where the disk does not take them. */
  async change(change: Partial<Wishes>): Promise<void> {
    const wishes = { ...this.#wishes, ...change };
    await writeFileAtomic(this.#path, `${JSON.stringify({ version: VERSION, ...wishes })}\n`, {
      mode: 0o600,
      disk: this.#disk,
    }).catch((error: unknown) => {
      throw levelFailure('that cannot be noted, and nothing was changed', asError(error));
    });
    this.#wishes = wishes;
  }
}

async function read(path: string, disk: Disk): Promise<Wishes> {
  try {
    const { version, paused, exiting } = JSON.parse((await disk.readFile(path)).toString()) as Record<string, unknown>;
    if (version !== VERSION) throw new XcoreError('BAD_FORMAT', `${path} is of another version; update xcore`);
    return { paused: paused === true, exiting: exiting === true };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { paused: false, exiting: false };
    if (error instanceof SyntaxError)
      throw new XcoreError('BAD_FORMAT', `${path} is damaged; remove it`, { cause: error });
    throw error;
  }
}

// A user who writes and reads files below a folder until told to stop, and knows what must be in them.

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Random } from './random.ts';

const MIN_FILE_BYTES = 64 << 10;
const MAX_FILE_BYTES = 3 << 20;
/** One of so many steps writes; the others read. */
const STEPS_PER_WRITE = 3;
const PAUSE_MS = 100;

/** What came of the work. */
export interface Work {
  readonly files: number;
  readonly writtenBytes: number;
  readonly readBytes: number;
  readonly longestMs: number;
  /** What went wrong, one line each. */
  readonly failures: readonly string[];
}

/** One user; works from the moment it is made. */
export class UserAtWork {
  /** SHA-256 of each file that was written in full, hex, by name. */
  readonly files = new Map<string, string>();
  readonly #dir: string;
  readonly #maxFiles: number;
  readonly #random: Random;
  readonly #failures: string[] = [];
  readonly #working: Promise<void>;
  #stopping = false;
  #writtenBytes = 0;
  #readBytes = 0;
  #longestMs = 0;

  /** From `maxFiles` files on, files are written anew. */
  constructor(dir: string, options: { readonly seed: string; readonly maxFiles: number }) {
    this.#dir = dir;
    this.#maxFiles = options.maxFiles;
    this.#random = new Random(options.seed);
    this.#working = this.#work();
  }

  /** Lets the step in hand end, and stops. */
  async stop(): Promise<Work> {
    this.#stopping = true;
    await this.#working;
    return {
      files: this.files.size,
      writtenBytes: this.#writtenBytes,
      readBytes: this.#readBytes,
      longestMs: Math.round(this.#longestMs),
      failures: this.#failures,
    };
  }

  async #work(): Promise<void> {
    while (!this.#stopping) {
      const writes = this.files.size === 0 || this.#random.below(STEPS_PER_WRITE) === 0;
      const name = writes ? `file-${this.#random.below(this.#maxFiles)}` : this.#random.pick([...this.files.keys()]);
      const started = performance.now();
      try {
        await (writes ? this.#write(name) : this.#read(name));
      } catch (error) {
        this.#failures.push(`${writes ? 'writing' : 'reading'} ${name}: ${String(error)}`);
      }
      this.#longestMs = Math.max(this.#longestMs, performance.now() - started);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  async #write(name: string): Promise<void> {
    const data = this.#random.bytes(this.#random.between(MIN_FILE_BYTES, MAX_FILE_BYTES));
    this.files.delete(name);
    await writeFile(join(this.#dir, name), data);
    this.files.set(name, sha256(data));
    this.#writtenBytes += data.length;
  }

  async #read(name: string): Promise<void> {
    const data = await readFile(join(this.#dir, name));
    this.#readBytes += data.length;
    if (sha256(data) !== this.files.get(name)) this.#failures.push(`reading ${name}: other bytes than were written`);
  }
}

/** SHA-256, hex. */
export function sha256(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

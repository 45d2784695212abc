// Writes past the kernel's memory, for bytes that nobody reads from it: they are neither copied nor written back later.

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import koffi from 'koffi';

/** What addresses, lengths and positions are multiples of. */
export const DIRECT_BYTES = 4_096;

/** Memory that threads share, as direct writes need it. */
export function alignedMemory(sizeBytes: number): Uint8Array<SharedArrayBuffer> {
  const memory = new SharedArrayBuffer(sizeBytes + DIRECT_BYTES);
  const excess = Number(koffi.address(new Uint8Array(memory)) % BigInt(DIRECT_BYTES));
  return new Uint8Array(memory, excess === 0 ? 0 : DIRECT_BYTES - excess, sizeBytes);
}

/** A second descriptor of an open file, for direct writes. Not every file system has them. */
export class DirectFile {
  readonly #fd: number;
  #file: FileHandle | null = null;
  #isRefused = constants.O_DIRECT === undefined;

  /** `fd` must stay open until close() has resolved. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Writes bytes and returns how many; 0 where an ordinary write must do it, or say what is wrong. */
  async write(bytes: Uint8Array, from: number, length: number, position: number): Promise<number> {
    if (this.#isRefused) return 0;
    try {
      this.#file ??= await open(`/proc/self/fd/${this.#fd}`, constants.O_WRONLY | constants.O_DIRECT);
      return (await this.#file.write(bytes, from, length, position)).bytesWritten;
    } catch {
      this.#isRefused = true;
      return 0;
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = null;
  }
}

// How many bytes a host holds, expects and may still take. Knows no files.

import { XcoreError } from '../lib/errors.ts';

/** Limits of a budget. */
export interface SpaceBudgetOptions {
  readonly limitBytes: number;
  /** Free space of the disk that is never used. */
  readonly floorBytes: number;
}

/** Counts bytes so that the limit holds also with transfers in flight. */
export class SpaceBudget {
  readonly #diskFreeBytes: () => Promise<number>;
  readonly #options: SpaceBudgetOptions;
  #usedBytes: number;
  #reservedBytes = 0;

  /** `usedBytes` is what the inventory found, `diskFreeBytes` asks the disk. */
  constructor(
    components: { readonly diskFreeBytes: () => Promise<number> },
    usedBytes: number,
    options: SpaceBudgetOptions,
  ) {
    this.#diskFreeBytes = components.diskFreeBytes;
    this.#options = options;
    this.#usedBytes = usedBytes;
  }

  get limitBytes(): number {
    return this.#options.limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Promised to transfers in flight. */
  get reservedBytes(): number {
    return this.#reservedBytes;
  }

  /** Sets bytes aside for a transfer; HOST_FULL when limit or disk does not allow it. */
  async reserve(sizeBytes: number): Promise<Reservation> {
    const diskFreeBytes = await this.#diskFreeBytes();
    if (this.#freeBytes(diskFreeBytes) < sizeBytes) throw new XcoreError('HOST_FULL', 'this host has no room left');
    this.#reservedBytes += sizeBytes;
    let open = true;
    const close = (): boolean => {
      if (!open) return false;
      open = false;
      this.#reservedBytes -= sizeBytes;
      return true;
    };
    return {
      keep: () => {
        if (close()) this.#usedBytes += sizeBytes;
      },
      release: () => void close(),
    };
  }

  /** Notes that a stored shard is gone. */
  removed(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes;
  }

  /** What the host can still take. */
  async freeBytes(): Promise<number> {
    return Math.max(0, this.#freeBytes(await this.#diskFreeBytes()));
  }

  #freeBytes(diskFreeBytes: number): number {
    const { limitBytes, floorBytes } = this.#options;
    const taken = this.#usedBytes + this.#reservedBytes;
    // Bytes in flight are partly on the disk already; counting them whole errs on the safe side.
    return Math.min(limitBytes - taken, diskFreeBytes - floorBytes - this.#reservedBytes);
  }
}

/** Bytes that are set aside until one of these is called; calls after the first do nothing. */
export interface Reservation {
  /** The bytes are stored now. */
  keep(): void;
  /** The bytes are not stored after all. */
  release(): void;
}

// Reads that the kernel has begun and that several readers wait for: asked again in each turn of the event loop, without a
// thread, and waited for one at a time while the disk is fast. Knows no shards.

import { systemClock } from '../lib/clock.ts';
import type { DiskFile } from '../lib/disk.ts';
import { DiskPatience, ReadBuffer } from '../lib/resident-read.ts';

interface Awaited {
  readonly file: DiskFile;
  readonly offset: number;
  readonly resolve: (isThere: boolean) => void;
}

/** Bytes on their way from the disk. */
export class DiskTurns {
  /** Oldest first; their readers' requests bound them. */
  #awaited: Awaited[] = [];
  readonly #patience = new DiskPatience();
  readonly #probe = new ReadBuffer(1);
  /** Read over by threads, and of no interest. */
  readonly #byte = Buffer.alloc(1);

  /** Resolves when a byte that the kernel is reading is there; to false when it cannot be read. */
  arrival(file: DiskFile, offset: number): Promise<boolean> {
    if (file.fd === undefined) return this.#byThread(file, offset);
    return new Promise((resolve) => {
      this.#awaited.push({ file, offset, resolve });
      if (this.#awaited.length === 1) systemClock.soon(this.#turn);
    });
  }

  readonly #turn = (): void => {
    const still = this.#awaited.filter((awaited) => !this.#isSettled(awaited));
    // all that could be done beside the disk is done
    if (still.length === this.#awaited.length && !this.#waitFor(still)) {
      // for a slow disk threads wait
      for (const { file, offset, resolve } of still.splice(0)) void this.#byThread(file, offset).then(resolve);
    }
    this.#awaited = still;
    if (still.length > 0) systemClock.soon(this.#turn);
  };

  #isSettled({ file: { fd = -1 }, offset, resolve }: Awaited): boolean {
    const isClosed = fd < 0;
    if (!isClosed && this.#probe.fill(fd, offset, 1) === null) return false;
    resolve(!isClosed);
    return true;
  }

  /** Waits for the oldest one and takes it out; false where the disk is too slow. */
  #waitFor(still: Awaited[]): boolean {
    const [oldest] = still;
    if (oldest === undefined) return true;
    const { fd = -1 } = oldest.file;
    const isRead = this.#patience.wait(() => fd >= 0 && this.#probe.fill(fd, oldest.offset, 1, true) !== null);
    if (isRead === null) return false;
    oldest.resolve(isRead);
    still.shift();
    return true;
  }

  async #byThread(file: DiskFile, offset: number): Promise<boolean> {
    try {
      return (await file.read(this.#byte, 0, 1, offset)).bytesRead > 0;
    } catch {
      return false;
    }
  }
}

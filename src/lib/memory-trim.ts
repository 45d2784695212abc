// Gives memory that was freed back to the system. glibc keeps it for later by default, in an arena
// for each thread, so that buffers of shards would count long after they are gone.

import koffi from 'koffi';
import type { Logger } from './log.ts';

const INTERVAL_MS = 1_000;
/** Growth since the last time that makes it worth the effort. */
const GROWTH_BYTES = 8 * 1024 * 1024;

/** Trims now and then while the process grows; does nothing where the C library has no such call. */
export class MemoryTrim {
  readonly #log: Logger;
  #timer: NodeJS.Timeout | null = null;

  constructor(log: Logger) {
    this.#log = log;
  }

  start(): void {
    let trim: (padBytes: number) => number;
    try {
      // malloc_trim(3)
      trim = koffi.load('libc.so.6').func('int malloc_trim(size_t pad)') as (padBytes: number) => number;
    } catch (error) {
      this.#log.debug({ error }, 'freed memory is given back by the C library alone');
      return;
    }
    let lastBytes = 0;
    this.#timer = setInterval(() => {
      if (process.memoryUsage.rss() - lastBytes < GROWTH_BYTES) return;
      trim(0);
      lastBytes = process.memoryUsage.rss();
    }, INTERVAL_MS);
    this.#timer.unref();
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }
}

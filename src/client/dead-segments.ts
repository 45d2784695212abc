// Gives the room of dead segments back while nothing can be published: what was written and removed again, and no host
// has. Keeps the bytes that some entry of the log will need because it ends between the one and the other.

import type { Clock } from '../lib/clock.ts';
import { asError, hasCode } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { KIND } from '../tree/keys.ts';
import type { Tree } from '../tree/tree.ts';
import type { LocalVolume } from './local-volume.ts';
import { isGone, References, stepsOf } from './outbox.ts';
import type { Uploader } from './uploader.ts';

/** Dead bytes below which nothing is done. */
const LEAST_BYTES = 32 * 1024 * 1024;
/** Changes that may be published at once because nothing between them can be any more. */
const MAX_RUN_BYTES = 8 * 1024 * 1024;
const CHECK_INTERVAL_MS = 2_000;
/** Reading the outbox takes at most this part of the time. */
const MAX_SHARE = 0.25;

/** What is given back, from which volume. */
export interface DeadSegmentsComponents {
  readonly volume: () => LocalVolume;
  readonly uploader: () => Uploader;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Bounds; the constants of this file unless told. */
export interface DeadSegmentsOptions {
  readonly leastDeadBytes?: number;
  readonly maxRunBytes?: number;
}

/** The parts of a volume that hold segments and the changes that refer to them. */
export type SegmentParts = Pick<LocalVolume, 'tree' | 'store' | 'files' | 'reader'>;

/** Those of the dead shards whose bytes no entry needs, whatever is published when. */
async function unneeded(tree: Tree, dead: Set<number>, maxRunBytes: number): Promise<Set<number>> {
  const begin = (): References => new References((shard) => dead.has(shard) || isGone(tree, shard));
  let references = begin();
  const run = new Map<string, number>();
  let runBytes = 0;
  for await (const { changes } of stepsOf(tree)) {
    for (const { key, value } of changes) {
      const sizeBytes = key.length + (value?.length ?? 0) + 8;
      runBytes += sizeBytes - (run.get(key) ?? 0);
      run.set(key, sizeBytes);
      if (key.startsWith(KIND.window)) references.set(key, value);
    }
    if (runBytes > maxRunBytes) {
      // an entry has to end here
      for (const shard of references.staged) if (dead.delete(shard)) references.ignore(shard);
    }
    if (references.staged.size > 0) continue;
    references = begin();
    run.clear();
    runBytes = 0;
  }
  for (const shard of references.staged) dead.delete(shard);
  return dead;
}

/** Frees dead segments, except those for which `isBusy` holds; returns their bytes. */
export async function freeDeadSegments(
  { tree, store, files, reader }: SegmentParts,
  isBusy: (shard: number) => boolean,
  { leastDeadBytes = LEAST_BYTES, maxRunBytes = MAX_RUN_BYTES }: DeadSegmentsOptions = {},
): Promise<number> {
  const isDead = (shard: number): boolean => {
    const entry = tree.shard(shard);
    return entry?.liveBytes === 0 && entry.id.length > 0 && tree.isStaged(shard) && !isBusy(shard);
  };
  const dead = new Set<number>();
  let deadBytes = 0;
  for (const { shard } of await tree.uploads()) {
    if (!isDead(shard)) continue;
    dead.add(shard);
    deadBytes += tree.requireShard(shard).sizeBytes;
  }
  if (deadBytes < leastDeadBytes) return 0;
  // also what a power cut leaves must have no use for them
  await store.commit(true);
  const free = [...(await unneeded(tree, dead, maxRunBytes))].filter(isDead);
  if (free.length === 0) return 0;
  for (const shard of free) tree.putUpload(shard, { durable: false, lost: true });
  await store.commit(true);
  let freedBytes = 0;
  for (const shard of free) {
    freedBytes += tree.shard(shard)?.sizeBytes ?? 0;
    reader.forget(shard);
    await files.drop(shard);
  }
  return freedBytes;
}

/** Looks for dead segments in the background. */
export class DeadSegments {
  readonly #c: DeadSegmentsComponents;
  readonly #options: DeadSegmentsOptions;
  #stopping = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(components: DeadSegmentsComponents, options: DeadSegmentsOptions) {
    this.#c = components;
    this.#options = options;
  }

  /** Begins, also again after stop(). */
  start(): void {
    this.#stopping = new AbortController();
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { clock, log, volume, uploader } = this.#c;
    const { signal } = this.#stopping;
    for (let pauseMs = CHECK_INTERVAL_MS; ;) {
      await clock.sleep(pauseMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      const { files } = volume();
      pauseMs = CHECK_INTERVAL_MS;
      if (files.stagedBytes < (this.#options.leastDeadBytes ?? LEAST_BYTES)) continue;
      const startMs = clock.monotonicMs();
      try {
        const freedBytes = await freeDeadSegments(volume(), (shard) => uploader().isBusyWith(shard), this.#options);
        if (freedBytes > 0) log.info({ freedBytes }, 'what was removed before any host had it is freed');
      } catch (error) {
        // the volume may have been replaced meanwhile
        if (!hasCode(error, 'CLOSED')) log.warn({ error: asError(error) }, 'dead segments could not be freed');
      }
      pauseMs = Math.max(pauseMs, (clock.monotonicMs() - startMs) / MAX_SHARE);
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }
}

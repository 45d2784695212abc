// Shards that need another mirror, in the store: those with the fewest left come first, those that could not be
// helped wait. Knows no hosts.

import type { Clock } from '../lib/clock.ts';
import { deferredRepairKey, ofKind, repairKey, repairsDue, shardAtEndOf } from './keys.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

const MAX_MIRRORS_LEFT = 250;
const MAX_ATTEMPTS = 12;
/** Deferred shards that become due in one go. */
const MAX_DUE = 1_000;

/** Times of a queue. */
export interface RepairQueueOptions {
  /** Before the second attempt; doubles with each further one. */
  readonly retryMs: number;
  readonly maxRetryMs: number;
}

/** A shard to be repaired. */
export interface RepairTask {
  readonly key: Uint8Array;
  readonly shardId: Uint8Array;
  readonly mirrorsLeft: number;
  readonly attempts: number;
}

/** The queue. A shard may be in it more than once; whoever takes it looks at the shard itself. */
export class RepairQueue {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #options: RepairQueueOptions;
  #wakeUntilMs = 0;

  constructor(components: { readonly store: Store; readonly clock: Clock }, options: RepairQueueOptions) {
    this.#store = components.store;
    this.#clock = components.clock;
    this.#options = options;
  }

  /** The write that puts a shard in. */
  add(shardId: Uint8Array, mirrorsLeft: number): StoreWrite {
    return { key: repairKey(clamp(mirrorsLeft, MAX_MIRRORS_LEFT), shardId), value: Uint8Array.of(0) };
  }

  /** The write that puts a shard in from a time on. */
  addLater(shardId: Uint8Array, mirrorsLeft: number, readyMs: number): StoreWrite {
    const value = Uint8Array.of(0, clamp(mirrorsLeft, MAX_MIRRORS_LEFT));
    return { key: deferredRepairKey(readyMs, shardId), value };
  }

  /** The write that takes a shard out. */
  done(task: RepairTask): StoreWrite {
    return { key: task.key };
  }

  /** Writes that have a shard wait, longer after each attempt. */
  defer(task: RepairTask): StoreWrite[] {
    const { retryMs, maxRetryMs } = this.#options;
    const readyMs = this.#clock.now() + Math.min(maxRetryMs, retryMs * 2 ** task.attempts);
    const value = Uint8Array.of(clamp(task.attempts + 1, MAX_ATTEMPTS), task.mirrorsLeft);
    return [{ key: task.key }, { key: deferredRepairKey(readyMs, task.shardId), value }];
  }

  /** Has all that wait now be tried again soon: there are new hosts, or old ones are back. */
  wake(): void {
    this.#wakeUntilMs = this.#clock.now() + this.#options.maxRetryMs;
  }

  /** The most endangered shards. */
  async next(limit: number): Promise<RepairTask[]> {
    await this.#bringDue();
    const tasks: RepairTask[] = [];
    for await (const [key, value] of this.#store.range({ ...ofKind('r'), limit })) {
      tasks.push({ key, shardId: shardAtEndOf(key), mirrorsLeft: key[1] ?? 0, attempts: value[0] ?? 0 });
    }
    return tasks;
  }

  /** Number of shards that wait, counted up to a limit. */
  async size(limit: number): Promise<number> {
    let count = 0;
    for (const kind of ['r', 'w'] as const) {
      for await (const _pair of this.#store.range({ ...ofKind(kind), limit })) count += 1;
    }
    return count;
  }

  /** Some of the shards that wait, the most endangered first; nothing is changed. */
  async some(limit: number): Promise<Uint8Array[]> {
    const found: Uint8Array[] = [];
    for (const kind of ['r', 'w'] as const) {
      const left = limit - found.length;
      if (left === 0) break;
      for await (const [key] of this.#store.range({ ...ofKind(kind), limit: left })) found.push(shardAtEndOf(key));
    }
    return found;
  }

  async #bringDue(): Promise<void> {
    const writes: StoreWrite[] = [];
    const until = Math.max(this.#clock.now(), this.#wakeUntilMs);
    for await (const [key, value] of this.#store.range(repairsDue(until, MAX_DUE))) {
      const shardId = shardAtEndOf(key);
      writes.push({ key }, { key: repairKey(value[1] ?? 0, shardId), value: Uint8Array.of(value[0] ?? 0) });
    }
    if (writes.length > 0) await this.#store.batch(writes);
    // Those that are put off from now on wait as usual.
    if (writes.length < 2 * MAX_DUE) this.#wakeUntilMs = 0;
  }
}

function clamp(value: number, max: number): number {
  return Math.max(0, Math.min(max, value));
}

// Whether a host can store anything: while it cannot, its disk is tried again before the bridge is told of its room.

import type { Store } from '../lib/store.ts';
import type { ShardStore } from './shard-store.ts';

/** What is looked at. */
export interface DiskHealthComponents {
  /** Where used serials are kept, without which nothing is stored. */
  readonly serials: Pick<Store, 'failure' | 'batch'>;
  readonly store: Pick<ShardStore, 'failure' | 'tryDisk' | 'budget'>;
}

/** The health of the disk below one host. */
export class DiskHealth {
  readonly #components: DiskHealthComponents;

  constructor(components: DiskHealthComponents) {
    this.#components = components;
  }

  /** Why nothing can be stored; undefined when something can. */
  get failure(): Error | undefined {
    const { serials, store } = this.#components;
    return serials.failure ?? store.failure;
  }

  /** What the host can take: nothing while its disk fails, which is tried again. */
  async freeBytes(): Promise<number> {
    const { serials, store } = this.#components;
    // a store that failed is opened anew by the next write
    if (serials.failure) await serials.batch([]).catch(() => undefined);
    if (store.failure) await store.tryDisk();
    return this.failure ? 0 : store.budget.freeBytes();
  }
}

// Shards that readers will come to soon, fetched a few at a time. Knows numbers only.

/** Fetches under way, of whomever, beside which another is begun ahead of readers. */
const MAX_PREFETCHES = 4;
/** Shards that wait for their turn; the oldest wish goes beyond. */
const MAX_WANTED = 16;

/** What wanted shards are fetched with. */
export interface WantedShardsComponents {
  /** Fetches under way. */
  readonly underWay: () => number;
  /** Fetches a shard unless it is here. */
  readonly fetch: (shard: number) => Promise<void>;
}

/** Wishes, in the order of asking. */
export class WantedShards {
  readonly #c: WantedShardsComponents;
  readonly #shards = new Set<number>();

  constructor(components: WantedShardsComponents) {
    this.#c = components;
  }

  /** Has a shard fetched in its turn. */
  add(shard: number): void {
    this.#shards.add(shard);
    const [oldest] = this.#shards;
    if (this.#shards.size > MAX_WANTED && oldest !== undefined) this.#shards.delete(oldest);
    this.next();
  }

  /** Begins what may begin; to be called when a fetch has ended. */
  next(): void {
    for (const shard of this.#shards) {
      if (this.#c.underWay() >= MAX_PREFETCHES) return;
      this.#shards.delete(shard);
      // whoever reads these bytes meets the error and tries again
      this.#c.fetch(shard).catch(() => undefined);
    }
  }

  delete(shard: number): void {
    this.#shards.delete(shard);
  }

  clear(): void {
    this.#shards.clear();
  }
}

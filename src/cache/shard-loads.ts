// Local files on their way into memory, for sequential readers: read and checked by another thread. Knows no keys.

import type { ArrivedShards } from './arrived-shards.ts';
import type { Hasher } from './hasher.ts';
import type { ShardFiles } from './shard-files.ts';
import type { ShardEntry, ShardTable } from './shard-table.ts';

/** What shards are loaded with. */
export interface ShardLoadsComponents {
  readonly table: ShardTable;
  readonly files: ShardFiles;
  /** Reads and checks a file elsewhere than on the calling thread. */
  readonly loader: Pick<Hasher, 'load'>;
}

/** Loads of whole shards; as many as there is memory. */
export class ShardLoads {
  readonly #c: ShardLoadsComponents;
  readonly #arrived: ArrivedShards;
  readonly #underWay = new Map<number, Promise<void>>();

  constructor(components: ShardLoadsComponents, arrived: ArrivedShards) {
    this.#c = components;
    this.#arrived = arrived;
  }

  /** Resolves when a shard is in memory, or is found not to load; undefined when it is not on its way. */
  of(shard: number): Promise<void> | undefined {
    return this.#underWay.get(shard);
  }

  /** Loads a shard with a local file, which is not on its way; false where no memory is to spare. */
  begin(shard: number, entry: ShardEntry): boolean {
    const memory = this.#arrived.takeSpare();
    if (memory === null) return false;
    this.#underWay.set(shard, this.#load(shard, entry, memory));
    return true;
  }

  /** What fails is for a read to find out. */
  async #load(shard: number, { id, sizeBytes }: ShardEntry, memory: SharedArrayBuffer): Promise<void> {
    const path = this.#c.files.path(shard);
    try {
      const start = await this.#c.loader.load({ path, id, sizeBytes, memory });
      const isOf = start !== null && this.#c.table.shard(shard) !== undefined;
      if (isOf) this.#arrived.put(shard, memory, start, sizeBytes);
      else this.#arrived.give(memory);
    } catch {
      // a thread that ended in between may have left a read under way
      this.#arrived.lose();
    } finally {
      this.#underWay.delete(shard);
    }
  }

  /** Waits for loads under way. */
  async stop(): Promise<void> {
    await Promise.all(this.#underWay.values());
  }
}

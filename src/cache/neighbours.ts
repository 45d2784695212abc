// Which shards are likely read after one that comes from the network: those that were written about when it was. Where
// they are is asked in one call, since each call to the bridge costs more than a read. Knows numbers only.

import { LRUCache } from 'lru-cache';
import type { ShardFiles } from './shard-files.ts';
import type { ShardTable } from './shard-table.ts';

/** Shards whose numbers are the same but for their last digits: half of what one call may ask for. */
const GROUP_SHARDS = 128;
/** Groups that were asked for lately. */
const MAX_GROUPS = 256;
/** Fetches of a group after which it is asked for again: what the bridge says is good for a while only. */
const ASK_AGAIN_AFTER = 64;

/** What neighbours are found with. */
export interface NeighboursComponents {
  readonly table: ShardTable;
  readonly files: ShardFiles;
  readonly fetcher: {
    /** Where these shards are will likely be asked soon. */
    expect(ids: readonly Uint8Array[]): void;
  };
}

/** Asks for groups of shards. */
export class Neighbours {
  readonly #c: NeighboursComponents;
  /** By group, fetches since it was asked for. */
  readonly #fetches = new LRUCache<number, number>({ max: MAX_GROUPS });

  constructor(components: NeighboursComponents) {
    this.#c = components;
  }

  /** A shard is about to be fetched. */
  expect(shard: number): void {
    const group = Math.floor(shard / GROUP_SHARDS);
    const fetches = this.#fetches.get(group) ?? 0;
    this.#fetches.set(group, (fetches + 1) % ASK_AGAIN_AFTER);
    if (fetches > 0) return;
    const { table, files, fetcher } = this.#c;
    const ids: Uint8Array[] = [];
    for (let other = group * GROUP_SHARDS; other < (group + 1) * GROUP_SHARDS; other++) {
      const entry = files.has(other) ? undefined : table.shard(other);
      if (entry !== undefined && entry.id.length > 0) ids.push(entry.id);
    }
    if (ids.length > 1) fetcher.expect(ids);
  }
}

// Shards and leaves that come from the network: what is fetched, in which order, and how much of it at once. Knows no
// keys, and not what is in local files.

import { LRUCache } from 'lru-cache';
import { leafCountOf } from '../crypto/merkle.ts';
import type { ArrivedShards } from './arrived-shards.ts';
import { Neighbours } from './neighbours.ts';
import { RangeWidth } from './range-width.ts';
import { fileSizeOf } from './shard-files.ts';
import type { ShardFiles } from './shard-files.ts';
import type { ShardEntry, ShardTable } from './shard-table.ts';
import { WantedShards } from './wanted-shards.ts';

/** Shards of which it is remembered how many leaves were fetched by themselves. */
const REMEMBERED_RANGES = 1_024;
/** After so many leaves, a quarter, the whole shard is fetched as well: what is asked for so often is better kept. */
const WHOLE_AFTER_LEAVES = 32;
/** Leaves of one shard at most. */
export const LEAVES_PER_SHARD = 128;

/** Where shards come from that are not here; what it returns is verified. */
export interface ShardFetcher {
  /**
   * Writes a shard and its leaf hashes to `path`, whole or not at all. Resolves to true if `memory` has the verified
   * bytes, too; once it has settled, nothing is written there any more.
   */
  fetchShard(
    id: Uint8Array,
    sizeBytes: number,
    path: string,
    signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<unknown>;
  /** Bytes of the leaves, which the caller owns. */
  fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array>;
  /** Where these shards are will likely be asked soon. */
  expect(ids: readonly Uint8Array[]): void;
  /** How many mirrors of a shard are known; rejects while nobody can be asked. */
  mirrors(id: Uint8Array): Promise<number>;
}

/** What is fetched with. */
export interface RemoteShardsComponents {
  readonly table: ShardTable;
  readonly files: ShardFiles;
  readonly fetcher: ShardFetcher;
}

/** Fetches; one for each whole shard, however many wait for it. */
export class RemoteShards {
  readonly #c: RemoteShardsComponents;
  readonly #arrived: ArrivedShards;
  readonly #onArrived: (shard: number, entry: ShardEntry) => void;
  readonly #ranges = new LRUCache<number, number>({ max: REMEMBERED_RANGES });
  readonly #fetches = new Map<number, Promise<void>>();
  #rangeFetches = 0;
  readonly #neighbours: Neighbours;
  readonly #width = new RangeWidth();
  readonly #wanted = new WantedShards({
    underWay: () => this.#fetches.size,
    fetch: (shard) => this.prefetch(shard),
  });

  /** `onArrived` is told of a shard before it is in the memory of `arrived`. */
  constructor(
    components: RemoteShardsComponents,
    arrived: ArrivedShards,
    onArrived: (shard: number, entry: ShardEntry) => void,
  ) {
    this.#c = components;
    this.#arrived = arrived;
    this.#onArrived = onArrived;
    this.#neighbours = new Neighbours(components);
  }

  /** Whether anything is under way. */
  get isFetching(): boolean {
    return this.#fetches.size + this.#rangeFetches > 0;
  }

  /** Whole shards that are under way. */
  get fetching(): number {
    return this.#fetches.size;
  }

  /** Whether the whole of a shard is under way. */
  isComing(shard: number): boolean {
    return this.#fetches.has(shard);
  }

  /** A leaf, by `shard` * 128 + its place, was read from memory. */
  used(leaf: number): void {
    this.#width.used(leaf);
  }

  /** Verified leaves, which are the caller's, from the first or one before it to the last or one behind it. */
  async leaves(
    shard: number,
    { id, sizeBytes }: ShardEntry,
    first: number,
    last: number,
    signal?: AbortSignal,
  ): Promise<{ readonly first: number; readonly bytes: Uint8Array }> {
    const { leaves: width } = this.#width;
    const from = first - (first % width);
    const to = Math.min(leafCountOf(sizeBytes), Math.max(last + 1, from + width));
    this.#width.fetched(shard * LEAVES_PER_SHARD + first);
    this.#noteRange(shard, to - from);
    this.#rangeFetches++;
    this.#neighbours.expect(shard);
    try {
      return { first: from, bytes: await this.#c.fetcher.fetchLeaves(id, sizeBytes, from, to - from, signal) };
    } finally {
      this.#rangeFetches--;
    }
  }

  /** Leaves of a shard are fetched by themselves; this read does not wait for the whole. */
  #noteRange(shard: number, leafCount: number): void {
    const leaves = (this.#ranges.get(shard) ?? 0) + leafCount;
    this.#ranges.set(shard, leaves < WHOLE_AFTER_LEAVES ? leaves : 0);
    if (leaves >= WHOLE_AFTER_LEAVES) this.want(shard);
  }

  /** Fetches a whole shard into the local cache unless it is here. */
  prefetch(shard: number): Promise<void> {
    const running = this.#fetches.get(shard);
    if (running !== undefined) return running;
    if (this.#c.files.has(shard)) return Promise.resolve();
    const fetch = this.#fetch(shard).finally(() => {
      this.#fetches.delete(shard);
      this.#wanted.next();
    });
    this.#fetches.set(shard, fetch);
    return fetch;
  }

  /** Has a shard fetched in its turn, a few at a time, unless it is here. */
  want(shard: number): void {
    if (!this.#fetches.has(shard) && !this.#c.files.has(shard)) this.#wanted.add(shard);
  }

  async #fetch(shard: number): Promise<void> {
    const entry = this.#c.table.requireShard(shard);
    const { id, sizeBytes } = entry;
    const fileBytes = fileSizeOf(sizeBytes);
    this.#neighbours.expect(shard);
    await this.#c.files.reserve(fileBytes);
    let memory: SharedArrayBuffer | null = null;
    try {
      const path = await this.#c.files.prepare(shard);
      memory = this.#arrived.take();
      const inMemory = await this.#c.fetcher.fetchShard(id, sizeBytes, path, undefined, memory ?? undefined);
      this.#c.files.add(shard, fileBytes, false);
      if (memory === null || inMemory !== true || this.#c.table.shard(shard) === undefined) return;
      this.#onArrived(shard, entry);
      this.#arrived.put(shard, memory, 0, sizeBytes);
      memory = null;
    } finally {
      if (memory !== null) this.#arrived.give(memory);
      this.#c.files.release(fileBytes);
    }
  }

  /** Forgets the wish for a shard that is freed. */
  forget(shard: number): void {
    this.#wanted.delete(shard);
  }

  /** Waits for whole shards under way. */
  async stop(): Promise<void> {
    this.#wanted.clear();
    await Promise.allSettled(this.#fetches.values());
  }
}

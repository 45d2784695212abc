// Which shards a host is to hold: the directory's records, by host. So a host's shards are listed, and one of
// them is drawn, without looking at any other. Every change comes back as writes for the caller's batch.

import type { PeerName } from '../net/network.ts';
import type { HostRegistry } from './host-registry.ts';
import { MIRROR_INDEX_KEY, mirrorKey, mirrorsOf, nextId, ofKind, shardAtEndOf } from './keys.ts';
import { unpackShard } from './shard-packing.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

const PRESENT = Uint8Array.of(1);
const SHARD_ID_BYTES = 32;
const BUILD_BATCH = 1_000;
/**
 * Ids after a random point among which one is drawn. A drawn id alone would come up as often as the gap before it is wide,
 * and a host knows its gaps; the sum of 256 gaps differs little from one id to the next.
 */
const DRAWN_AMONG = 256;

/** The index of mirrors by host. */
export class MirrorIndex {
  readonly #store: Store;
  readonly #registry: HostRegistry;

  constructor(components: { readonly store: Store; readonly registry: HostRegistry }) {
    this.#store = components.store;
    this.#registry = components.registry;
  }

  /** Builds the index of a store that has none yet. */
  async load(): Promise<void> {
    if (await this.#store.get(MIRROR_INDEX_KEY)) return;
    const shards = new Map<PeerName, number>();
    let writes: StoreWrite[] = [];
    for await (const [key, value] of this.#store.range(ofKind('s'))) {
      const { mirrors, sizeBytes } = unpackShard(value, this.#registry);
      for (const { host } of mirrors) {
        writes.push({ key: mirrorKey(host, shardAtEndOf(key)), value: PRESENT });
        this.#registry.assigned(host, 1, sizeBytes);
        shards.set(host, (shards.get(host) ?? 0) + 1);
      }
      if (writes.length >= BUILD_BATCH) await this.#store.batch(writes.splice(0));
    }
    writes = [...writes, { key: MIRROR_INDEX_KEY, value: PRESENT }];
    await this.#store.batch(writes, { sync: true });
    await this.#registry.flush();
  }

  /** Notes a new mirror. */
  added(host: PeerName, shardId: Uint8Array, sizeBytes: number): StoreWrite {
    this.#registry.assigned(host, 1, sizeBytes);
    return { key: mirrorKey(host, shardId), value: PRESENT };
  }

  /** Notes that a mirror is no more. */
  removed(host: PeerName, shardId: Uint8Array, sizeBytes: number): StoreWrite {
    this.#registry.assigned(host, -1, -sizeBytes);
    return { key: mirrorKey(host, shardId) };
  }

  /** Shards of a host above `after` (empty: from the first), ascending, at most `limit`, up to `to` inclusive if given. */
  async list(host: PeerName, after: Uint8Array, limit: number, to?: Uint8Array): Promise<Uint8Array[]> {
    const from = after.length > 0 ? nextId(after) : undefined;
    const ids: Uint8Array[] = [];
    for await (const [key] of this.#store.range(mirrorsOf(host, limit, from, to && nextId(to)))) {
      ids.push(shardAtEndOf(key));
    }
    return ids;
  }

  /** One of the host's shards, each about as likely as any other, or undefined; `random` gives numbers in [0, 1). */
  async draw(host: PeerName, random: () => number): Promise<Uint8Array | undefined> {
    const point = Buffer.alloc(SHARD_ID_BYTES);
    point.writeUIntBE(Math.floor(random() * 2 ** 48), 0, 6);
    const skip = Math.floor(random() * DRAWN_AMONG);
    const ids = await this.list(host, point, skip + 1);
    if (ids.length <= skip) ids.push(...(await this.list(host, new Uint8Array(), skip + 1 - ids.length, point)));
    return ids[skip % Math.max(1, ids.length)];
  }
}

// Answers Announce and Place: which hosts are to store a shard, with an order for each.

import type { PeerName, Policy } from '../net/network.ts';
import { XcoreError } from '../lib/errors.ts';
import { MAX_PLACE_SHARDS } from '../net/protocols.ts';
import type { Announce, Place, ShardRef } from '../net/proto/wire_pb.ts';
import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import type { HostPool } from './host-pool.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import type { Policies } from './policies.ts';
import type { ShardRecord } from './proto/records_pb.ts';
import { checkDistinct, checkShard, hexOf, sameBytes, toNumber } from './records.ts';
import type { LoadedShards, ShardDirectory } from './shard-directory.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

const MAX_EXCLUDED_HOSTS = 256;
/** Hosts that hold a shard or have an order for it, before no further host gets one. */
const MAX_HOSTS_PER_SHARD = 8;

/** What a placer works with. */
export interface PlacerComponents {
  readonly store: Store;
  readonly volumes: Volumes;
  readonly policies: Policies;
  readonly registry: HostRegistry;
  readonly pool: HostPool;
  readonly book: OrderBook;
  readonly directory: ShardDirectory;
  readonly signer: OrderSigner;
  readonly volumeQueue: KeyedQueue;
}

interface PlacementDraft {
  readonly shardId: Uint8Array;
  readonly receipts: number;
  readonly targets: { host: PeerName; addresses: string[]; order: ReturnType<OrderSigner['make']>['signed'] }[];
}

/** Decides where shards go. */
export class Placer {
  readonly #components: PlacerComponents;

  constructor(components: PlacerComponents) {
    this.#components = components;
  }

  /** Answers Announce: the owner's wish is noted, and the policy as of now comes back. PROTOCOL. */
  async announce({ volume }: Owner, { sizeBytes, mirrors }: Announce): Promise<ResponseInit> {
    const { volumeQueue, volumes, policies } = this.#components;
    if (mirrors > 0) {
      await volumeQueue.run(hexOf(volume), async () => {
        await volumes.ensure(volume);
        await policies.setMirrors(volume, mirrors);
      });
    }
    return { case: 'policy', value: policies.of(volume, toNumber(sizeBytes)) };
  }

  /** Places shards. NO_HOSTS when one of them finds no host at all, QUOTA, REFUSED, TOO_LARGE, PROTOCOL. */
  async place(owner: Owner, request: Place): Promise<ResponseInit> {
    const { shards, excludeHosts } = request;
    if (shards.length === 0 || shards.length > MAX_PLACE_SHARDS || excludeHosts.length > MAX_EXCLUDED_HOSTS) {
      throw new XcoreError('PROTOCOL', `Place names 1 to ${MAX_PLACE_SHARDS} shards`);
    }
    for (const shard of shards) checkShard(shard);
    checkDistinct(shards.map((shard) => shard.shardId));
    const { volumeQueue, volumes, directory, store } = this.#components;
    return volumeQueue.run(hexOf(owner.volume), async () => {
      await volumes.ensure(owner.volume);
      const known = await directory.load(shards.map((shard) => shard.shardId));
      await this.#checkQuota(owner, shards, known);
      const policy = this.#components.policies.of(owner.volume);
      const writes: StoreWrite[] = [];
      const placements = shards.map((shard) =>
        this.#placeOne(owner, shard, known.get(hexOf(shard.shardId)), policy, new Set(excludeHosts), writes),
      );
      // Orders that are out bind hosts, so they are stored before they are given away.
      await store.batch(writes);
      return { case: 'placements', value: { policy, placements } };
    });
  }

  #placeOne(
    owner: Owner,
    shard: ShardRef,
    known: ShardRecord | undefined,
    policy: Policy,
    excluded: ReadonlySet<PeerName>,
    writes: StoreWrite[],
  ): PlacementDraft {
    const { registry, pool, book, signer } = this.#components;
    const { shardId, sizeBytes } = shard;
    const { volume, peer: client } = owner;
    if (known && (known.freed || !sameBytes(known.volume, volume) || known.sizeBytes !== sizeBytes)) {
      throw new XcoreError('REFUSED', 'this shard id is taken');
    }
    book.check(volume, shardId, sizeBytes);
    const holders = known?.mirrors.map((mirror) => mirror.host) ?? [];
    const prefer = this.#ordered(shardId, holders.length, excluded, writes);
    const mayGrow = holders.length + prefer.size < MAX_HOSTS_PER_SHARD;
    const exclude = new Set([...holders, ...(known?.deleting ?? []), ...excluded]);
    const count = policy.mirrors - holders.length;
    const chosen = pool
      .choose({ sizeBytes, count, exclude, prefer, holders: registry.placesOf(holders) })
      .filter(({ host }) => mayGrow || prefer.has(host));
    if (chosen.length + holders.length === 0) throw noHosts(registry.all());
    const targets = chosen.map(({ host, addresses }) => {
      const order = signer.make({ operation: 'store', shardId, sizeBytes, client, host, volume });
      const { serial, expiresMs } = order;
      writes.push(book.issue({ volume, shardId, sizeBytes, minReceipts: policy.minReceipts, host, serial, expiresMs }));
      return { host, addresses: [...addresses], order: order.signed };
    });
    return { shardId, receipts: holders.length, targets };
  }

  /** Hosts with an order for the shard. When there are too many, those that failed the client are given up. */
  #ordered(
    shardId: Uint8Array,
    holders: number,
    excluded: ReadonlySet<PeerName>,
    writes: StoreWrite[],
  ): ReadonlySet<PeerName> {
    const { book } = this.#components;
    for (const host of book.hostsOf(shardId)) {
      if (holders + book.hostsOf(shardId).length < MAX_HOSTS_PER_SHARD) break;
      if (excluded.has(host)) writes.push(book.settle(shardId, host));
    }
    return new Set(book.hostsOf(shardId));
  }

  async #checkQuota(owner: Owner, shards: readonly ShardRef[], known: LoadedShards): Promise<void> {
    const { volumes, book, directory } = this.#components;
    const record = await volumes.get(owner.volume);
    const quota = volumes.quotaOf(record);
    const coming = new Map<string, number>();
    for (const { shardId, sizeBytes } of book.shardsOf(owner.volume)) coming.set(hexOf(shardId), sizeBytes);
    for (const { shardId, sizeBytes } of shards) coming.set(hexOf(shardId), sizeBytes);
    const needed = sumOf(coming);
    if (record.usedBytes + needed <= quota) return;
    // Near the limit only: shards that are counted as used already must not be counted twice.
    const held = await directory.load([...coming.keys()].map((id) => Buffer.from(id, 'hex')));
    for (const id of [...held.keys(), ...known.keys()]) coming.delete(id);
    if (record.usedBytes + sumOf(coming) > quota) {
      throw new XcoreError('QUOTA', `the volume's quota of ${quota} bytes is used up`);
    }
  }
}

function sumOf(sizes: ReadonlyMap<string, number>): bigint {
  let sum = 0;
  for (const size of sizes.values()) sum += size;
  return BigInt(sum);
}

function noHosts(candidates: readonly HostView[]): XcoreError {
  const online = candidates.filter((host) => host.online).length;
  if (candidates.length === 0) return new XcoreError('NO_HOSTS', 'no host has joined this bridge yet');
  return new XcoreError('NO_HOSTS', `no host can take the shard: ${online} of ${candidates.length} hosts are online`);
}

// What a log entry does besides lengthening the log: pins the shards that it adds, and queues the
// mirrors of those that it frees for deletion. All of it goes into the batch of the append.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { EntryHeader, ShardRef } from '../net/proto/wire_pb.ts';
import type { Owner } from './authenticate.ts';
import type { HostRegistry } from './host-registry.ts';
import type { Mirrors } from './mirrors.ts';
import type { OrderBook } from './order-book.ts';
import { policyFor } from './policy.ts';
import type { ShardRecord, VolumeRecord } from './proto/records_pb.ts';
import { hexOf, sameBytes } from './records.ts';
import type { RepairQueue } from './repair-queue.ts';
import { belongsTo, isDurable, queueDelete, unnamedKeyOf } from './shard-directory.ts';
import type { LoadedShards, ShardDirectory } from './shard-directory.ts';
import type { StoreWrite } from './store.ts';
import type { Volumes } from './volumes.ts';

/** What effects work with. */
export interface EntryEffectsComponents {
  readonly volumes: Volumes;
  readonly registry: HostRegistry;
  readonly book: OrderBook;
  readonly directory: ShardDirectory;
  readonly mirrors: Mirrors;
  readonly queue: RepairQueue;
  readonly clock: Clock;
}

/** Times of effects. */
export interface EntryEffectsOptions {
  /** A shard with too few mirrors is left to its client for so long. */
  readonly repairAfterMs: number;
}

/** Derives an entry's effects. */
export class EntryEffects {
  readonly #components: EntryEffectsComponents;
  readonly #options: EntryEffectsOptions;

  constructor(components: EntryEffectsComponents, options: EntryEffectsOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** The writes that an entry causes; takes freed bytes off `record`. REFUSED, NOT_FOUND, NO_MIRROR or QUOTA when its shards do not allow it. */
  async of(owner: Owner, header: EntryHeader, record: VolumeRecord): Promise<StoreWrite[]> {
    const { directory } = this.#components;
    const ids = new Map<string, Uint8Array>();
    for (const id of [...header.shardsAdded.map(({ shardId }) => shardId), ...header.shardsFreed])
      ids.set(hexOf(id), id);
    const shards = await directory.load([...ids.values()]);
    if (header.shardsAdded.length > 0) this.#checkQuota(record);
    const writes: StoreWrite[] = [];
    for (const shard of header.shardsAdded) this.#add(owner, shard, header.seq, shards, writes);
    for (const id of header.shardsFreed) checkOwned(owner, id, shards);
    for (const id of header.shardsFreed) this.#free(owner, id, shards, record, writes);
    for (const [id, shard] of shards) writes.push(directory.save(ids.get(id)!, shard));
    return writes;
  }

  #add(owner: Owner, { shardId, sizeBytes }: ShardRef, seq: bigint, shards: LoadedShards, writes: StoreWrite[]): void {
    const id = hexOf(shardId);
    const shard = shards.get(id);
    if (!belongsTo(shard, owner.volume)) throw new XcoreError('NOT_FOUND', `shard ${id} is not stored`);
    if (shard.addedSeq > 0n) throw new XcoreError('REFUSED', `shard ${id} was added by entry ${shard.addedSeq}`);
    if (shard.sizeBytes !== sizeBytes) throw new XcoreError('REFUSED', `shard ${id} has another size`);
    const { registry, mirrors, queue, clock } = this.#components;
    const { minReceipts } = policyFor(0, registry.existing());
    if (!isDurable(shard, minReceipts)) {
      throw new XcoreError('NO_MIRROR', `shard ${id} has ${shard.mirrors.length} mirrors, which is too few`);
    }
    shard.addedSeq = seq;
    writes.push({ key: unnamedKeyOf(shardId, shard) });
    const mirrorsLeft = mirrors.counted(shard).length;
    if (mirrorsLeft < mirrors.wanted) {
      writes.push(queue.addLater(shardId, mirrorsLeft, clock.now() + this.#options.repairAfterMs));
    }
  }

  // A shard that is unknown here was never stored: there is nothing to free.
  #free(owner: Owner, shardId: Uint8Array, shards: LoadedShards, record: VolumeRecord, writes: StoreWrite[]): void {
    const shard = shards.get(hexOf(shardId));
    if (shard?.freed) return;
    const hosts = new Map((shard?.mirrors ?? []).map(({ host }) => [host, shard!.sizeBytes]));
    this.#cancelOrders(owner, shardId, shard, hosts, writes);
    for (const [host, sizeBytes] of hosts) writes.push(queueDelete(host, shardId, sizeBytes, owner.volume));
    if (!shard) return;
    if (shard.addedSeq === 0n) writes.push({ key: unnamedKeyOf(shardId, shard) });
    shard.freed = true;
    const used = record.usedBytes - BigInt(shard.sizeBytes);
    record.usedBytes = used > 0n ? used : 0n;
  }

  // A host whose receipt never came may hold the shard all the same.
  #cancelOrders(
    owner: Owner,
    shardId: Uint8Array,
    shard: ShardRecord | undefined,
    hosts: Map<string, number>,
    writes: StoreWrite[],
  ): void {
    const { book } = this.#components;
    const sizeBytes = shard?.sizeBytes ?? 0;
    for (const host of book.hostsOf(shardId)) {
      if (!book.isOrdered(owner.volume, shardId, host)) continue;
      if (!hosts.has(host)) hosts.set(host, sizeBytes);
      writes.push(book.settle(shardId, host));
    }
  }

  #checkQuota(record: VolumeRecord): void {
    const quota = this.#components.volumes.quotaOf(record);
    if (record.usedBytes > quota) throw new XcoreError('QUOTA', `the volume's quota of ${quota} bytes is used up`);
  }
}

// Before anything changes: an entry has all of its effects or none.
function checkOwned(owner: Owner, shardId: Uint8Array, shards: LoadedShards): void {
  const shard = shards.get(hexOf(shardId));
  if (shard && !sameBytes(shard.volume, owner.volume)) {
    throw new XcoreError('REFUSED', `shard ${hexOf(shardId)} is not yours`);
  }
}

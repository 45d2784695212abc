// What a log entry does besides lengthening the log: pins the shards that it adds, and queues the
// mirrors of those that it frees for deletion. All of it goes into the batch of the append.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { EntryHeader, ShardRef } from '../net/proto/wire_pb.ts';
import type { Owner } from './authenticate.ts';
import { decodeNumber, encodeNumber, shardAtEndOf, stockKey, unnamedOfOthers } from './keys.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import type { Policies } from './policies.ts';
import type { ShardRecord, VolumeRecord } from './proto/records_pb.ts';
import { hexOf, sameBytes, shardRecord } from './records.ts';
import type { RepairQueue } from './repair-queue.ts';
import { belongsTo, isDurable, queueDelete, unnamedKeyOf } from './shard-directory.ts';
import type { LoadedShards, ShardDirectory, ShareChanges } from './shard-directory.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

/** What effects work with. */
export interface EntryEffectsComponents {
  readonly volumes: Volumes;
  readonly policies: Policies;
  readonly book: OrderBook;
  readonly store: Store;
  readonly directory: ShardDirectory;
  readonly index: MirrorIndex;
  readonly mirrors: Mirrors;
  readonly queue: RepairQueue;
  readonly signer: OrderSigner;
  readonly clock: Clock;
  /** Called when shards were claimed that are to be looked for on all hosts. */
  readonly onClaimed: () => void;
}

/** What an entry changes, until it is written. */
interface Draft {
  readonly ids: Map<string, Uint8Array>;
  readonly shards: LoadedShards;
  readonly shares: ShareChanges;
  readonly writes: StoreWrite[];
}

/** Times of effects. */
export interface EntryEffectsOptions {
  /** A shard with too few mirrors is left to its client for so long. */
  readonly repairAfterMs: number;
  /** A shard that no entry names is freed so long after another device began to write. */
  readonly unnamedAfterMs: number;
}

/** Entries of which one looks for shards that nobody will name. */
const UNNAMED_EVERY = 16n;
/** Such shards that one entry looks at, twice. */
const MAX_UNNAMED = 512;

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
    const draft = await this.#draft(header);
    if (header.shardsAdded.length > 0) this.#checkQuota(record);
    for (const shard of header.shardsAdded) this.#add(owner, shard, header.seq, draft);
    this.#freeAll(owner, header, record, draft);
    if (header.seq % UNNAMED_EVERY === 0n) await this.#freeUnnamed(owner, record, draft);
    return this.#writesOf(owner, draft);
  }

  /**
   * As of(), for an entry that this bridge had before and has lost: shards that it does not know any more are claimed,
   * to be found on the hosts that hold them. REFUSED.
   */
  async again(owner: Owner, header: EntryHeader, record: VolumeRecord): Promise<StoreWrite[]> {
    const draft = await this.#draft(header);
    let claimed = 0;
    for (const shard of header.shardsAdded) {
      if (this.#claim(owner, shard, header, record, draft)) claimed++;
    }
    this.#freeAll(owner, header, record, draft);
    if (claimed > 0) this.#components.onClaimed();
    return this.#writesOf(owner, draft);
  }

  async #draft({ shardsAdded, shardsFreed }: EntryHeader): Promise<Draft> {
    const ids = new Map<string, Uint8Array>();
    for (const id of [...shardsAdded.map(({ shardId }) => shardId), ...shardsFreed]) ids.set(hexOf(id), id);
    return { ids, shards: await this.#components.directory.load([...ids.values()]), writes: [], shares: new Map() };
  }

  async #writesOf({ volume }: Owner, { ids, shards, writes, shares }: Draft): Promise<StoreWrite[]> {
    const { directory } = this.#components;
    for (const [id, shard] of shards) writes.push(directory.save(ids.get(id)!, shard));
    return [...writes, ...(await directory.saveShares(volume, shares))];
  }

  #freeAll(owner: Owner, { shardsFreed }: EntryHeader, record: VolumeRecord, draft: Draft): void {
    for (const id of shardsFreed) checkOwned(owner, id, draft.shards);
    for (const id of shardsFreed) this.#free(owner, id, record, draft);
  }

  /** Adds a shard with what mirrors it has; whether it was not known. */
  #claim(
    owner: Owner,
    { shardId, sizeBytes }: ShardRef,
    header: EntryHeader,
    record: VolumeRecord,
    draft: Draft,
  ): boolean {
    const { policies, mirrors, queue, clock } = this.#components;
    const id = hexOf(shardId);
    let shard = draft.shards.get(id);
    const isKnown = shard !== undefined;
    if (shard === undefined) {
      const { minReceipts } = policies.of(owner.volume);
      const confirmedMs = BigInt(clock.now());
      const claim = { volume: owner.volume, sizeBytes, minReceipts, device: header.device, confirmedMs, claimed: true };
      shard = shardRecord.make(claim);
      draft.shards.set(id, shard);
      record.usedBytes += BigInt(sizeBytes);
    } else {
      checkUnnamed(shard, owner, id, sizeBytes);
      draft.writes.push({ key: unnamedKeyOf(shardId, shard) });
    }
    shard.addedSeq = header.seq;
    const left = mirrors.counted(shard).length;
    if (left < mirrors.wanted(owner.volume)) draft.writes.push(queue.add(shardId, left));
    return !isKnown;
  }

  // What another device stored and has not published it cannot publish any more, now that this one writes. It keeps
  // such work aside, and gets time to look at it.
  async #freeUnnamed(owner: Owner, record: VolumeRecord, draft: Draft): Promise<void> {
    const { store, directory, clock } = this.#components;
    const { ids, shards, writes } = draft;
    const now = clock.now();
    const freed: Uint8Array[] = [];
    for (const range of unnamedOfOthers(owner.volume, owner.peer, MAX_UNNAMED)) {
      for await (const [key, value] of store.range(range)) {
        const shardId = shardAtEndOf(key);
        if (ids.has(hexOf(shardId))) continue;
        if (value.length < 8) writes.push({ key, value: encodeNumber(BigInt(now)) });
        else if (now - Number(decodeNumber(value)) >= this.#options.unnamedAfterMs) freed.push(shardId);
      }
    }
    for (const [id, shard] of await directory.load(freed)) {
      const shardId = Buffer.from(id, 'hex');
      shards.set(id, shard);
      ids.set(id, shardId);
      this.#free(owner, shardId, record, draft);
    }
  }

  #add(owner: Owner, { shardId, sizeBytes }: ShardRef, seq: bigint, { shards, writes }: Draft): void {
    const id = hexOf(shardId);
    const shard = shards.get(id);
    checkUnnamed(shard, owner, id, sizeBytes);
    const { policies, mirrors, queue, clock } = this.#components;
    const { minReceipts } = policies.of(owner.volume);
    if (!isDurable(shard, minReceipts)) {
      throw new XcoreError('NO_MIRROR', `shard ${id} has ${shard.mirrors.length} mirrors, which is too few`);
    }
    shard.addedSeq = seq;
    writes.push({ key: unnamedKeyOf(shardId, shard) });
    const mirrorsLeft = mirrors.counted(shard).length;
    if (mirrorsLeft < mirrors.wanted(owner.volume)) {
      writes.push(queue.addLater(shardId, mirrorsLeft, clock.now() + this.#options.repairAfterMs));
    }
  }

  // A shard that is unknown here was never stored: there is nothing to free.
  #free(owner: Owner, shardId: Uint8Array, record: VolumeRecord, draft: Draft): void {
    const { shards, writes } = draft;
    const shard = shards.get(hexOf(shardId));
    if (shard?.freed) return;
    const { signer } = this.#components;
    if (shard?.claimed) this.#forgetMirrors(shardId, shard, draft);
    const hosts = new Map((shard?.mirrors ?? []).map(({ host }) => [host, shard!.sizeBytes]));
    this.#cancelOrders(owner, shardId, shard, hosts, writes);
    for (const [host, sizeBytes] of hosts)
      writes.push(queueDelete(signer.newSerial(), host, shardId, sizeBytes, owner.volume));
    if (!shard) return;
    if (shard.addedSeq === 0n) writes.push({ key: unnamedKeyOf(shardId, shard) });
    writes.push({ key: stockKey(shardId) });
    shard.freed = true;
    const used = record.usedBytes - BigInt(shard.sizeBytes);
    record.usedBytes = used > 0n ? used : 0n;
  }

  // Who claims a shard may not be its owner, and must not be able to have it deleted: hosts are left with what nobody
  // knows, which is deleted only after it was unknown for long.
  #forgetMirrors(shardId: Uint8Array, shard: ShardRecord, { writes, shares }: Draft): void {
    const { index } = this.#components;
    for (const { host } of shard.mirrors) {
      writes.push(index.removed(host, shardId, shard.sizeBytes));
      shares.set(host, (shares.get(host) ?? 0) - shard.sizeBytes);
    }
    shard.mirrors = [];
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

/** A shard of this owner that no entry has named: NOT_FOUND, REFUSED. */
function checkUnnamed(
  shard: ShardRecord | undefined,
  owner: Owner,
  id: string,
  sizeBytes: number,
): asserts shard is ShardRecord {
  if (!belongsTo(shard, owner.volume)) throw new XcoreError('NOT_FOUND', `shard ${id} is not stored`);
  if (shard.addedSeq > 0n) throw new XcoreError('REFUSED', `shard ${id} was added by entry ${shard.addedSeq}`);
  if (shard.sizeBytes !== sizeBytes) throw new XcoreError('REFUSED', `shard ${id} has another size`);
}

// Before anything changes: an entry has all of its effects or none.
function checkOwned(owner: Owner, shardId: Uint8Array, shards: LoadedShards): void {
  const shard = shards.get(hexOf(shardId));
  if (shard && !sameBytes(shard.volume, owner.volume)) {
    throw new XcoreError('REFUSED', `shard ${hexOf(shardId)} is not yours`);
  }
}

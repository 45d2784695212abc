// Answers Confirm: counts mirrors by their receipts. Counts only what the bridge ordered, so that
// nobody can make a mirror up.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { verifyReceipt } from '../net/orders.ts';
import { MAX_CONFIRM_RECEIPTS } from '../net/protocols.ts';
import type { Confirm, Receipt, Signed, Transfer } from '../net/proto/wire_pb.ts';
import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import type { HostRegistry } from './host-registry.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { OrderBook } from './order-book.ts';
import type { Policies } from './policies.ts';
import type { VolumeRecord } from './proto/records_pb.ts';
import type { MirrorIndex } from './mirror-index.ts';
import { hexOf, shardRecord, toNumber } from './records.ts';
import { belongsTo, isDurable, unnamedKeyOf } from './shard-directory.ts';
import type { LoadedShards, ShardDirectory, ShareChanges } from './shard-directory.ts';
import { mirrorOf } from './shard-packing.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

const MAX_TRANSFERS = 1_024;

/** What counting receipts works with. */
export interface ReceiptsComponents {
  readonly store: Store;
  readonly volumes: Volumes;
  readonly registry: HostRegistry;
  readonly policies: Policies;
  readonly book: OrderBook;
  readonly directory: ShardDirectory;
  readonly index: MirrorIndex;
  readonly volumeQueue: KeyedQueue;
  readonly clock: Clock;
}

interface SignedReceipt {
  readonly receipt: Receipt;
  readonly signed: Signed;
}

interface Draft {
  readonly record: VolumeRecord;
  readonly shards: LoadedShards;
  readonly shares: ShareChanges;
  readonly writes: StoreWrite[];
  readonly changed: Map<string, Uint8Array>;
  readonly counted: SignedReceipt[];
}

/** Turns receipts into mirrors. */
export class Receipts {
  readonly #components: ReceiptsComponents;

  constructor(components: ReceiptsComponents) {
    this.#components = components;
  }

  /** Counts receipts and says how each shard stands. REFUSED for a forged one; one that answers no order of ours counts for nothing. */
  async confirm(owner: Owner, request: Confirm): Promise<ResponseInit> {
    if (request.receipts.length > MAX_CONFIRM_RECEIPTS || request.transfers.length > MAX_TRANSFERS) {
      throw new XcoreError('PROTOCOL', `Confirm carries at most ${MAX_CONFIRM_RECEIPTS} receipts`);
    }
    this.#noteTransfers(request.transfers);
    const receipts = request.receipts.map((signed) => ({ receipt: verifyReceipt(signed), signed }));
    return this.#components.volumeQueue.run(hexOf(owner.volume), () => this.#count(owner, receipts));
  }

  async #count(owner: Owner, receipts: readonly SignedReceipt[]): Promise<ResponseInit> {
    const { directory, store, volumes, registry, policies } = this.#components;
    const ids = new Map(receipts.map(({ receipt }) => [hexOf(receipt.shardId), receipt.shardId]));
    const draft: Draft = {
      record: await volumes.get(owner.volume),
      shards: await directory.load([...ids.values()]),
      shares: new Map(),
      writes: [],
      changed: new Map(),
      counted: [],
    };
    for (const signed of receipts) this.#countOne(owner, signed, draft);
    if (draft.counted.length > 0) {
      for (const [id, shardId] of draft.changed) draft.writes.push(directory.save(shardId, draft.shards.get(id)!));
      draft.writes.push(...(await directory.saveShares(owner.volume, draft.shares)));
      draft.writes.push(volumes.put(owner.volume, draft.record));
      // A client deletes nothing and reports "durable" on the strength of this answer.
      await store.batch(draft.writes, { sync: true });
      for (const { receipt } of draft.counted) {
        registry.succeeded(receipt.host);
        registry.took(receipt.host, receipt.sizeBytes);
      }
    }
    const { minReceipts } = policies.of(owner.volume);
    const standings = [...ids].map(([id, shardId]) => {
      const shard = draft.shards.get(id);
      if (!belongsTo(shard, owner.volume)) return { shardId, mirrors: 0, durable: false };
      return { shardId, mirrors: shard.mirrors.length, durable: isDurable(shard, minReceipts) };
    });
    return { case: 'confirmed', value: { shards: standings } };
  }

  #countOne(owner: Owner, checked: SignedReceipt, draft: Draft): void {
    const { receipt, signed } = checked;
    const { book, index, clock } = this.#components;
    if (receipt.client !== owner.peer) return;
    const order = book.find(owner.volume, receipt);
    if (!order || order.sizeBytes !== receipt.sizeBytes) return;
    const id = hexOf(receipt.shardId);
    let shard = draft.shards.get(id);
    if (!shard) {
      shard = shardRecord.make({
        volume: owner.volume,
        sizeBytes: order.sizeBytes,
        minReceipts: order.minReceipts,
        device: owner.peer,
        confirmedMs: BigInt(clock.now()),
      });
      draft.shards.set(id, shard);
      draft.writes.push({ key: unnamedKeyOf(receipt.shardId, shard), value: Uint8Array.of(1) });
      draft.record.usedBytes += BigInt(order.sizeBytes);
    }
    if (!belongsTo(shard, owner.volume)) return;
    draft.writes.push(book.settle(receipt.shardId, receipt.host));
    draft.counted.push(checked);
    if (shard.mirrors.some((mirror) => mirror.host === receipt.host)) return;
    shard.mirrors.push(mirrorOf(receipt, signed, clock.now()));
    draft.writes.push(index.added(receipt.host, receipt.shardId, receipt.sizeBytes));
    draft.changed.set(id, receipt.shardId);
    draft.shares.set(receipt.host, (draft.shares.get(receipt.host) ?? 0) + receipt.sizeBytes);
  }

  #noteTransfers(transfers: readonly Transfer[]): void {
    for (const { host, sizeBytes, durationMs } of transfers) {
      this.#components.registry.measured(host, toNumber(sizeBytes), durationMs);
    }
  }
}

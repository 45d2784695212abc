// The mirrors of stored shards as they come and go after the upload: which of them count, one that was copied, one that
// proved bad, one too many. The last mirror of a shard is never given up, whatever is known against it.

import type { Clock } from '../lib/clock.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { PeerName } from '../net/network.ts';
import type { HostRegistry } from './host-registry.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import type { Policies } from './policies.ts';
import type { MirrorRecord, ShardRecord } from './proto/records_pb.ts';
import { hexOf } from './records.ts';
import type { RepairQueue } from './repair-queue.ts';
import { queueDelete } from './shard-directory.ts';
import type { ShardDirectory, ShareChanges } from './shard-directory.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** Hosts of one shard that are to delete it; the oldest is forgotten beyond. */
const MAX_DELETING = 16;
const VOLUME_BYTES = 32;

/** What mirrors work with. */
export interface MirrorsComponents {
  readonly store: Store;
  readonly registry: HostRegistry;
  readonly policies: Policies;
  readonly directory: ShardDirectory;
  readonly index: MirrorIndex;
  readonly book: OrderBook;
  readonly queue: RepairQueue;
  readonly signer: OrderSigner;
  readonly volumeQueue: KeyedQueue;
  readonly clock: Clock;
}

/** Changes mirrors, one volume's one after another. */
export class Mirrors {
  readonly #components: MirrorsComponents;

  constructor(components: MirrorsComponents) {
    this.#components = components;
  }

  /** Mirrors that a volume's shards are to have. */
  wanted(volume: Uint8Array): number {
    return this.#components.policies.wanted(volume);
  }

  /** The mirrors that count: not proved bad, and on hosts that are neither lost, disqualified nor leaving. */
  counted(record: ShardRecord): MirrorRecord[] {
    const { registry } = this.#components;
    return record.mirrors.filter(({ host, failed }) => !failed && registry.get(host)?.dependable === true);
  }

  /** The record of a shard that is there and not freed. */
  async get(shardId: Uint8Array): Promise<ShardRecord | undefined> {
    const record = (await this.#components.directory.load([shardId])).get(hexOf(shardId));
    return record?.freed ? undefined : record;
  }

  /** Counts a mirror that was copied. A shard that was freed meanwhile is deleted again. */
  async add(shardId: Uint8Array, volume: Uint8Array, sizeBytes: number, mirror: MirrorRecord): Promise<void> {
    const { book, directory, index, signer } = this.#components;
    const { host } = mirror;
    await this.#change(shardId, volume, (record, shares) => {
      const writes = [book.settle(shardId, host)];
      if (!record || record.freed)
        return [...writes, queueDelete(signer.newSerial(), host, shardId, sizeBytes, volume)];
      if (record.mirrors.some((other) => other.host === host)) return writes;
      record.mirrors.push(mirror);
      shares.set(host, sizeBytes);
      return [...writes, index.added(host, shardId, sizeBytes), directory.save(shardId, record)];
    });
  }

  /** Gives up a mirror that an audit has proved bad, and has the shard repaired. While no other one can be reached it is only marked. */
  async fail(shardId: Uint8Array, volume: Uint8Array, host: PeerName): Promise<void> {
    const { directory, queue, registry } = this.#components;
    await this.#change(shardId, volume, (record, shares) => {
      const mirror = record?.mirrors.find((candidate) => candidate.host === host);
      if (!record || record.freed || !mirror) return [];
      const writes: StoreWrite[] = [];
      const others = this.counted(record).filter((other) => other.host !== host && registry.get(other.host)?.online);
      if (others.length === 0 && mirror.failed) return [];
      if (others.length > 0) writes.push(...this.#drop(shardId, record, host, shares));
      else mirror.failed = true;
      return [...writes, directory.save(shardId, record), queue.add(shardId, this.counted(record).length)];
    });
  }

  /** Has a host delete a shard that it is not to hold, unless it is by now, or the shard lacks mirrors and may come to need it. */
  async deleteStray(shardId: Uint8Array, host: PeerName): Promise<void> {
    const { directory, signer } = this.#components;
    const volume = (await this.get(shardId))?.volume ?? new Uint8Array(VOLUME_BYTES);
    await this.#change(shardId, volume, (record) => {
      if (record?.mirrors.some((mirror) => mirror.host === host)) return [];
      if (record && !record.freed && this.counted(record).length < this.wanted(record.volume)) return [];
      const writes = [queueDelete(signer.newSerial(), host, shardId, record?.sizeBytes ?? 0, volume)];
      if (!record || record.deleting.includes(host)) return writes;
      record.deleting = [...record.deleting, host].slice(-MAX_DELETING);
      return [...writes, directory.save(shardId, record)];
    });
  }

  /** Counts a mirror again that was marked as bad. */
  async restore(shardId: Uint8Array, volume: Uint8Array, host: PeerName): Promise<void> {
    const { directory, queue } = this.#components;
    await this.#change(shardId, volume, (record) => {
      const mirror = record?.mirrors.find((candidate) => candidate.host === host);
      if (!record || record.freed || !mirror) return [];
      mirror.failed = false;
      return [directory.save(shardId, record), queue.add(shardId, this.counted(record).length)];
    });
  }

  /** Gives up what a shard does not need: mirrors that do not count any more, and those beyond the number wanted, `first`'s before others. */
  async trim(shardId: Uint8Array, volume: Uint8Array, first?: PeerName): Promise<void> {
    const { directory, registry } = this.#components;
    await this.#change(shardId, volume, (record, shares) => {
      if (!record || record.freed) return [];
      const online = this.counted(record).flatMap(({ host }) => {
        const view = registry.get(host);
        return view?.online ? [view] : [];
      });
      const spare = online.length - this.wanted(volume);
      if (spare < 0) return [];
      const worstFirst = online.sort(
        (a, b) =>
          Number(b.host === first) - Number(a.host === first) ||
          Number(a.takesShards) - Number(b.takesShards) ||
          a.reliability - b.reliability,
      );
      const given = new Set(worstFirst.slice(0, spare).map(({ host }) => host));
      for (const mirror of record.mirrors) {
        const view = registry.get(mirror.host);
        // A lost host keeps its mirror until it is back: it may be needed by then.
        if (mirror.failed || !view || (!view.dependable && view.lostMs === 0)) given.add(mirror.host);
      }
      const writes = [...given].flatMap((host) => this.#drop(shardId, record, host, shares));
      return writes.length > 0 ? [...writes, directory.save(shardId, record)] : [];
    });
  }

  #drop(shardId: Uint8Array, record: ShardRecord, host: PeerName, shares: ShareChanges): StoreWrite[] {
    const { index, signer } = this.#components;
    const { sizeBytes, volume } = record;
    record.mirrors = record.mirrors.filter((mirror) => mirror.host !== host);
    record.deleting = [...record.deleting.filter((name) => name !== host), host].slice(-MAX_DELETING);
    shares.set(host, (shares.get(host) ?? 0) - sizeBytes);
    return [index.removed(host, shardId, sizeBytes), queueDelete(signer.newSerial(), host, shardId, sizeBytes, volume)];
  }

  async #change(
    shardId: Uint8Array,
    volume: Uint8Array,
    change: (record: ShardRecord | undefined, shares: ShareChanges) => StoreWrite[],
  ): Promise<void> {
    const { volumeQueue, directory, store } = this.#components;
    await volumeQueue.run(hexOf(volume), async () => {
      const record = (await directory.load([shardId])).get(hexOf(shardId));
      const shares: ShareChanges = new Map();
      const writes = change(record, shares);
      if (writes.length === 0) return;
      // A mirror is deleted elsewhere on the strength of this one.
      await store.batch([...writes, ...(await directory.saveShares(volume, shares))], { sync: true });
    });
  }
}

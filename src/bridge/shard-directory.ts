// Which host holds which shard. Every change comes back as writes for
// the caller's batch. Callers serialise changes to one volume.

import type { PeerName } from '../net/network.ts';
import {
  decodeNumber,
  deleteKey,
  encodeNumber,
  hostOfShareKey,
  shardKey,
  shareKey,
  sharesOf,
  unnamedKey,
} from './keys.ts';
import type { ShardRecord } from './proto/records_pb.ts';
import { deleteRecord, hexOf, sameBytes } from './records.ts';
import { packShard, unpackShard } from './shard-packing.ts';
import type { HostNumbers } from './shard-packing.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** Records loaded for one change, by shard id in hex; what is changed in them is written by `save`. */
export type LoadedShards = Map<string, ShardRecord>;

/** Changes of what hosts hold for a volume, in bytes, to be written by `saveShares`. */
export type ShareChanges = Map<PeerName, number>;

/** The locations of all shards. */
export class ShardDirectory {
  readonly #store: Store;
  readonly #numbers: HostNumbers;

  constructor(components: { readonly store: Store; readonly registry: HostNumbers }) {
    this.#store = components.store;
    this.#numbers = components.registry;
  }

  /** The records of those shards that are known. */
  async load(shardIds: readonly Uint8Array[]): Promise<LoadedShards> {
    const values = await this.#store.getMany(shardIds.map(shardKey));
    const loaded: LoadedShards = new Map();
    values.forEach((value, at) => {
      if (value) loaded.set(hexOf(shardIds[at]!), unpackShard(value, this.#numbers));
    });
    return loaded;
  }

  /** The write that stores a record, or deletes it once a freed shard has no mirror left. */
  save(shardId: Uint8Array, record: ShardRecord): StoreWrite {
    const gone = record.freed && record.mirrors.length === 0;
    return { key: shardKey(shardId), ...(gone ? {} : { value: packShard(record, this.#numbers) }) };
  }

  /** Writes that add to or take from what hosts hold for a volume. */
  async saveShares(volume: Uint8Array, changes: ShareChanges): Promise<StoreWrite[]> {
    const hosts = [...changes.keys()];
    const keys = hosts.map((host) => shareKey(volume, host));
    const before = await this.#store.getMany(keys);
    return keys.map((key, at) => {
      const share = decodeNumber(before[at]) + BigInt(changes.get(hosts[at]!)!);
      return share > 0n ? { key, value: encodeNumber(share) } : { key };
    });
  }

  /** Some of the hosts that hold a part of the volume. */
  async hostsOf(volume: Uint8Array, limit: number): Promise<PeerName[]> {
    const hosts: PeerName[] = [];
    for await (const [key] of this.#store.range(sharesOf(volume, limit))) hosts.push(hostOfShareKey(key));
    return hosts;
  }
}

/** Whether a record is one that this volume may see and use. */
export function belongsTo(record: ShardRecord | undefined, volume: Uint8Array): record is ShardRecord {
  return record !== undefined && !record.freed && sameBytes(record.volume, volume);
}

/** Receipts that make the shard durable: never more than when it was placed, nor more than hosts allow now. */
export function isDurable(record: ShardRecord, minReceiptsNow: number): boolean {
  return record.mirrors.length >= Math.min(record.minReceipts, minReceiptsNow);
}

/** The write that asks a host to delete its mirror, until it reports that it did; `serial` is a fresh one. */
export function queueDelete(
  serial: Uint8Array,
  host: PeerName,
  shardId: Uint8Array,
  sizeBytes: number,
  volume: Uint8Array,
): StoreWrite {
  return {
    key: deleteKey(host, serial),
    value: deleteRecord.encode(deleteRecord.make({ shardId, sizeBytes, volume })),
  };
}

/** The key under which a shard waits for the entry that names it. */
export function unnamedKeyOf(shardId: Uint8Array, record: ShardRecord): Uint8Array {
  return unnamedKey(record.volume, record.device, Number(record.confirmedMs), shardId);
}

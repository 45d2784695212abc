// The stock of hashed keys of each shard: taken out one by one, for good, and renewed by whoever has the whole shard next.
// Cannot tell a true commitment from a false one.

import { CHALLENGE_BYTES } from '../crypto/hashed-key.ts';
import type { HashedKey } from '../crypto/hashed-key.ts';
import { XcoreError } from '../lib/errors.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import { verifyStock } from '../net/key-stock.ts';
import type { PeerName } from '../net/network.ts';
import { MAX_HAND_OVERS } from '../net/protocols.ts';
import type { HandOver, KeyStock } from '../net/proto/wire_pb.ts';
import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import type { HostRegistry } from './host-registry.ts';
import { stockKey } from './keys.ts';
import type { ShardRecord, StockRecord } from './proto/records_pb.ts';
import { hexOf, stockRecord } from './records.ts';
import { belongsTo } from './shard-directory.ts';
import type { ShardDirectory } from './shard-directory.ts';
import type { Store } from '../lib/store.ts';

/** Hashed keys of a full stock. */
export const STOCK_KEYS = 4;
/** A stock with no more than so many is renewed. */
const LOW_STOCK_KEYS = 1;
const COMMITMENT_BYTES = 32;
const KEY_BYTES = CHALLENGE_BYTES + COMMITMENT_BYTES;

/** What hashed keys are kept with. */
export interface HashedKeysComponents {
  readonly store: Store;
  readonly directory: ShardDirectory;
  readonly volumeQueue: KeyedQueue;
  readonly registry: Pick<HostRegistry, 'placesOf'>;
}

/** The stocks of all shards. */
export class HashedKeys {
  readonly #components: HashedKeysComponents;

  constructor(components: HashedKeysComponents) {
    this.#components = components;
  }

  /** A key with which to examine a host, used up durably, or undefined. A host is never examined with what it minted itself, or another one at its place. */
  async take(shardId: Uint8Array, { volume }: ShardRecord, host: PeerName): Promise<HashedKey | undefined> {
    return this.#components.volumeQueue.run(hexOf(volume), async () => {
      const [stock] = await this.#load([shardId]);
      if (!stock || stock.keys.length < KEY_BYTES || this.#mayKnow(stock.minter, host)) return undefined;
      const taken = stock.keys.slice(0, KEY_BYTES);
      stock.keys = stock.keys.slice(KEY_BYTES);
      const value = stock.keys.length > 0 ? stockRecord.encode(stock) : undefined;
      await this.#components.store.batch([{ key: stockKey(shardId), value }], { sync: true });
      return { challenge: taken.subarray(0, CHALLENGE_BYTES), commitment: taken.subarray(CHALLENGE_BYTES) };
    });
  }

  /** How many keys each shard could do with, in order; 0 while its stock is not low. */
  async wanted(shardIds: readonly Uint8Array[]): Promise<number[]> {
    return (await this.#load(shardIds)).map(wantedBy);
  }

  /** Takes over what a client minted; what is not needed, or not the client's to give, changes nothing. PROTOCOL, REFUSED for what is malformed or forged. */
  async handOver(owner: Owner, { stocks }: HandOver): Promise<ResponseInit> {
    if (stocks.length > MAX_HAND_OVERS) {
      throw new XcoreError('PROTOCOL', `HandOver carries at most ${MAX_HAND_OVERS} stocks`);
    }
    for (const stock of stocks.map(verifyStock)) {
      if (stock.minter !== owner.peer) throw new XcoreError('REFUSED', 'the stock was minted by another party');
      await this.add(stock, owner.volume);
    }
    return { case: 'done', value: {} };
  }

  /** Keeps a verified stock if the volume's shard needs one. */
  async add(stock: KeyStock, volume: Uint8Array): Promise<void> {
    const { volumeQueue, directory, store } = this.#components;
    const { shardId, sizeBytes, minter } = stock;
    await volumeQueue.run(hexOf(volume), async () => {
      const shard = (await directory.load([shardId])).get(hexOf(shardId));
      if (!belongsTo(shard, volume) || shard.sizeBytes !== sizeBytes) return;
      const [before] = await this.#load([shardId]);
      if (wantedBy(before) === 0) return;
      const keys = Buffer.concat(stock.keys.slice(0, STOCK_KEYS).flatMap((key) => [key.challenge, key.commitment]));
      const value = stockRecord.encode(stockRecord.make({ minter, keys }));
      await store.batch([{ key: stockKey(shardId), value }]);
    });
  }

  /** Throws away the stock of a shard: one of its commitments has proved false. */
  async drop(shardId: Uint8Array): Promise<void> {
    await this.#components.store.batch([{ key: stockKey(shardId) }]);
  }

  // Whoever minted a key knows its answer, and may tell it to hosts of its own.
  #mayKnow(minter: PeerName, host: PeerName): boolean {
    const { registry } = this.#components;
    const [[of], [asked]] = [registry.placesOf([minter]), registry.placesOf([host])];
    const same = (a = '', b = ''): boolean => a !== '' && a === b;
    return minter === host || same(of?.operator, asked?.operator) || same(of?.network, asked?.network);
  }

  async #load(shardIds: readonly Uint8Array[]): Promise<(StockRecord | undefined)[]> {
    const values = await this.#components.store.getMany(shardIds.map(stockKey));
    return values.map((value) => value && stockRecord.decode(value));
  }
}

function wantedBy(stock: StockRecord | undefined): number {
  const left = stock ? Math.floor(stock.keys.length / KEY_BYTES) : 0;
  return left <= LOW_STOCK_KEYS ? STOCK_KEYS : 0;
}

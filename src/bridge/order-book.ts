// Store orders that no receipt has answered yet: what hosts are promised, and which receipts may
// count. Kept in the store, so that receipts count after a restart too. Knows no signatures.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import { ofKind, orderKey, parseOrderKey } from './keys.ts';
import type { OrderRecord } from './proto/records_pb.ts';
import { hexOf, orderRecord, sameBytes } from './records.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** Orders for one shard on one host that are remembered: a client that starts again asks again. */
const MAX_SERIALS = 4;
/** Removed from the store at once by a sweep. */
const MAX_SWEEP_WRITES = 10_000;
const SWEEP_INTERVAL_MS = 60_000;

/** Bounds of an order book. */
export interface OrderBookOptions {
  readonly maxOrders: number;
  readonly maxOrdersPerVolume: number;
  /** A receipt counts for so long after its order has expired. */
  readonly graceMs: number;
}

/** An order as it is issued. */
export interface IssuedOrder {
  readonly volume: Uint8Array;
  readonly shardId: Uint8Array;
  readonly sizeBytes: number;
  readonly minReceipts: number;
  readonly host: PeerName;
  readonly serial: Uint8Array;
  readonly expiresMs: number;
}

interface Shard {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly hosts: Map<PeerName, OrderRecord>;
}

/** The orders that are out, in memory and in the store. Each change returns the writes that store it. */
export class OrderBook {
  readonly #shards = new Map<string, Shard>();
  readonly #promised = new Map<PeerName, number>();
  readonly #volumes = new Map<string, { orders: number; readonly shards: Map<string, number> }>();
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #options: OrderBookOptions;
  #orders = 0;
  #nextSweepMs = 0;

  constructor(components: { readonly store: Store; readonly clock: Clock }, options: OrderBookOptions) {
    this.#store = components.store;
    this.#clock = components.clock;
    this.#options = options;
  }

  /** Reads what is stored. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#store.range(ofKind('o'))) {
      const { shardId, host } = parseOrderKey(key);
      this.#add(hexOf(shardId), host, orderRecord.decode(value));
    }
  }

  /** Orders that are out. */
  get size(): number {
    return this.#orders;
  }

  /** Bytes that a host is promised. */
  promisedTo(host: PeerName): number {
    return this.#promised.get(host) ?? 0;
  }

  /** Hosts with an order for the shard. */
  hostsOf(shardId: Uint8Array): PeerName[] {
    return [...(this.#shards.get(hexOf(shardId))?.hosts.keys() ?? [])];
  }

  /** Shards of a volume that have orders, with their sizes. */
  shardsOf(volume: Uint8Array): { shardId: Uint8Array; sizeBytes: number }[] {
    const shards = this.#volumes.get(hexOf(volume))?.shards ?? [];
    return [...shards].map(([id, sizeBytes]) => ({ shardId: Buffer.from(id, 'hex'), sizeBytes }));
  }

  /** Throws REFUSED when another volume has orders for the shard, or when its size differs. */
  check(volume: Uint8Array, shardId: Uint8Array, sizeBytes: number): void {
    const shard = this.#shards.get(hexOf(shardId));
    if (shard && (shard.volume !== hexOf(volume) || shard.sizeBytes !== sizeBytes)) {
      throw new XcoreError('REFUSED', 'this shard id is taken');
    }
  }

  /** Notes an order; REFUSED when too many are out. */
  issue(order: IssuedOrder): StoreWrite {
    this.check(order.volume, order.shardId, order.sizeBytes);
    const id = hexOf(order.shardId);
    const before = this.#shards.get(id)?.hosts.get(order.host);
    if (!before) this.#checkRoom(hexOf(order.volume));
    const record = orderRecord.make({
      volume: order.volume,
      sizeBytes: order.sizeBytes,
      minReceipts: order.minReceipts,
      serials: [...(before?.serials ?? []), order.serial].slice(-MAX_SERIALS),
      expiresMs: BigInt(order.expiresMs),
    });
    this.#remove(id, order.host);
    this.#add(id, order.host, record);
    return { key: orderKey(order.shardId, order.host), value: orderRecord.encode(record) };
  }

  /** The order that a receipt answers, or undefined when the bridge gave none to this volume. */
  find(
    volume: Uint8Array,
    receipt: { readonly shardId: Uint8Array; readonly host: PeerName; readonly serial: Uint8Array },
  ): OrderRecord | undefined {
    const record = this.#shards.get(hexOf(receipt.shardId))?.hosts.get(receipt.host);
    if (!record || !sameBytes(record.volume, volume) || this.#isOver(record)) return undefined;
    return record.serials.some((serial) => sameBytes(serial, receipt.serial)) ? record : undefined;
  }

  /** Whether the volume has an order for the shard on the host. */
  isOrdered(volume: Uint8Array, shardId: Uint8Array, host: PeerName): boolean {
    const record = this.#shards.get(hexOf(shardId))?.hosts.get(host);
    return record !== undefined && sameBytes(record.volume, volume);
  }

  /** Forgets the orders for a shard on a host. */
  settle(shardId: Uint8Array, host: PeerName): StoreWrite {
    this.#remove(hexOf(shardId), host);
    return { key: orderKey(shardId, host) };
  }

  /** Forgets what expired long ago; does nothing when called again within a minute. */
  async sweep(): Promise<void> {
    const now = this.#clock.now();
    if (now < this.#nextSweepMs) return;
    this.#nextSweepMs = now + SWEEP_INTERVAL_MS;
    const writes: StoreWrite[] = [];
    for (const [id, shard] of this.#shards) {
      for (const [host, record] of shard.hosts) {
        if (this.#isOver(record)) writes.push(this.settle(Buffer.from(id, 'hex'), host));
      }
      if (writes.length >= MAX_SWEEP_WRITES) break;
    }
    if (writes.length > 0) await this.#store.batch(writes);
  }

  #isOver(record: OrderRecord): boolean {
    return Number(record.expiresMs) + this.#options.graceMs < this.#clock.now();
  }

  #checkRoom(volume: string): void {
    if (this.#orders >= this.#options.maxOrders) {
      throw new XcoreError('REFUSED', 'the bridge has too many transfers under way; try again later');
    }
    if ((this.#volumes.get(volume)?.orders ?? 0) >= this.#options.maxOrdersPerVolume) {
      throw new XcoreError('REFUSED', 'this volume has too many transfers under way; confirm some first');
    }
  }

  #add(id: string, host: PeerName, record: OrderRecord): void {
    const volume = hexOf(record.volume);
    const shard = this.#shards.get(id) ?? { volume, sizeBytes: record.sizeBytes, hosts: new Map() };
    shard.hosts.set(host, record);
    this.#shards.set(id, shard);
    this.#orders += 1;
    add(this.#promised, host, record.sizeBytes);
    const ofVolume = this.#volumes.get(volume) ?? { orders: 0, shards: new Map<string, number>() };
    ofVolume.orders += 1;
    ofVolume.shards.set(id, record.sizeBytes);
    this.#volumes.set(volume, ofVolume);
  }

  #remove(id: string, host: PeerName): void {
    const shard = this.#shards.get(id);
    const record = shard?.hosts.get(host);
    if (!shard || !record) return;
    shard.hosts.delete(host);
    const ofVolume = this.#volumes.get(shard.volume);
    if (shard.hosts.size === 0) {
      this.#shards.delete(id);
      ofVolume?.shards.delete(id);
    }
    if (ofVolume && (ofVolume.orders -= 1) === 0) this.#volumes.delete(shard.volume);
    this.#orders -= 1;
    add(this.#promised, host, -record.sizeBytes);
  }
}

function add<K>(sums: Map<K, number>, key: K, change: number): void {
  const sum = (sums.get(key) ?? 0) + change;
  if (sum === 0) sums.delete(key);
  else sums.set(key, sum);
}

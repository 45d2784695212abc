// Deletes shards on the bridge's order, and remembers which deletions the bridge has not heard of yet.

import type { Clock } from '../lib/clock.ts';
import { asError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { PeerName } from '../net/network.ts';
import { checkOrder, verifyOrder } from '../net/orders.ts';
import type { Signed } from '../net/proto/wire_pb.ts';
import type { ShardStore } from './shard-store.ts';
import type { Tombstones } from './tombstones.ts';

/** Orders of one heartbeat that are carried out; the rest comes again. */
const MAX_ORDERS = 1_000;

/** What deletions work with. */
export interface DeletionsComponents {
  readonly store: ShardStore;
  readonly tombstones: Tombstones;
  readonly clock: Clock;
  readonly log: Logger;
  readonly host: PeerName;
  readonly bridge: PeerName;
}

/** Carries out delete orders. */
export class Deletions {
  readonly #components: DeletionsComponents;
  /** As it was logged last: orders that are not carried out come again and again. */
  #complaint = '';

  constructor(components: DeletionsComponents) {
    this.#components = components;
  }

  /** Carries out orders and returns the serials of those that are done; a shard that is not there counts as deleted. */
  async carryOut(orders: readonly Signed[]): Promise<Uint8Array[]> {
    const { store, tombstones, clock, log, host, bridge } = this.#components;
    const done: Uint8Array[] = [];
    const kept: { shardId: Uint8Array; signed: Signed }[] = [];
    const removed: Uint8Array[] = [];
    for (const signed of orders.slice(0, MAX_ORDERS)) {
      try {
        const order = verifyOrder(signed, bridge);
        checkOrder(order, { operation: 'delete', client: bridge, host, nowMs: clock.now() });
        if (await store.remove(order.shardId)) removed.push(order.shardId);
        kept.push({ shardId: order.shardId, signed });
        done.push(order.serial);
        this.#complaint = '';
      } catch (error) {
        const { message } = asError(error);
        if (message !== this.#complaint) log.warn({ reason: message }, 'a delete order was not carried out');
        this.#complaint = message;
      }
    }
    if (kept.length > 0) await tombstones.keep(kept);
    await store.syncRemovals(removed);
    return done;
  }
}

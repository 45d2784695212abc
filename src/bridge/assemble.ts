// Builds a bridge from its parts, with no network yet.

import type { Clock } from '../lib/clock.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { PeerName } from '../net/network.ts';
import { DeleteQueue } from './delete-queue.ts';
import { EntryEffects } from './entry-effects.ts';
import { HostRegistry } from './host-registry.ts';
import { Leases } from './lease.ts';
import { Locator } from './locator.ts';
import type { BridgeOptions } from './options.ts';
import { OrderBook } from './order-book.ts';
import { OrderSigner } from './order-signer.ts';
import { Placer } from './placer.ts';
import { Receipts } from './receipts.ts';
import { leaseAnswer, Service } from './service.ts';
import { ShardDirectory } from './shard-directory.ts';
import { spaceFor } from './space.ts';
import type { Store } from './store.ts';
import { Upkeep } from './upkeep.ts';
import { VolumeLog } from './volume-log.ts';
import { Volumes } from './volumes.ts';
import { Watchers } from './watchers.ts';

/** What a bridge stands on. */
export interface BridgeGround {
  readonly store: Store;
  /** Ed25519 seed of the bridge's identity, 32 bytes. */
  readonly seed: Uint8Array;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly metrics: Metrics;
  /** The bridge's own peer. */
  readonly bridge: PeerName;
  readonly log: Logger;
}

/** Builds the parts of a bridge and reads what is stored; nothing runs yet. */
export async function assembleBridge(
  ground: BridgeGround,
  options: BridgeOptions,
): Promise<{ service: Service; upkeep: Upkeep; registry: HostRegistry }> {
  const { store, seed, clock, random, metrics, bridge, log } = ground;
  const volumeQueue = new KeyedQueue(options.maxWaitingPerVolume);
  const volumes = new Volumes(store, options);
  const registry = new HostRegistry({ store, clock }, options);
  const book = new OrderBook({ store, clock }, { ...options, graceMs: options.confirmGraceMs });
  await Promise.all([volumes.load(), registry.load(), book.load()]);

  const directory = new ShardDirectory(store);
  const watchers = new Watchers({ maxPerVolume: options.maxWatchersPerVolume });
  const signer = new OrderSigner(
    { seed, clock },
    { store: options.storeOrderMs, retrieve: options.retrieveOrderMs, delete: options.deleteOrderMs },
  );
  const leases = new Leases(
    {
      store,
      volumes,
      volumeQueue,
      clock,
      onChange: (volume, viewOf) => watchers.notify(volume, (session) => leaseAnswer(viewOf(session.remotePeer))),
    },
    { ttlMs: options.leaseTtlMs },
  );
  const parts = { store, volumes, registry, book, directory, signer, volumeQueue, clock };
  const service = new Service(
    {
      registry,
      placer: new Placer({ ...parts, random }),
      receipts: new Receipts(parts),
      locator: new Locator({ ...parts, random }),
      log: new VolumeLog({
        ...parts,
        effects: new EntryEffects(parts),
        onAppend: (volume, head) => watchers.notify(volume, () => ({ case: 'head', value: { ...head } })),
      }),
      leases,
      watchers,
      deletes: new DeleteQueue({ ...parts, bridge }, { maxOrders: options.maxDeletesPerHeartbeat }),
      space: (owner) => spaceFor(parts, owner),
      bridge,
      clock,
      metrics,
    },
    options,
  );
  const hostsOnline = metrics.gauge('bridge_hosts_online', 'Hosts heard of lately');
  const ordersOut = metrics.gauge('bridge_orders_out', 'Store orders without a receipt');
  const volumesKnown = metrics.gauge('bridge_volumes', 'Volumes known');
  const upkeep = new Upkeep(
    {
      tasks: {
        leases: () => leases.expire(),
        orders: () => book.sweep(),
        hosts: () => registry.flush(),
        figures: async () => {
          hostsOnline.set(registry.all().filter((host) => host.online).length);
          ordersOut.set(book.size);
          volumesKnown.set(volumes.count);
        },
      },
      clock,
      log,
    },
    { intervalMs: options.upkeepMs },
  );
  return { service, upkeep, registry };
}

// Builds a bridge from its parts, starts it and stops it.

import { join } from 'node:path';
import type { Connection, Stream } from '@libp2p/interface';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import { createMetrics } from '../lib/metrics.ts';
import type { Metrics } from '../lib/metrics.ts';
import { addressesOf, createNode, loadOrCreateSeed } from '../net/node.ts';
import { BRIDGE_PROTOCOL } from '../net/protocols.ts';
import { serveRpc } from '../net/rpc.ts';
import { DeleteQueue } from './delete-queue.ts';
import { EntryEffects } from './entry-effects.ts';
import { HostRegistry } from './host-registry.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import { Leases } from './lease.ts';
import { openLevelStore } from './level-store.ts';
import { Locator } from './locator.ts';
import { BRIDGE_DEFAULTS } from './options.ts';
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

const MAX_STREAMS_PER_CONNECTION = 4;

/** Where a bridge keeps its state and listens. */
export interface BridgeSettings {
  readonly dir: string;
  /** Multiaddrs. */
  readonly listen: readonly string[];
  readonly options?: Partial<BridgeOptions>;
}

/** What a bridge uses of its surroundings. */
export interface BridgeSurroundings {
  readonly log: Logger;
  readonly clock?: Clock;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
}

/** A bridge that runs. */
export interface RunningBridge {
  /** Multiaddr with /p2p/ id that others use: one that is reachable from other machines, if there is one. */
  readonly address: string;
  readonly addresses: readonly string[];
  readonly metrics: Metrics;
  stop(): Promise<void>;
}

/** Starts a bridge and resolves once it listens. HOME_LOCKED when the folder is in use, BAD_FORMAT when its data is not ours. */
export async function startBridge(settings: BridgeSettings, surroundings: BridgeSurroundings): Promise<RunningBridge> {
  const store = await openLevelStore(join(settings.dir, 'state'));
  try {
    return await startOn(store, settings, surroundings);
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function startOn(
  store: Store,
  settings: BridgeSettings,
  { log, clock = systemClock, random = Math.random }: BridgeSurroundings,
): Promise<RunningBridge> {
  const options = { ...BRIDGE_DEFAULTS, ...settings.options };
  const seed = await loadOrCreateSeed(join(settings.dir, 'identity.seed'));
  const metrics = createMetrics();
  const node = await createNode({ seed, listen: settings.listen, maxConnections: options.maxConnections });
  const bridge = node.peerId.toString();
  const { service, upkeep, registry } = await assemble({ store, seed, clock, random, metrics, bridge, log }, options);

  const streams = new Set<Promise<void>>();
  const serve = (stream: Stream, connection: Connection): void => {
    const served: Promise<void> = serveRpc(
      stream,
      connection.remotePeer.toString(),
      (body, context) => service.handle(body, context),
      {},
      (error, request) => log.error({ err: error, request }, 'a request failed'),
    ).finally(() => streams.delete(served));
    streams.add(served);
  };
  try {
    await node.handle(BRIDGE_PROTOCOL, serve, { maxInboundStreams: MAX_STREAMS_PER_CONNECTION });
  } catch (error) {
    await node.stop();
    throw error;
  }
  upkeep.start();
  const addresses = addressesOf(node);
  log.info({ addresses }, 'the bridge listens');
  return {
    address: addresses.find((address) => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address)) ?? addresses[0] ?? '',
    addresses,
    metrics,
    async stop() {
      await upkeep.stop();
      await node.stop();
      await Promise.all(streams);
      await registry.flush();
      await store.close();
    },
  };
}

interface Ground {
  readonly store: Store;
  readonly seed: Uint8Array;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly bridge: string;
  readonly log: Logger;
}

async function assemble(
  ground: Ground,
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
      locator: new Locator(parts),
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

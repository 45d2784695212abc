// Builds a bridge from its parts, with no network yet.

import { KeyedQueue } from '../lib/keyed-queue.ts';
import { assembleCare } from './assemble-care.ts';
import type { Care } from './assemble-care.ts';
import { DeleteQueue } from './delete-queue.ts';
import { EntryEffects } from './entry-effects.ts';
import { HashedKeys } from './hashed-keys.ts';
import { HostPool } from './host-pool.ts';
import { bridgeHandlers } from './control.ts';
import type { BridgeHandlers } from './control.ts';
import { watchBridge } from './figures.ts';
import { HostRegistry } from './host-registry.ts';
import { Leases } from './lease.ts';
import { Locator } from './locator.ts';
import { MirrorIndex } from './mirror-index.ts';
import { Mirrors } from './mirrors.ts';
import type { BridgeGround } from './ground.ts';
import type { BridgeOptions } from './options.ts';
import { OrderBook } from './order-book.ts';
import { OrderSigner } from './order-signer.ts';
import { Placer } from './placer.ts';
import { Policies } from './policies.ts';
import { Reachability } from './reachability.ts';
import { Receipts } from './receipts.ts';
import { checkShardId } from './records.ts';
import { RepairQueue } from './repair-queue.ts';
import { leaseAnswer, Service } from './service.ts';
import { ShardDirectory } from './shard-directory.ts';
import { spaceFor } from './space.ts';
import { signSighting } from '../net/sightings.ts';
import { Upkeep } from './upkeep.ts';
import type { UpkeepTask } from './upkeep.ts';
import { VolumeLog } from './volume-log.ts';
import { Volumes } from './volumes.ts';
import { Watchers } from './watchers.ts';

/** A bridge whose upkeep does not run yet. */
export interface AssembledBridge {
  readonly service: Service;
  /** Loops that run side by side, to be started and stopped. */
  readonly upkeep: readonly Upkeep[];
  readonly care: Care;
  readonly registry: HostRegistry;
  readonly control: BridgeHandlers;
}

/** Builds the parts of a bridge and reads what is stored; nothing runs yet. */
export async function assembleBridge(ground: BridgeGround, options: BridgeOptions): Promise<AssembledBridge> {
  const { store, seed, clock, random, randomBytes, metrics, bridge, log } = ground;
  const volumeQueue = new KeyedQueue(options.maxWaitingPerVolume);
  const volumes = new Volumes({ store, clock, volumeQueue }, options);
  const reachability = new Reachability({ clock, bridge, outside: ground.outside });
  const registry = new HostRegistry({ store, clock, reachability }, options);
  const book = new OrderBook({ store, clock }, { ...options, graceMs: options.confirmGraceMs });
  await Promise.all([volumes.load(), registry.load(), book.load()]);

  const directory = new ShardDirectory({ store, registry });
  const index = new MirrorIndex({ store, registry });
  await index.load();
  const queue = new RepairQueue(
    { store, clock },
    { retryMs: options.repairRetryMs, maxRetryMs: options.maxRepairRetryMs },
  );
  const watchers = new Watchers({ maxPerVolume: options.maxWatchersPerVolume });
  const signer = new OrderSigner(
    { seed, clock, randomBytes },
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
  const keys = new HashedKeys({ store, directory, volumeQueue, registry });
  const policies = new Policies({ registry, volumes }, options);
  const shared = {
    store,
    volumes,
    registry,
    pool: new HostPool({ registry, book, clock, random }),
    policies,
    book,
    directory,
    index,
    queue,
    keys,
    signer,
    volumeQueue,
    clock,
  };
  const mirrors = new Mirrors(shared);
  const parts = { ...shared, mirrors };
  const care = await assembleCare({ ...ground, ...parts }, options);
  const service = new Service(
    {
      registry,
      reachability,
      placer: new Placer(parts),
      receipts: new Receipts(parts),
      keys,
      locator: new Locator({ ...parts, random, onReport: (host, shardId) => care.auditor.recheck(host, shardId) }),
      log: new VolumeLog({
        ...parts,
        effects: new EntryEffects({ ...parts, onClaimed: () => care.wantInventories() }, options),
        onAppend: (volume, head) => watchers.notify(volume, () => ({ case: 'head', value: { ...head } })),
      }),
      leases,
      watchers,
      deletes: new DeleteQueue({ ...parts, bridge }, { maxOrders: options.maxDeletesPerHeartbeat }),
      onLost: async (host, shardId) => {
        checkShardId(shardId);
        const record = await mirrors.get(shardId);
        if (record) await mirrors.fail(shardId, record.volume, host);
      },
      sight: (...what) => signSighting(seed, ...what),
      space: (owner) => spaceFor(parts, owner),
      bridge,
      clock,
      metrics,
    },
    options,
  );
  const control = bridgeHandlers({ registry, reachability, store, volumes, book, queue, mirrors, clock, bridge });
  watchBridge(metrics, control);
  const loop = (tasks: Readonly<Record<string, UpkeepTask>>): Upkeep =>
    new Upkeep({ tasks, clock, log }, { intervalMs: options.upkeepMs });
  const upkeep = [
    loop({
      leases: () => leases.expire(),
      orders: () => book.sweep(),
      hosts: () => registry.flush(),
      watch: care.watch,
    }),
    // Loops of their own: hosts may take long to answer.
    loop({ reachability: (signal) => reachability.round((host) => registry.get(host)?.online === true, signal) }),
    loop({ audit: care.audit }),
    ...Array.from({ length: options.parallelRepairs }, () => loop({ repair: care.repair })),
    loop({ inventory: care.inventory }),
  ];
  return { service, upkeep, care, registry, control };
}

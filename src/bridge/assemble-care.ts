// Builds the part of a bridge that keeps what was stored: audits, the watch over hosts, repair.

import type { HostCalls } from '../net/connected-hosts.ts';
import type { BridgeGround } from './ground.ts';
import { Auditor } from './auditor.ts';
import { HostJobs } from './host-jobs.ts';
import type { JobProgress } from './host-jobs.ts';
import type { HashedKeys } from './hashed-keys.ts';
import type { HostPool } from './host-pool.ts';
import type { HostRegistry } from './host-registry.ts';
import { HostWatch } from './host-watch.ts';
import { Inventory } from './inventory.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import type { BridgeOptions } from './options.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import { Repairer } from './repairer.ts';
import type { RepairQueue } from './repair-queue.ts';
import type { ShardDirectory } from './shard-directory.ts';
import type { UpkeepTask } from './upkeep.ts';

/** What care works with. */
export interface CareComponents extends BridgeGround {
  readonly registry: HostRegistry;
  readonly pool: HostPool;
  readonly directory: ShardDirectory;
  readonly index: MirrorIndex;
  readonly mirrors: Mirrors;
  readonly keys: HashedKeys;
  readonly book: OrderBook;
  readonly signer: OrderSigner;
  readonly queue: RepairQueue;
  readonly calls: HostCalls;
}

/** One round each of what a bridge does about its hosts and their shards; they may run side by side. */
export interface Care {
  readonly watch: UpkeepTask;
  readonly audit: UpkeepTask;
  readonly repair: UpkeepTask;
  readonly inventory: UpkeepTask;
  readonly auditor: Auditor;
  /** Has what all hosts hold looked at soon. */
  readonly wantInventories: () => void;
}

/** Builds it and reads what is stored. */
export async function assembleCare(components: CareComponents, options: BridgeOptions): Promise<Care> {
  const { store, log, index } = components;
  const jobs = new HostJobs({ store, log });
  await jobs.load();
  const failing = new Set<string>();
  const auditor = new Auditor({ ...components, onFailure: (host) => failing.add(host) }, options);
  const watch = new HostWatch(
    { ...components, jobs },
    {
      repairAfterMs: options.repairAfterMs,
      evacuateAgainMs: 10 * options.repairRetryMs,
      inventoryMs: options.inventoryMs,
    },
  );
  const inventory = new Inventory({ ...components, auditor }, options);
  const repairer = new Repairer({ ...components, auditor }, options);
  const verifySome = async (host: string, after: Uint8Array, signal: AbortSignal): Promise<JobProgress> => {
    const view = components.registry.get(host);
    if (!view) return { after: undefined };
    if (!view.online || view.standing.state === 'disqualified') return { after };
    const shardIds = await index.list(host, after, options.verifiedPerRound);
    await Promise.all(shardIds.map((shardId) => auditor.audit(host, shardId, 'leaf', signal)));
    return { after: shardIds.length < options.verifiedPerRound ? undefined : shardIds.at(-1) };
  };
  return {
    auditor,
    wantInventories: () => watch.wantInventories(),
    watch: (signal) => watch.round(signal),
    repair: (signal) => repairer.round(signal),
    inventory: async (signal) => {
      await jobs.round('inventory', (...step) => inventory.step(...step), signal);
    },
    audit: async (signal) => {
      await auditor.round(signal);
      await jobs.round('verify', (...step) => verifySome(...step), signal);
      // A host that fails once is gone through as a whole, once.
      for (const host of failing) if (!jobs.has('verify', host)) await jobs.start('verify', host);
      failing.clear();
    },
  };
}

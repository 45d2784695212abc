// Notices hosts that are gone, back, disqualified or leaving, and has what they hold repaired or trimmed.

import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import type { PeerName } from '../net/network.ts';
import type { HostJobs, JobProgress } from './host-jobs.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import { MAX_UNANSWERED } from './host-standing.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import { hexOf } from './records.ts';
import type { RepairQueue } from './repair-queue.ts';
import type { ShardDirectory } from './shard-directory.ts';
import type { StoreWrite } from '../lib/store.ts';

/** Shards of a host that are looked at in one step. */
const SHARDS_PER_STEP = 1_000;

/** Shards that were claimed are looked for on all hosts at most so often. */
const INVENTORY_AGAIN_MS = 10 * 60_000;

/** What a watch works with. */
export interface HostWatchComponents {
  readonly registry: HostRegistry;
  readonly index: MirrorIndex;
  readonly directory: ShardDirectory;
  readonly mirrors: Mirrors;
  readonly queue: RepairQueue;
  readonly jobs: HostJobs;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Times of a watch. */
export interface HostWatchOptions {
  /** A host that does not answer for so long is lost: its mirrors do not count any more. */
  readonly repairAfterMs: number;
  /** A disqualified or leaving host that still holds shards is gone through again after so long. */
  readonly evacuateAgainMs: number;
  /** Between two inventories of a host. */
  readonly inventoryMs: number;
}

/** Watches over all hosts. */
export class HostWatch {
  readonly #components: HostWatchComponents;
  readonly #options: HostWatchOptions;
  /** Since when hosts are silent, on the clock that nobody sets; at most one for each host. */
  readonly #silentSince = new Map<PeerName, number>();
  readonly #evacuated = new Map<PeerName, number>();
  #takers = 0;
  /** Inventories that are older are taken again. */
  #inventorySinceMs = 0;

  constructor(components: HostWatchComponents, options: HostWatchOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** Looks at every host, and goes on with what has to be done about its shards. */
  async round(signal: AbortSignal): Promise<void> {
    const { registry, queue, jobs } = this.#components;
    const hosts = registry.all();
    for (const host of hosts) await this.#look(host);
    this.#forget();
    const takers = hosts.filter(({ online, takesShards }) => online && takesShards).length;
    if (takers > this.#takers) queue.wake();
    this.#takers = takers;
    await jobs.round('lost', (host, after) => this.#repairSome(host, after), signal);
    await jobs.round('back', (host, after) => this.#trimSome(host, after), signal);
  }

  /** What was noted of hosts that the registry has forgotten. */
  #forget(): void {
    const { registry } = this.#components;
    for (const notes of [this.#silentSince, this.#evacuated]) {
      if (notes.size <= registry.size) continue;
      for (const host of notes.keys()) if (!registry.get(host)) notes.delete(host);
    }
  }

  /** Has inventories of all hosts taken soon: they may hold what this bridge has forgotten. */
  wantInventories(): void {
    const now = this.#components.clock.now();
    if (now - this.#inventorySinceMs >= INVENTORY_AGAIN_MS) this.#inventorySinceMs = now;
  }

  async #look(view: HostView): Promise<void> {
    const { registry, jobs, clock, log, queue } = this.#components;
    const { host } = view;
    const now = clock.monotonicMs();
    if (view.online && view.unanswered < MAX_UNANSWERED) {
      this.#silentSince.delete(host);
      if (view.lostMs > 0) {
        log.info({ host }, 'a lost host is back');
        registry.setLost(host, false);
        await jobs.end('lost', host);
        await jobs.start('back', host);
        await jobs.start('inventory', host);
        queue.wake();
      }
    } else {
      // A silence that was announced begins to count when it should be over.
      const since = view.excused && !view.online ? now : (this.#silentSince.get(host) ?? now);
      this.#silentSince.set(host, since);
      if (view.lostMs === 0 && now - since >= this.#options.repairAfterMs) {
        log.warn({ host, shards: view.shards }, 'a host is lost; its shards are repaired');
        registry.setLost(host, true);
        await jobs.end('back', host);
        await jobs.start('lost', host);
      }
    }
    const isOld = clock.now() - view.inventoryMs >= this.#options.inventoryMs;
    const inventoryDue = isOld || view.inventoryMs < this.#inventorySinceMs;
    if (view.online && inventoryDue && !jobs.has('inventory', host)) await jobs.start('inventory', host);
    if (view.standing.state === 'disqualified' || view.standing.state === 'leaving') await this.#evacuate(view, now);
  }

  async #evacuate({ host, shards, standing }: HostView, now: number): Promise<void> {
    const { jobs, log } = this.#components;
    const again = (this.#evacuated.get(host) ?? -Infinity) + this.#options.evacuateAgainMs;
    if (shards === 0 || now < again || jobs.has('lost', host)) return;
    this.#evacuated.set(host, now);
    log.info({ host, shards, reason: standing.reason }, "a host's shards are moved away");
    await jobs.start('lost', host);
  }

  async #repairSome(host: PeerName, after: Uint8Array): Promise<JobProgress> {
    const { index, directory, mirrors, queue } = this.#components;
    const shardIds = await index.list(host, after, SHARDS_PER_STEP);
    const records = await directory.load(shardIds);
    const writes: StoreWrite[] = [];
    for (const shardId of shardIds) {
      const record = records.get(hexOf(shardId));
      if (record && !record.freed) writes.push(queue.add(shardId, mirrors.counted(record).length));
    }
    return { after: shardIds.length < SHARDS_PER_STEP ? undefined : shardIds.at(-1), writes };
  }

  async #trimSome(host: PeerName, after: Uint8Array): Promise<JobProgress> {
    const { index, directory, mirrors } = this.#components;
    const shardIds = await index.list(host, after, SHARDS_PER_STEP);
    const records = await directory.load(shardIds);
    for (const shardId of shardIds) {
      const record = records.get(hexOf(shardId));
      if (!record || record.freed || mirrors.counted(record).length <= mirrors.wanted(record.volume)) continue;
      await mirrors.trim(shardId, record.volume, host);
    }
    return { after: shardIds.length < SHARDS_PER_STEP ? undefined : shardIds.at(-1) };
  }
}

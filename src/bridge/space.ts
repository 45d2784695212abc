// Answers Space: a volume's quota and what the network has room for.

import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import type { OrderBook } from './order-book.ts';
import type { Policies } from './policies.ts';
import type { ShardDirectory } from './shard-directory.ts';
import type { Volumes } from './volumes.ts';

const MAX_HOSTS = 32;

/** What the answer is made of. */
export interface SpaceComponents {
  readonly volumes: Volumes;
  readonly registry: HostRegistry;
  readonly policies: Policies;
  readonly book: OrderBook;
  readonly directory: ShardDirectory;
}

/** Space for a volume; hosts that hold some of it come first, then those that are online. */
export async function spaceFor(components: SpaceComponents, owner: Owner): Promise<ResponseInit> {
  const { volumes, registry, policies, book, directory } = components;
  const record = await volumes.get(owner.volume);
  const holders = new Set(await directory.hostsOf(owner.volume, MAX_HOSTS));
  const hosts = registry.all();
  const free = hosts
    .filter((host) => host.online)
    .reduce((sum, host) => sum + Math.max(0, host.freeBytes - book.promisedTo(host.host)), 0);
  const rank = (host: HostView): number => (holders.has(host.host) ? 2 : 0) + (host.online ? 1 : 0);
  const shown = hosts
    .sort((a, b) => rank(b) - rank(a) || (a.host < b.host ? -1 : 1))
    .slice(0, MAX_HOSTS)
    .map(({ host, online, lastSeenMs, capacityBytes, usedBytes, reliability }) => ({
      host,
      online,
      lastSeenMs: BigInt(lastSeenMs),
      capacityBytes: BigInt(capacityBytes),
      usedBytes: BigInt(usedBytes),
      reliability,
    }));
  return {
    case: 'spaceInfo',
    value: {
      quotaBytes: volumes.quotaOf(record),
      usedBytes: record.usedBytes,
      networkFreeBytes: BigInt(free),
      mirrors: policies.of(owner.volume).mirrors,
      hosts: shown,
    },
  };
}

// A bridge's control socket: its calls, how it is reached, and how they are answered from what the bridge knows anyway.

import { join } from 'node:path';
import { callSocket } from '../lib/control-socket.ts';
import type { CallOptions, Handlers, ServerName } from '../lib/control-socket.ts';
import type { Clock } from '../lib/clock.ts';
import type { PeerName } from '../net/network.ts';
import type { BridgeCalls, BridgeHost, BridgeStatus } from './control-api.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import type { OrderBook } from './order-book.ts';
import type { Reachability } from './reachability.ts';
import type { Mirrors } from './mirrors.ts';
import { MAX_SHARD_BYTES } from './policy.ts';
import type { RepairQueue } from './repair-queue.ts';
import type { Store } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

const HOSTS_AT_ONCE = 1_000;
/** Shards to be repaired are counted no further. */
export const MAX_SHARDS_COUNTED = 1_000;
/** Of these it is looked at what they wait for. */
const SHARDS_LOOKED_AT = 100;
/** Below this share of room on all hosts the operator is told. */
const LOW_FREE_SHARE = 0.1;

/** One function a call. */
export type BridgeHandlers = Handlers<BridgeCalls>;

/** How people are told of the bridge in a folder. */
export function bridgeIn(dir: string): ServerName {
  return {
    name: 'the bridge',
    busy: `another bridge answers for ${dir} already; stop it, or choose another folder`,
    absent: `no bridge runs on ${dir}; start it with xcore bridge, or name its folder with --dir`,
    absentCode: 'UNREACHABLE',
  };
}

/** What the calls are answered from. */
export interface BridgeControlComponents {
  readonly registry: HostRegistry;
  readonly reachability: Reachability;
  readonly store: Pick<Store, 'failure'>;
  readonly volumes: Volumes;
  readonly book: OrderBook;
  readonly queue: RepairQueue;
  readonly mirrors: Mirrors;
  readonly clock: Clock;
  readonly bridge: PeerName;
}

/** The socket of the bridge in a folder. */
export function bridgeSocket(dir: string): string {
  return join(dir, 'control.sock');
}

/** Makes one call to the bridge in a folder, as callSocket() does; UNREACHABLE when none runs. */
export function callBridge<M extends keyof BridgeCalls>(
  dir: string,
  method: M,
  params: BridgeCalls[M]['params'],
  options: CallOptions = {},
): Promise<BridgeCalls[M]['result']> {
  return callSocket<BridgeCalls, M>(bridgeSocket(dir), method, params, bridgeIn(dir), options);
}

/** The handlers of a bridge's calls. */
export function bridgeHandlers(components: BridgeControlComponents): BridgeHandlers {
  const { registry, reachability, clock } = components;
  const startedMs = clock.now();
  return {
    status: () => statusOf(components, startedMs),
    hosts: async ({ after }) => {
      const later = registry.all().filter(({ host }) => host > after);
      later.sort((a, b) => (a.host < b.host ? -1 : 1));
      const hosts = later.slice(0, HOSTS_AT_ONCE).map((view) => lineOf(view, reachability.of(view.host).state));
      return { hosts, last: later.length <= HOSTS_AT_ONCE };
    },
  };
}

async function statusOf(components: BridgeControlComponents, startedMs: number): Promise<BridgeStatus> {
  const { registry, volumes, book, queue, bridge } = components;
  const hosts = registry.all();
  const online = hosts.filter((host) => host.online);
  const standings: Record<string, number> = {};
  for (const { standing } of hosts) standings[standing.state] = (standings[standing.state] ?? 0) + 1;
  const status = {
    bridge,
    pid: process.pid,
    startedMs,
    hosts: {
      known: hosts.length,
      online: online.length,
      lost: hosts.filter(({ lostMs }) => lostMs > 0).length,
      standings,
    },
    space: {
      capacityBytes: sum(online, ({ capacityBytes }) => capacityBytes),
      usedBytes: sum(online, ({ usedBytes }) => usedBytes),
      freeBytes: sum(online, ({ freeBytes }) => freeBytes),
    },
    mirrors: sum(hosts, ({ shards }) => shards),
    volumes: volumes.count,
    ordersOut: book.size,
    toRepair: await queue.size(MAX_SHARDS_COUNTED),
    toRepairLimit: MAX_SHARDS_COUNTED,
  };
  const repair = status.toRepair > 0 && online.length > 0 ? await repairAdvice(components, online) : [];
  return { ...status, advice: [...storeAdvice(components), ...adviceFor(status, online), ...repair] };
}

/** Whether shards wait for hosts that are there, or for others to join. */
async function repairAdvice(
  { queue, mirrors }: BridgeControlComponents,
  online: readonly HostView[],
): Promise<string[]> {
  const isTaking = ({ takesShards, resting, freeBytes }: HostView): boolean =>
    takesShards && !resting && freeBytes >= MAX_SHARD_BYTES;
  const taking = online.filter(isTaking).map(({ host }) => host);
  let wanted = 0;
  let able = 0;
  let isMending = false;
  for (const shardId of await queue.some(SHARDS_LOOKED_AT)) {
    const record = await mirrors.get(shardId);
    if (record === undefined) continue;
    const counted = mirrors.counted(record).map(({ host }) => host);
    const goal = mirrors.wanted(record.volume);
    const hosts = new Set([...counted, ...taking]).size;
    if (counted.length >= goal) continue;
    isMending ||= hosts > counted.length;
    if (hosts < goal && goal > wanted) [wanted, able] = [goal, hosts];
  }
  const advice: string[] = [];
  if (wanted > 0) {
    advice.push(
      `shards wait for more hosts to join: they are to have ${wanted} mirrors, each on another host, and hosts that have them or take shards now are ${able}`,
    );
  }
  if (isMending) {
    advice.push(
      `shards are below their number of mirrors: they are made again on the hosts that take shards now, which are ${taking.length} of ${online.length} online`,
    );
  }
  return advice;
}

function storeAdvice({ store }: BridgeControlComponents): string[] {
  if (!store.failure) return [];
  return [`${store.failure.message}: mend that, and it goes on by itself; no client can store anything until then`];
}

function adviceFor({ hosts, space }: Omit<BridgeStatus, 'advice'>, online: readonly HostView[]): string[] {
  const advice: string[] = [];
  if (hosts.known === 0)
    advice.push(
      'no host has joined: on each machine that lends room, xcore serve --bridge with this bridge’s multiaddr',
    );
  else if (online.length === 0)
    advice.push('no host is online: check this machine’s connection, and that its port is open');
  if (online.length > 0 && space.freeBytes < LOW_FREE_SHARE * space.capacityBytes) {
    advice.push('the hosts are nearly full: more hosts, or more --space on these, are needed');
  }
  return advice;
}

function lineOf(view: HostView, reach: string): BridgeHost {
  const { host, online, standing, addresses, lastSeenMs, lostMs, capacityBytes, usedBytes, freeBytes } = view;
  const { shards, uptime, reliability, bytesPerSecond, network, operator, region } = view;
  return {
    ...{
      host,
      online,
      standing: standing.state,
      reason: standing.reason,
      reach,
      addresses: [...addresses],
      lastSeenMs,
    },
    ...{ lost: lostMs > 0, capacityBytes, usedBytes, freeBytes, shards, uptime, reliability, bytesPerSecond },
    ...{ network, operator, region },
  };
}

function sum(hosts: readonly HostView[], of: (host: HostView) => number): number {
  return hosts.reduce((total, host) => total + of(host), 0);
}

// The figures of a bridge as metrics, read when they are asked for.

import type { Metrics } from '../lib/metrics.ts';
import type { BridgeHandlers } from './control.ts';

/** Adds them. */
export function watchBridge(metrics: Metrics, { status }: BridgeHandlers): void {
  const hosts = metrics.gauge('bridge_hosts', 'Hosts, by standing', ['standing']);
  const online = metrics.gauge('bridge_hosts_online', 'Hosts heard of lately');
  const lost = metrics.gauge('bridge_hosts_lost', 'Hosts whose shards are made again elsewhere');
  const space = metrics.gauge('bridge_host_space_bytes', 'Room of the hosts that are online', ['kind']);
  const mirrors = metrics.gauge('bridge_mirrors', 'Mirrors that hosts are to hold');
  const orders = metrics.gauge('bridge_orders_out', 'Store orders without a receipt');
  const toRepair = metrics.gauge('bridge_shards_to_repair', 'Shards below their number of mirrors, up to a bound');
  const volumes = metrics.gauge('bridge_volumes', 'Volumes known');
  metrics.onRead(async () => {
    const now = await status({}, { progress: () => {}, signal: new AbortController().signal });
    volumes.set(now.volumes);
    hosts.reset();
    for (const [standing, count] of Object.entries(now.hosts.standings)) hosts.set({ standing }, count);
    online.set(now.hosts.online);
    lost.set(now.hosts.lost);
    space.set({ kind: 'capacity' }, now.space.capacityBytes);
    space.set({ kind: 'used' }, now.space.usedBytes);
    space.set({ kind: 'free' }, now.space.freeBytes);
    mirrors.set(now.mirrors);
    orders.set(now.ordersOut);
    toRepair.set(now.toRepair);
  });
}

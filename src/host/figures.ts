// The figures of a host as metrics, read when they are asked for.

import type { Metrics } from '../lib/metrics.ts';
import type { HostStatus } from './control-api.ts';

/** Adds them. */
export function watchHost(metrics: Metrics, status: () => Promise<HostStatus>): void {
  const space = metrics.gauge('host_space_bytes', 'Room that is lent', ['kind']);
  const shards = metrics.gauge('host_shards', 'Shards that are held');
  const connected = metrics.gauge('host_connected', 'Whether the bridge is connected');
  const transfers = metrics.gauge('host_transfers', 'Transfers under way');
  const month = metrics.gauge('host_month_bytes', 'Shard bytes moved this month', ['direction']);
  const score = metrics.gauge('host_audit_score', 'Share of audits passed of late, as the bridge told');
  const uptime = metrics.gauge('host_uptime_ratio', 'Share of the time that the host was there, as the bridge told');
  metrics.onRead(async () => {
    const now = await status();
    space.set({ kind: 'limit' }, now.space.limitBytes);
    space.set({ kind: 'used' }, now.space.usedBytes);
    space.set({ kind: 'free' }, now.space.freeBytes);
    shards.set(now.space.shards);
    connected.set(now.bridge.connected ? 1 : 0);
    transfers.set(now.transfers);
    month.set({ direction: 'in' }, now.month.inBytes);
    month.set({ direction: 'out' }, now.month.outBytes);
    if (!now.standing) return;
    score.set(now.standing.auditScore);
    uptime.set(now.standing.uptime);
  });
}

// Every time and bound of a bridge, with its default.

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** What may be set when a bridge is started; tests shorten the times. */
export interface BridgeOptions {
  /** Between a host's heartbeats; a host is offline after three missed ones. */
  readonly heartbeatMs: number;
  /** A host counts for the policy for so long after it was last seen. */
  readonly existsForMs: number;
  readonly leaseTtlMs: number;
  readonly storeOrderMs: number;
  readonly retrieveOrderMs: number;
  readonly deleteOrderMs: number;
  /** A receipt counts for so long after its order has expired. */
  readonly confirmGraceMs: number;
  /** Of each volume, one mirror counted. */
  readonly quotaBytes: number;
  /** Of each shard of a volume whose owner has said nothing; 0: three, and four on larger networks. */
  readonly mirrors: number;
  readonly maxVolumes: number;
  readonly maxHosts: number;
  /** Hosts that hold nothing, and volumes in which nothing is, give way to new ones so long after they were last there. */
  readonly forgetAfterMs: number;
  /** Store orders that are out, over all volumes; a few hundred bytes of memory each. */
  readonly maxOrders: number;
  readonly maxOrdersPerVolume: number;
  readonly maxWatchersPerVolume: number;
  /** Requests of one volume that may wait for each other. */
  readonly maxWaitingPerVolume: number;
  /** Delete orders in one heartbeat's answer. */
  readonly maxDeletesPerHeartbeat: number;
  readonly maxConnections: number;
  /** Whether to relay for hosts that nobody can dial. */
  readonly relays: boolean;
  /** Requests a second that one peer may keep up, over all its streams; more are slowed down. */
  readonly maxRequestsPerSecond: number;
  /** Between rounds of upkeep: expired leases and orders, figures of hosts, audits, repair. */
  readonly upkeepMs: number;
  /** A host that does not answer for so long is lost: its mirrors do not count, and are made again elsewhere. */
  readonly repairAfterMs: number;
  /** Copies between hosts at once. */
  readonly parallelRepairs: number;
  /** Of all copies together; 0: no limit. */
  readonly repairBytesPerSecond: number;
  /** Before a shard that could not be repaired is tried again; doubles each time, up to the other one. */
  readonly repairRetryMs: number;
  readonly maxRepairRetryMs: number;
  /** Of each host. 500 a day find a host that lacks 1 % of its shards within a day with 99.3 % probability. */
  readonly auditsPerDay: number;
  /** Share of a host's shards that is drawn each day, if that is more than auditsPerDay. */
  readonly auditShareADay: number;
  /** At once, over all hosts. */
  readonly parallelAudits: number;
  /** Share of the audits for which a host reads the whole shard, to answer a hashed key. */
  readonly hashedAuditShare: number;
  /** Shards of a host that failed an audit that are looked at in each round of upkeep, until all of them were. */
  readonly verifiedPerRound: number;
  /** Between two comparisons of what a host holds with what it is to hold. */
  readonly inventoryMs: number;
  /** A shard on a host that the bridge does not know is deleted after so long: the bridge may have been restored from a backup. */
  readonly strayAfterMs: number;
  /** A shard that no entry names is freed so long after another device than the one that stored it began to write. */
  readonly unnamedAfterMs: number;
}

/** The defaults. */
export const BRIDGE_DEFAULTS: BridgeOptions = {
  heartbeatMs: 5_000,
  existsForMs: 24 * HOUR_MS,
  leaseTtlMs: 30_000,
  storeOrderMs: HOUR_MS,
  retrieveOrderMs: 6 * HOUR_MS,
  deleteOrderMs: HOUR_MS,
  confirmGraceMs: HOUR_MS,
  quotaBytes: 1024 ** 4,
  mirrors: 0,
  maxVolumes: 100_000,
  maxHosts: 10_000,
  forgetAfterMs: 7 * 24 * HOUR_MS,
  maxOrders: 200_000,
  maxOrdersPerVolume: 4_096,
  maxWatchersPerVolume: 64,
  maxWaitingPerVolume: 256,
  maxDeletesPerHeartbeat: 1_000,
  maxConnections: 4_096,
  relays: true,
  maxRequestsPerSecond: 500,
  upkeepMs: 1_000,
  repairAfterMs: 4 * HOUR_MS,
  parallelRepairs: 8,
  repairBytesPerSecond: 50_000_000,
  repairRetryMs: MINUTE_MS,
  maxRepairRetryMs: 6 * HOUR_MS,
  auditsPerDay: 500,
  auditShareADay: 0.002,
  parallelAudits: 16,
  hashedAuditShare: 0.1,
  verifiedPerRound: 8,
  inventoryMs: 24 * HOUR_MS,
  strayAfterMs: 7 * 24 * HOUR_MS,
  unnamedAfterMs: 90 * 24 * HOUR_MS,
};

/** Times that follow from how soon a silent host counts as lost: a short grace period needs quick heartbeats and retries. */
export function timesFor(
  repairAfterMs: number,
): Pick<BridgeOptions, 'repairAfterMs' | 'heartbeatMs' | 'repairRetryMs' | 'maxRepairRetryMs'> {
  return {
    repairAfterMs,
    heartbeatMs: Math.max(200, Math.min(BRIDGE_DEFAULTS.heartbeatMs, Math.floor(repairAfterMs / 5))),
    repairRetryMs: Math.min(BRIDGE_DEFAULTS.repairRetryMs, repairAfterMs),
    maxRepairRetryMs: Math.min(BRIDGE_DEFAULTS.maxRepairRetryMs, 4 * repairAfterMs),
  };
}

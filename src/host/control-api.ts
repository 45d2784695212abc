// What a running host answers on its control socket. `xcore host status --json` prints HostStatus as it is, so
// fields are only ever added.

import type { Routes } from '../net/network.ts';

/** How the bridge judges a host. */
export interface HostStanding {
  /** "vetting", "good", "suspended", "disqualified" or "leaving". */
  readonly state: string;
  readonly reason: string;
  /** That the host is to hold. */
  readonly shards: number;
  readonly shardBytes: number;
  readonly auditsPassed: number;
  readonly auditsFailed: number;
  /** 0 to 1, of late. */
  readonly auditScore: number;
  /** 0 to 1, since the bridge first saw it. */
  readonly uptime: number;
  /** 0 to 1, of transfers, as clients and the bridge found them. */
  readonly reliability: number;
  /** Nothing is left to move away. */
  readonly mayLeave: boolean;
}

/** State of one host. */
export interface HostStatus {
  readonly host: string;
  readonly pid: number;
  readonly startedMs: number;
  readonly addresses: readonly string[];
  /** `reason`: what keeps the host from it, empty when nothing does. */
  readonly bridge: { readonly address: string; readonly connected: boolean; readonly reason: string };
  /** Whether others can dial it, as the bridge found: "direct", "relayed" (through the bridge only), "none", or empty while that is not known. */
  readonly reachability: { readonly state: string; readonly address: string; readonly reason: string };
  /** Clients and hosts that are connected to it now. */
  readonly routes: Routes;
  readonly space: {
    readonly limitBytes: number;
    readonly usedBytes: number;
    /** Promised to transfers under way. */
    readonly reservedBytes: number;
    /** What it can still take, the disk's own free space considered. */
    readonly freeBytes: number;
    readonly shards: number;
  };
  /** Shard bytes since it was started. */
  readonly traffic: { readonly inBytes: number; readonly outBytes: number };
  readonly transfers: number;
  /** Answered since it was started. */
  readonly audits: number;
  /** What its owner allows; 0 is no limit. */
  readonly limits: {
    readonly upBytesPerSecond: number;
    readonly downBytesPerSecond: number;
    readonly monthlyBytes: number;
    /** As it was given; empty: always. */
    readonly schedule: string;
  };
  /** Shard bytes of this month, over restarts. */
  readonly month: { readonly month: string; readonly inBytes: number; readonly outBytes: number };
  /** The rest that is on: it moves no shards, and goes on answering audits. */
  readonly rest?: { readonly reason: 'hours' | 'monthly'; readonly untilMs: number };
  /** By how much the clock is ahead of the bridge's; negative: behind. */
  readonly clockAheadMs: number;
  readonly paused: boolean;
  readonly exiting: boolean;
  /** As the bridge told last; absent until it has. */
  readonly standing?: HostStanding;
  /** What would make it more useful, or its standing better. */
  readonly advice: readonly string[];
}

/** Progress of leaving and of verifying. */
export interface HostProgress {
  readonly remainingShards: number;
  readonly totalShards: number;
}

/** What verifying found. */
export interface VerifyResult {
  readonly shards: number;
  /** Told to the bridge, which has them made again elsewhere and deleted here. */
  readonly harmed: number;
}

/** Calls on the control socket. */
export interface HostCalls {
  status: { params: Record<string, never>; result: HostStatus };
  /** Takes nothing new until resumed, also over restarts. */
  pause: { params: Record<string, never>; result: HostStatus };
  /** Takes back a pause. A host that has asked to leave goes on leaving: the bridge does not forget it. */
  resume: { params: Record<string, never>; result: HostStatus };
  /** Asks to leave; with `wait` reports progress and returns when nothing is left. */
  exit: { params: { wait: boolean }; result: HostStatus };
  /** Reads every shard and compares it with its id; reports progress. */
  verify: { params: Record<string, never>; result: VerifyResult };
}

// Answers the calls on a host's control socket.

import type { Clock } from '../lib/clock.ts';
import type { Routes } from '../net/network.ts';
import { MAX_CLOCK_SKEW_MS } from '../net/orders.ts';
import type { Allowance } from './allowance.ts';
import type { BridgeAgent } from './bridge-agent.ts';
import type { HostStanding, HostStatus } from './control-api.ts';
import type { HostHandlers } from './control.ts';
import type { DiskHealth } from './disk-health.ts';
import type { Intent } from './intent.ts';
import type { ShardStore } from './shard-store.ts';
import type { Transfers } from './transfers.ts';
import { verifyShards } from './verify.ts';

/** Between two looks at how far leaving has come. */
const EXIT_POLL_MS = 500;
/** Below this uptime the advice is to be there more. */
const LOW_UPTIME = 0.9;
/** A clock that is off by more is told. */
const WRONG_CLOCK_MS = 10 * 60_000;
const LOW_FREE_SHARE = 0.05;

/** What the calls work with. */
export interface HostControlComponents {
  readonly store: ShardStore;
  readonly health: DiskHealth;
  readonly transfers: Transfers;
  readonly agent: BridgeAgent;
  readonly intent: Intent;
  readonly allowance?: Allowance | undefined;
  readonly clock: Clock;
  readonly host: string;
  readonly bridge: string;
  readonly addresses: () => readonly string[];
  readonly routes: () => Routes;
}

/** The handlers of a host's calls. */
export function hostHandlers(components: HostControlComponents, status: () => Promise<HostStatus>): HostHandlers {
  const { store, agent, intent, clock } = components;
  const wish = async (change: Parameters<Intent['change']>[0]): Promise<HostStatus> => {
    await intent.change(change);
    agent.hurry();
    return status();
  };
  return {
    status: () => {
      agent.lookAgain();
      return status();
    },
    pause: () => wish({ paused: true }),
    resume: () => wish({ paused: false }),
    exit: async ({ wait }, { progress, signal }) => {
      let now = await wish({ exiting: true });
      const totalShards = store.shards;
      while (wait && !now.standing?.mayLeave && !signal.aborted) {
        progress({ remainingShards: now.standing?.shards ?? totalShards, totalShards });
        await clock.sleep(EXIT_POLL_MS, signal).catch(() => {});
        now = await status();
      }
      return now;
    },
    verify: (_params, context) => verifyShards(store, (shardId) => agent.reportLost(shardId), context),
  };
}

/** How the host does, which was started then. */
export async function hostStatus(components: HostControlComponents, startedMs: number): Promise<HostStatus> {
  const { store, transfers, agent, intent, allowance, host, bridge, addresses, routes } = components;
  const { budget } = store;
  const freeBytes = await components.health.freeBytes();
  const told = agent.standing;
  const standing: HostStanding | undefined = told && {
    state: told.state,
    reason: told.reason,
    shards: Number(told.shards),
    shardBytes: Number(told.shardBytes),
    auditsPassed: Number(told.auditsPassed),
    auditsFailed: Number(told.auditsFailed),
    auditScore: told.auditScore,
    uptime: told.uptime,
    reliability: told.reliability,
    mayLeave: told.mayLeave,
  };
  const status = {
    host,
    pid: process.pid,
    startedMs,
    addresses: [...addresses()],
    bridge: { address: bridge, connected: agent.connected, reason: agent.complaint },
    reachability: {
      state: agent.reachability?.state ?? '',
      address: agent.reachability?.address ?? '',
      reason: agent.reachability?.reason ?? '',
    },
    routes: routes(),
    space: {
      limitBytes: budget.limitBytes,
      usedBytes: budget.usedBytes,
      reservedBytes: budget.reservedBytes,
      freeBytes,
      shards: store.shards,
    },
    traffic: transfers.traffic,
    clockAheadMs: agent.clockAheadMs,
    transfers: transfers.active,
    audits: transfers.audits,
    ...allowed(allowance),
    ...intent.wishes,
    ...(standing ? { standing } : {}),
  };
  const { failure } = components.health;
  const failing = failure ? [`${failure.message}: mend that, and it goes on by itself`] : [];
  return { ...status, advice: [...failing, ...adviceFor(status, failure !== undefined)] };
}

/** What to do about a host that others cannot dial; nothing for one that they can. */
export function reachabilityAdvice({ state, address, reason }: HostStatus['reachability']): string[] {
  if (state !== 'none' && state !== 'relayed') return [];
  const until =
    state === 'relayed'
      ? 'until then shards go through the bridge, which is slower, but for peers whose router lets both connect at once'
      : 'until then nobody can store or read here';
  const port = /\/tcp\/(\d+)/.exec(address)?.[1];
  if (port === undefined) return [`this host listens on no TCP port: give --listen; ${until}`];
  return [
    `the bridge could not connect back at ${address} (${reason}): let TCP port ${port} through router and firewall to this machine, and keep it with --listen /ip4/0.0.0.0/tcp/${port}; ${until}. It tries again now, and whenever xcore host status asks; a router that opens the port by itself (UPnP) needs half a minute`,
  ];
}

/** What to do about a clock that is so far ahead of the bridge's, or behind; nothing when it is right. */
export function clockAdvice(aheadMs: number): string[] {
  if (Math.abs(aheadMs) <= WRONG_CLOCK_MS) return [];
  const minutes = Math.round(Math.abs(aheadMs) / 60_000);
  const far = `${minutes} minutes ${aheadMs > 0 ? 'ahead of' : 'behind'} the bridge's`;
  const hours = MAX_CLOCK_SKEW_MS / 3_600_000;
  return [
    `this machine's clock is ${far}: set it right (timedatectl set-ntp true); past ${hours} hours, what the host is asked to do has expired for it`,
  ];
}

/** What the owner allows, and what has become of it. */
function allowed(allowance: Allowance | undefined): Pick<HostStatus, 'limits' | 'month' | 'rest'> {
  const { upBytesPerSecond = 0, downBytesPerSecond = 0, monthlyBytes = 0, schedule } = allowance?.options ?? {};
  const rest = allowance?.resting();
  return {
    limits: { upBytesPerSecond, downBytesPerSecond, monthlyBytes, schedule: schedule?.text ?? '' },
    month: allowance?.month ?? { month: '', inBytes: 0, outBytes: 0 },
    ...(rest ? { rest: { reason: rest.reason, untilMs: rest.untilMs } } : {}),
  };
}

function adviceFor(status: Omit<HostStatus, 'advice'>, isFailing: boolean): string[] {
  const { standing, space, bridge, paused, exiting, rest } = status;
  const advice: string[] = [];
  if (!bridge.connected) {
    const why = bridge.reason === '' ? '' : ` (${bridge.reason})`;
    advice.push(`the bridge cannot be used${why}: check its address and this machine’s connection`);
  } else if (bridge.reason !== '') advice.push(`the bridge does not take this host: ${bridge.reason}`);
  advice.push(...clockAdvice(status.clockAheadMs));
  advice.push(...reachabilityAdvice(status.reachability));
  if (standing?.mayLeave)
    advice.push('nothing is left to move away: stop xcore serve, and remove its folder if you like');
  else if (exiting) advice.push('keep xcore serve running until all its shards are elsewhere');
  if (rest?.reason === 'monthly') advice.push('what may be moved this month has been: raise --monthly, or wait');
  if (paused) advice.push('nothing new is taken: xcore host resume');
  if (standing?.state === 'suspended') advice.push('xcore host verify finds what the audits miss; check the disk');
  if (standing?.state === 'disqualified')
    advice.push('this host is out for good: check the disk, then start anew in another folder');
  if (standing?.state === 'vetting')
    advice.push('keep it running: more shards come once it has passed its first audits');
  if (standing && standing.uptime < LOW_UPTIME) advice.push('hosts that are there more of the time get more shards');
  if (!isFailing && !exiting && space.freeBytes < LOW_FREE_SHARE * space.limitBytes) {
    advice.push('there is hardly any room left: raise --space, or free some of the disk');
  }
  return advice;
}

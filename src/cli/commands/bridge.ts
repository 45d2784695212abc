// xcore bridge: runs a bridge in the foreground, or asks the one that runs on a folder how it does.

import type { Argv, CommandModule } from 'yargs';
import { resolve } from 'node:path';
import { callBridge } from '../../bridge/control.ts';
import type { BridgeHost, BridgeStatus } from '../../bridge/control-api.ts';
import { timesFor } from '../../bridge/options.ts';
import type { BridgeOptions } from '../../bridge/options.ts';
import { XcoreError } from '../../lib/errors.ts';
import { parseMetricsAddress } from '../../lib/metrics-server.ts';
import { ensurePrivateFolder } from '../../lib/paths.ts';
import { formatBytes } from '../../lib/units.ts';
import { currentPaths, foregroundLog } from '../context.ts';
import { refuseOptions } from '../given.ts';
import { METRICS_OPTION, withMetrics } from '../metrics.ts';
import { checkMirrors } from '../mirrors.ts';
import { checkListenAddress } from '../multiaddr.ts';
import { bytesOf, durationOf, rateOf } from '../option-values.ts';
import { note, print, printJson } from '../output.ts';
import { claimServerFolder } from '../server-folder.ts';
import { runUntilStopped } from '../signals.ts';

/** A hundred a second. */
const MAX_AUDITS_PER_DAY = 8_640_000;
const MAX_PARTIES = 1_000_000;

const MIN_REPAIR_RATE = 64_000;
/** Options of status and hosts. */
const ASKING_OPTIONS = ['dir', 'json'];

interface BridgeArguments {
  action: 'run' | 'status' | 'hosts';
  dir?: string;
  listen: string;
  'repair-after': string;
  'repair-rate': string;
  'audits-per-day': number;
  quota: string;
  'max-hosts': number;
  'max-volumes': number;
  'no-relay': boolean;
  mirrors?: number;
  metrics?: string;
  json: boolean;
}

/** The command's description for yargs. */
export const bridgeCommand: CommandModule<object, BridgeArguments> = {
  command: 'bridge [action]',
  describe: 'run a bridge: introduce clients and hosts, and keep the volumes’ logs',
  builder: (yargs: Argv) =>
    yargs
      .positional('action', {
        choices: ['run', 'status', 'hosts'] as const,
        default: 'run' as const,
        describe: 'status and hosts ask the bridge that runs on this machine',
      })
      .option('dir', { type: 'string', requiresArg: true, describe: 'folder of its state; below the home unless told' })
      .option('listen', {
        type: 'string',
        requiresArg: true,
        default: '/ip4/0.0.0.0/tcp/0',
        describe: 'multiaddr to listen on; give a port, so that it stays the same',
      })
      .option('repair-after', {
        type: 'string',
        requiresArg: true,
        default: '4h',
        describe: 'a host that is silent for so long is lost, and its shards are copied elsewhere',
      })
      .option('repair-rate', {
        type: 'string',
        requiresArg: true,
        default: '50MB',
        describe: 'bytes a second of all such copies together',
      })
      .option('audits-per-day', {
        type: 'number',
        requiresArg: true,
        default: 500,
        describe: 'shards of each host that are examined each day, at least',
      })
      .option('mirrors', {
        type: 'number',
        requiresArg: true,
        describe: 'of each shard, unless its owner says; else three, and four from ten hosts on',
      })
      .option('quota', {
        type: 'string',
        requiresArg: true,
        default: '1TiB',
        describe: 'most bytes of one volume, one mirror counted',
      })
      .option('max-volumes', {
        type: 'number',
        requiresArg: true,
        default: 100_000,
        describe: 'volumes that it takes; empty ones give way after a week',
      })
      .option('max-hosts', {
        type: 'number',
        requiresArg: true,
        default: 10_000,
        describe: 'hosts that it takes; those that hold nothing and are away give way after a week',
      })
      .option('no-relay', {
        type: 'boolean',
        default: false,
        describe: 'do not pass on shards for hosts that cannot be dialled',
      })
      .option('metrics', METRICS_OPTION)
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 bridge --listen /ip4/0.0.0.0/tcp/4001', 'prints the multiaddr that hosts and clients need')
      .example('$0 bridge status', 'hosts, room, volumes, and what is to be repaired'),
  handler: bridge,
};

async function bridge(args: BridgeArguments): Promise<void> {
  const paths = currentPaths();
  const dir = args.dir === undefined ? paths.bridge : resolve(args.dir);
  if (args.action !== 'run') {
    const advice = 'options of a bridge are given where it starts: stop it, and start it again with them';
    refuseOptions(`xcore bridge ${args.action}`, ASKING_OPTIONS, advice);
  }
  if (args.action === 'status') return tellStatus(await callBridge(dir, 'status', {}), args.json);
  if (args.action === 'hosts') return tellHosts(dir, args.json);
  const listen = checkListenAddress(args.listen);
  const options = optionsOf(args);
  if (args.metrics !== undefined) parseMetricsAddress(args.metrics);
  if (args.dir === undefined) {
    if (paths.home !== null) ensurePrivateFolder(paths.home);
    ensurePrivateFolder(dir);
  }
  await claimServerFolder(dir, 'bridge');
  const log = foregroundLog('bridge');
  const { startBridge } = await import('../../bridge/start-bridge.ts');
  const server = await startBridge({ dir, listen: [listen], options }, { log });
  const { running, url } = await withMetrics(args.metrics, server);
  const tellReady = (): void => {
    if (args.json) printJson({ bridge: server.address, addresses: server.addresses, ...(url ? { metrics: url } : {}) });
    else print(server.address);
    if (url && !args.json) note(`figures at ${url}`);
  };
  await runUntilStopped(running, log, { tellReady });
}

function optionsOf(args: BridgeArguments): Partial<BridgeOptions> {
  return {
    ...timesFor(durationOf('--repair-after', args['repair-after'])),
    repairBytesPerSecond: repairRateOf(args['repair-rate']),
    auditsPerDay: numberOf(args, 'audits-per-day', MAX_AUDITS_PER_DAY),
    quotaBytes: bytesOf('--quota', args.quota),
    maxHosts: numberOf(args, 'max-hosts', MAX_PARTIES),
    maxVolumes: numberOf(args, 'max-volumes', MAX_PARTIES),
    relays: !args['no-relay'],
    mirrors: checkMirrors(args.mirrors),
  };
}

function repairRateOf(text: string): number {
  const rate = rateOf('--repair-rate', text);
  if (rate >= MIN_REPAIR_RATE) return rate;
  throw new XcoreError('USAGE', `--repair-rate ${text} is too slow to mend what hosts lose; 64KB/s is the least`);
}

function numberOf(args: BridgeArguments, name: 'audits-per-day' | 'max-hosts' | 'max-volumes', most: number): number {
  const value = args[name];
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new XcoreError('USAGE', `--${name} is a whole number from 1 to ${most}`);
}

function tellStatus(status: BridgeStatus, json: boolean): void {
  if (json) return printJson(status);
  const { hosts, space, toRepair, toRepairLimit } = status;
  const standings = Object.entries(hosts.standings).map(([standing, count]) => `${count} ${standing}`);
  print(`bridge    ${status.bridge}, since ${new Date(status.startedMs).toISOString()}`);
  print(`hosts     ${[`${hosts.online} of ${hosts.known} online`, `${hosts.lost} lost`, ...standings].join(', ')}`);
  print(
    `space     ${formatBytes(space.usedBytes)} of ${formatBytes(space.capacityBytes)} in use, ${formatBytes(space.freeBytes)} free, on the hosts that are online`,
  );
  print(`mirrors   ${status.mirrors}, and ${status.ordersOut} on their way`);
  print(
    `repair    ${toRepair < toRepairLimit ? toRepair : `${toRepairLimit} or more`} shards below their number of mirrors`,
  );
  print(`volumes   ${status.volumes}`);
  for (const advice of status.advice) print(`advice    ${advice}`);
}

async function tellHosts(dir: string, json: boolean): Promise<void> {
  const hosts: BridgeHost[] = [];
  for (let last = false; !last;) {
    const page = await callBridge(dir, 'hosts', { after: hosts.at(-1)?.host ?? '' });
    hosts.push(...page.hosts);
    last = page.last;
  }
  if (json) return printJson(hosts);
  for (const host of hosts) print(hostLine(host));
  if (hosts.length === 0) note('no host has joined this bridge yet');
}

function hostLine(host: BridgeHost): string {
  const seen = host.lost ? 'lost' : host.online ? 'online' : 'away';
  const space = `${formatBytes(host.usedBytes)} of ${formatBytes(host.capacityBytes)}`;
  const place = [host.reach, host.network, host.operator, host.region].filter((word) => word !== '').join(' ');
  const figures = `${host.shards} shards  ${space}  ${(host.uptime * 100).toFixed(1)} % up`;
  return `${host.host}  ${seen}  ${host.standing} (${host.reason})  ${figures}  ${place}`.trimEnd();
}

// xcore host: asks the host that runs on a folder how it does, and tells it what to do.

import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import type { HostProgress, HostStatus } from '../../host/control-api.ts';
import { callHost } from '../../host/control.ts';
import { formatBytes } from '../../lib/units.ts';
import { currentPaths } from '../context.ts';
import { refuseOptions } from '../given.ts';
import { note, print, printJson } from '../output.ts';
import { describeRoutes } from '../routes.ts';

const REACH: Partial<Record<string, string>> = {
  direct: 'others can connect to it',
  relayed: 'through the bridge, and directly where both routers let it',
  none: 'nobody can connect to it',
};
const ACTIONS = ['status', 'pause', 'resume', 'exit', 'verify'] as const;

interface HostArguments {
  action?: string;
  dir?: string;
  'no-wait': boolean;
  json: boolean;
}

/** The command's description for yargs. */
export const hostCommand: CommandModule<object, HostArguments> = {
  command: 'host <action>',
  describe: 'look after the host that runs here: status, pause, resume, exit, verify',
  builder: (yargs: Argv) =>
    yargs
      .positional('action', {
        choices: ACTIONS,
        demandOption: true,
        describe: 'exit has all its shards moved away, so that it can be stopped for good; verify reads them all',
      })
      .option('dir', { type: 'string', requiresArg: true, describe: 'the folder given to xcore serve, if one was' })
      .option('no-wait', { type: 'boolean', default: false, describe: 'exit: do not wait until all is moved away' })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 host status', 'space, traffic, audits, and what the bridge thinks of this host')
      .example('$0 host exit', 'leave the network without harm to anybody')
      .epilogue(
        'Space, speed, hours and the like are options of xcore serve: stop it and start it again with others (or repeat xcore serve --install). Nothing is lost by it.',
      ),
  handler: host,
};

async function host(args: HostArguments): Promise<void> {
  if (args.action !== 'exit') {
    refuseOptions(`xcore host ${args.action ?? ''}`, ['dir', 'json'], 'it is for xcore host exit');
  }
  const dir = args.dir === undefined ? currentPaths().host : resolve(args.dir);
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort());
  const long = { signal: controller.signal, timeoutMs: Infinity, onProgress: teller(args.json) };
  if (args.action === 'verify') {
    const found = await callHost(dir, 'verify', {}, long);
    if (args.json) printJson(found);
    else
      print(
        `${found.shards} shards read, ${found.harmed} of them harmed${found.harmed > 0 ? '; the bridge has been told' : ''}`,
      );
    return;
  }
  const status = await statusAfter(args, dir, long);
  if (args.json) printJson(status);
  else for (const line of linesOf(status)) print(line);
}

async function statusAfter(args: HostArguments, dir: string, long: object): Promise<HostStatus> {
  switch (args.action) {
    case 'exit': {
      const status = await callHost(dir, 'exit', { wait: false });
      if (args['no-wait'] || status.standing?.mayLeave) return status;
      if (!args.json) note('it leaves; Ctrl-C ends the waiting only, and xcore host status tells how far it has come');
      if (!args.json) [status.standing?.reason ?? '', ...status.advice].filter((line) => line !== '').forEach(note);
      return callHost(dir, 'exit', { wait: true }, long);
    }
    case 'pause':
      return callHost(dir, 'pause', {});
    case 'resume':
      return callHost(dir, 'resume', {});
    default:
      return callHost(dir, 'status', {});
  }
}

/** Tells progress on standard error, each number once. */
function teller(quiet: boolean): (progress: HostProgress) => void {
  let last = -1;
  return ({ remainingShards, totalShards }) => {
    if (quiet || remainingShards === last) return;
    last = remainingShards;
    note(`${remainingShards} of ${totalShards} shards to go`);
  };
}

function linesOf(status: HostStatus): string[] {
  const { space, traffic, standing, bridge, limits, month, rest } = status;
  const resting = rest ? `resting until ${new Date(rest.untilMs).toISOString()}` : '';
  const flags = [resting, status.paused ? 'paused' : '', status.exiting ? 'leaving' : ''].filter((flag) => flag !== '');
  return [
    `host      ${status.host}${flags.length > 0 ? ` (${flags.join(', ')})` : ''}`,
    `bridge    ${bridge.connected ? 'connected' : 'not connected'}`,
    `reach     ${REACH[status.reachability.state] ?? 'not known yet'}`,
    ...routesLine(status.routes),
    `space     ${formatBytes(space.usedBytes)} of ${formatBytes(space.limitBytes)} in ${space.shards} shards, room for ${formatBytes(space.freeBytes)}`,
    `traffic   ${formatBytes(traffic.inBytes)} in, ${formatBytes(traffic.outBytes)} out since ${new Date(status.startedMs).toISOString()}, ${status.transfers} under way`,
    ...(limits.monthlyBytes > 0
      ? [
          `month     ${formatBytes(month.inBytes + month.outBytes)} of ${formatBytes(limits.monthlyBytes)} in ${month.month}`,
        ]
      : []),
    ...limitsLine(limits),
    ...(standing
      ? [
          `standing  ${standing.state}: ${standing.reason}`,
          `audits    ${standing.auditsPassed} passed, ${standing.auditsFailed} failed`,
          `uptime    ${(standing.uptime * 100).toFixed(1)} %`,
        ]
      : ['standing  not known: the bridge has not told yet']),
    ...status.advice.map((advice) => `advice    ${advice}`),
  ];
}

function routesLine(routes: HostStatus['routes']): string[] {
  const text = describeRoutes(routes);
  return text === '' ? [] : [`peers     ${text}`];
}

function limitsLine({ upBytesPerSecond, downBytesPerSecond, schedule }: HostStatus['limits']): string[] {
  const limits = [
    ...(upBytesPerSecond > 0 ? [`${formatBytes(upBytesPerSecond)}/s up`] : []),
    ...(downBytesPerSecond > 0 ? [`${formatBytes(downBytesPerSecond)}/s down`] : []),
    ...(schedule !== '' ? [`open ${schedule}`] : []),
  ];
  return limits.length > 0 ? [`limits    ${limits.join(', ')}`] : [];
}

// xcore status: what is mounted, how much of it is safe elsewhere, what is wrong and what to do.

import type { CommandModule } from 'yargs';
import type { MountStatus } from '../../client/control-api.ts';
import { formatBytes } from '../../lib/units.ts';
import { currentPaths } from '../context.ts';
import { findMount } from '../find-mount.ts';
import { print, printJson } from '../output.ts';
import { describeRoutes } from '../routes.ts';

/** Lines of problems and hosts that a person still reads. */
const MAX_LINES = 20;

/** The command's description for yargs. */
export const statusCommand: CommandModule<object, { json: boolean }> = {
  command: 'status',
  describe: 'show the mount, staged and durable bytes, uploads, hosts, and what is wrong',
  builder: (yargs) =>
    yargs
      .option('json', { type: 'boolean', default: false, describe: 'print JSON: { home, mounts }' })
      .example('$0 status --json | jq .mounts[0].stagedBytes', 'bytes that only this machine has'),
  handler: async (args) => {
    const paths = currentPaths();
    const mount = await findMount(paths);
    const mounts = mount === null ? [] : [mount];
    if (args.json) printJson({ home: paths.home ?? paths.config, mounts });
    else if (mount === null) print('nothing is mounted; start with xcore mount DIR');
    else for (const line of describeMount(mount)) print(line);
  },
};

/** A mount in lines for a person. */
export function describeMount(mount: MountStatus): string[] {
  return [
    `${mount.mountPoint}: ${role(mount)}`,
    `  files     ${mount.files}, ${formatBytes(mount.durableBytes)} durable`,
    `  staged    ${mount.stagedBytes === 0 ? 'nothing; all is durable' : `${formatBytes(mount.stagedBytes)} on this machine only`}`,
    `  uploads   ${mount.uploads.active} running, ${mount.uploads.waiting} waiting, ${formatBytes(mount.uploads.uploadedBytes)} done since the mount`,
    `  log       entry ${mount.log.headSeq}, ${mount.log.unpublished} unpublished`,
    `  cache     ${formatBytes(mount.cache.usedBytes)} of ${formatBytes(mount.cache.capBytes)}`,
    `  network   ${network(mount)}`,
    ...routes(mount),
    ...capped(mount.network.hosts.map(host), 'hosts'),
    `  process   ${mount.pid}, ${formatBytes(mount.memoryBytes)} of memory`,
    ...mount.setAside.map(
      (set) => `  set aside ${set.path}: ${formatBytes(set.sizeBytes)} that another writer overtook`,
    ),
    ...capped(
      mount.problems.flatMap((problem) => [
        `  problem   ${problem.message}`,
        ...(problem.advice === '' ? [] : [`            ${problem.advice}`]),
      ]),
      'problems',
    ),
  ];
}

function role(mount: MountStatus): string {
  if (mount.readOnly) return 'mounted read-only';
  if (mount.writer) return 'mounted, this device writes';
  return mount.leaseHolder === ''
    ? 'mounted, not the writer yet'
    : `mounted, read-only while ${mount.leaseHolder} writes`;
}

function network(mount: MountStatus): string {
  const { bridge, connected, local, mirrors } = mount.network;
  const where = local ? 'embedded: everything is on this machine only' : bridge;
  return `${where}, ${connected ? 'connected' : 'not connected'}, ${mirrors} mirrors`;
}

function routes({ network: { local, routes } }: MountStatus): string[] {
  const text = local ? '' : describeRoutes(routes);
  return text === '' ? [] : [`  reached   ${text}`];
}

function host(info: MountStatus['network']['hosts'][number]): string {
  const used = `${formatBytes(info.usedBytes)} of ${formatBytes(info.capacityBytes)}`;
  return `  host      ${info.host} ${info.online ? 'online' : 'offline'}, ${used}, reliability ${info.reliability.toFixed(2)}`;
}

function capped(lines: string[], what: string): string[] {
  if (lines.length <= MAX_LINES) return lines;
  return [...lines.slice(0, MAX_LINES), `            and more ${what}: see --json`];
}

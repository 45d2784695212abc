// xcore serve: lends room on this disk, in the foreground.

import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { loadConfig } from '../../client/identity.ts';
import { XcoreError } from '../../lib/errors.ts';
import { ensurePrivateFolder, type Paths } from '../../lib/paths.ts';
import { formatBytes, parseBytes } from '../../lib/units.ts';
import { currentPaths, foregroundLog } from '../context.ts';
import { freeBytes } from '../home-checks.ts';
import { checkBridgeAddress, checkListenAddress } from '../multiaddr.ts';
import { note, print, printJson } from '../output.ts';
import { runUntilStopped } from '../signals.ts';

interface ServeArguments {
  bridge?: string;
  dir?: string;
  space: string;
  floor: string;
  listen: string;
  json: boolean;
}

/** The command's description for yargs. */
export const serveCommand: CommandModule<object, ServeArguments> = {
  command: 'serve',
  describe: 'run a host: lend room on this disk for other people’s shards',
  builder: (yargs: Argv) =>
    yargs
      .option('bridge', {
        type: 'string',
        requiresArg: true,
        describe: 'multiaddr of the bridge; else this home’s own',
      })
      .option('dir', {
        type: 'string',
        requiresArg: true,
        describe: 'folder of the shards; below the home unless told',
      })
      .option('space', { type: 'string', requiresArg: true, default: '100GB', describe: 'never store more than this' })
      .option('floor', {
        type: 'string',
        requiresArg: true,
        default: '256MiB',
        describe: 'always leave so much of the disk free',
      })
      .option('listen', {
        type: 'string',
        requiresArg: true,
        default: '/ip4/0.0.0.0/tcp/0',
        describe: 'multiaddr to listen on; others must reach it',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print the line as JSON' })
      .example('$0 serve --bridge /ip4/192.0.2.1/tcp/4001/p2p/12D3… --space 500GB', 'lend half a terabyte'),
  handler: serve,
};

async function serve(args: ServeArguments): Promise<void> {
  const spaceBytes = parseBytes(args.space);
  const floorBytes = parseBytes(args.floor);
  const listen = checkListenAddress(args.listen);
  const paths = currentPaths();
  const bridge = await bridgeOf(args, paths);
  const dir = args.dir === undefined ? paths.host : resolve(args.dir);
  if (args.dir === undefined) {
    if (paths.home !== null) ensurePrivateFolder(paths.home);
    ensurePrivateFolder(dir);
  }
  const log = foregroundLog('host');
  const free = await freeBytes(dir);
  if (free < spaceBytes) {
    note(`${dir} has ${formatBytes(free)} free; ${formatBytes(spaceBytes)} is lent only as far as the disk allows`);
  }
  const { startHost } = await import('../../host/start-host.ts');
  const host = await startHost(
    { dir, bridge, capacityBytes: spaceBytes, listen: [listen], options: { floorBytes } },
    { log },
  );
  if (!host.registered) note('the bridge does not answer yet; the host goes on trying to reach it');
  if (args.json) printJson({ host: host.address, addresses: host.addresses, capacityBytes: spaceBytes });
  else print(host.address);
  await runUntilStopped(host, log);
}

async function bridgeOf(args: ServeArguments, paths: Paths): Promise<string> {
  const bridge = args.bridge ?? (await loadConfig(paths)).bridge;
  if (bridge === null) {
    throw new XcoreError(
      'USAGE',
      'no bridge to lend room to; give the line that xcore bridge prints: --bridge MULTIADDR',
    );
  }
  return checkBridgeAddress(bridge);
}

// xcore bridge: runs a bridge in the foreground.

import type { Argv, CommandModule } from 'yargs';
import { resolve } from 'node:path';
import { ensurePrivateFolder } from '../../lib/paths.ts';
import { currentPaths, foregroundLog } from '../context.ts';
import { checkListenAddress } from '../multiaddr.ts';
import { print, printJson } from '../output.ts';
import { runUntilStopped } from '../signals.ts';

interface BridgeArguments {
  dir?: string;
  listen: string;
  json: boolean;
}

/** The command's description for yargs. */
export const bridgeCommand: CommandModule<object, BridgeArguments> = {
  command: 'bridge',
  describe: 'run a bridge: introduce clients and hosts, and keep the volumes’ logs',
  builder: (yargs: Argv) =>
    yargs
      .option('dir', { type: 'string', requiresArg: true, describe: 'folder of its state; below the home unless told' })
      .option('listen', {
        type: 'string',
        requiresArg: true,
        default: '/ip4/0.0.0.0/tcp/0',
        describe: 'multiaddr to listen on; give a port, so that it stays the same',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print the line as JSON' })
      .example('$0 bridge --listen /ip4/0.0.0.0/tcp/4001', 'prints the multiaddr that hosts and clients need'),
  handler: bridge,
};

async function bridge(args: BridgeArguments): Promise<void> {
  const listen = checkListenAddress(args.listen);
  const paths = currentPaths();
  if (args.dir === undefined && paths.home !== null) ensurePrivateFolder(paths.home);
  const dir = args.dir === undefined ? paths.bridge : resolve(args.dir);
  if (args.dir === undefined) ensurePrivateFolder(dir);
  const log = foregroundLog('bridge');
  const { startBridge } = await import('../../bridge/start-bridge.ts');
  const server = await startBridge({ dir, listen: [listen] }, { log });
  if (args.json) printJson({ bridge: server.address, addresses: server.addresses });
  else print(server.address);
  await runUntilStopped(server, log);
}

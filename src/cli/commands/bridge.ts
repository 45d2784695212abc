// xcore bridge: runs a bridge in the foreground.

import type { Argv, CommandModule } from 'yargs';
import { resolve } from 'node:path';
import { timesFor } from '../../bridge/options.ts';
import type { BridgeOptions } from '../../bridge/options.ts';
import { XcoreError } from '../../lib/errors.ts';
import { ensurePrivateFolder } from '../../lib/paths.ts';
import { parseBytes, parseDuration } from '../../lib/units.ts';
import { currentPaths, foregroundLog } from '../context.ts';
import { checkMirrors } from '../mirrors.ts';
import { checkListenAddress } from '../multiaddr.ts';
import { print, printJson } from '../output.ts';
import { runUntilStopped } from '../signals.ts';

/** A hundred a second. */
const MAX_AUDITS_PER_DAY = 8_640_000;

interface BridgeArguments {
  dir?: string;
  listen: string;
  'repair-after': string;
  'repair-rate': string;
  'audits-per-day': number;
  'no-relay': boolean;
  mirrors?: number;
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
      .option('no-relay', {
        type: 'boolean',
        default: false,
        describe: 'do not pass on shards for hosts that cannot be dialled',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print the line as JSON' })
      .example('$0 bridge --listen /ip4/0.0.0.0/tcp/4001', 'prints the multiaddr that hosts and clients need'),
  handler: bridge,
};

async function bridge(args: BridgeArguments): Promise<void> {
  const listen = checkListenAddress(args.listen);
  const options = optionsOf(args);
  const paths = currentPaths();
  if (args.dir === undefined && paths.home !== null) ensurePrivateFolder(paths.home);
  const dir = args.dir === undefined ? paths.bridge : resolve(args.dir);
  if (args.dir === undefined) ensurePrivateFolder(dir);
  const log = foregroundLog('bridge');
  const { startBridge } = await import('../../bridge/start-bridge.ts');
  const server = await startBridge({ dir, listen: [listen], options }, { log });
  if (args.json) printJson({ bridge: server.address, addresses: server.addresses });
  else print(server.address);
  await runUntilStopped(server, log);
}

function optionsOf(args: BridgeArguments): Partial<BridgeOptions> {
  const auditsPerDay = args['audits-per-day'];
  if (!(auditsPerDay >= 1 && auditsPerDay <= MAX_AUDITS_PER_DAY)) {
    throw new XcoreError('USAGE', `--audits-per-day is from 1 to ${MAX_AUDITS_PER_DAY}`);
  }
  const repairBytesPerSecond = parseBytes(args['repair-rate']);
  return {
    ...timesFor(parseDuration(args['repair-after'])),
    repairBytesPerSecond,
    auditsPerDay,
    relays: !args['no-relay'],
    mirrors: checkMirrors(args.mirrors),
  };
}

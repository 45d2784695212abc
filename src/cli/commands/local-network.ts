// xcore local-network: the embedded network, started by a mount and ended with it. Not for people.

import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { ensurePrivateFolder } from '../../lib/paths.ts';
import { foregroundLog } from '../context.ts';
import { freeBytes } from '../home-checks.ts';
import { print } from '../output.ts';
import { runUntilStopped } from '../signals.ts';

const HOSTS = 3;
/** Of the free disk, for all mirrors together; the client's own cache and staging need the rest. */
const SHARE_OF_DISK = 0.8;

interface LocalNetworkArguments {
  dir: string;
}

/** The command's description for yargs. */
export const localNetworkCommand: CommandModule<object, LocalNetworkArguments> = {
  command: 'local-network',
  describe: false,
  builder: (yargs: Argv) => yargs.option('dir', { type: 'string', demandOption: true, requiresArg: true }),
  handler: async (args) => {
    const dir = resolve(args.dir);
    ensurePrivateFolder(dir);
    const log = foregroundLog('local-network');
    const parentGone = new Promise<void>((done) => {
      process.stdin.once('end', done).once('error', () => done());
      process.stdin.once('close', done).resume();
    });
    const capacityBytes = Math.floor(((await freeBytes(dir)) * SHARE_OF_DISK) / HOSTS);
    const { startLocalNetwork } = await import('../local-network.ts');
    const network = await startLocalNetwork({ dir, hosts: HOSTS, capacityBytes }, { log });
    print(network.bridge);
    await runUntilStopped(network, log, parentGone);
  },
};

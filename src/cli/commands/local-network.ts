// xcore local-network: the embedded network, started by a mount and ended with it. Not for people.

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { writeFileAtomic } from '../../lib/atomic-file.ts';
import { hasCode } from '../../lib/errors.ts';
import { ensurePrivateFolder } from '../../lib/paths.ts';
import { foregroundLog } from '../context.ts';
import { freeBytes } from '../home-checks.ts';
import type { LocalNetwork, LocalNetworkSettings } from '../local-network.ts';
import { print } from '../output.ts';
import { runUntilStopped } from '../signals.ts';
import type { Logger } from '../../lib/log.ts';

const HOSTS = 3;
/** Of the disk that is free at the first start, for all mirrors together; the client's own folders need the rest. */
const SHARE_OF_DISK = 0.8;
/** The network of a daemon that was killed takes a moment to end. */
const LOCKED_TIMEOUT_MS = 20_000;
const LOCKED_RETRY_MS = 100;

/** The command's description for yargs. */
export const localNetworkCommand: CommandModule<object, { dir: string }> = {
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
    const network = await startWhenFree({ dir, hosts: HOSTS, capacityBytes: await capacityOf(dir) }, log);
    await runUntilStopped(network, log, { tellReady: () => print(network.bridge), also: parentGone });
  },
};

async function startWhenFree(settings: LocalNetworkSettings, log: Logger): Promise<LocalNetwork> {
  const { startLocalNetwork } = await import('../local-network.ts');
  const deadline = performance.now() + LOCKED_TIMEOUT_MS;
  for (;;) {
    try {
      return await startLocalNetwork(settings, { log });
    } catch (error) {
      if (!hasCode(error, 'HOME_LOCKED') || performance.now() > deadline) throw error;
      await new Promise((done) => setTimeout(done, LOCKED_RETRY_MS));
    }
  }
}

/** Room of each host: decided at the first start, since later ones find the disk filled by the hosts themselves. */
async function capacityOf(dir: string): Promise<number> {
  const file = join(dir, 'capacity');
  const text = await readFile(file, 'utf8').catch(() => '');
  if (/^[1-9]\d{0,15}\n$/.test(text)) return Number(text);
  const capacityBytes = Math.max(1, Math.floor(((await freeBytes(dir)) * SHARE_OF_DISK) / HOSTS));
  await writeFileAtomic(file, `${capacityBytes}\n`, { mode: 0o600 });
  return capacityBytes;
}

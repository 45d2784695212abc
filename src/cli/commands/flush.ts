// xcore flush: returns when everything written so far is durable.

import type { Argv, CommandModule } from 'yargs';
import { callControl } from '../../client/control.ts';
import { XcoreError } from '../../lib/errors.ts';
import { currentPaths } from '../context.ts';
import { findMount } from '../find-mount.ts';
import { mountPointPath } from '../mount-point.ts';
import { print, printJson } from '../output.ts';
import { flushBar } from '../progress.ts';
import { whileWaiting } from '../while-waiting.ts';

interface FlushArguments {
  dir?: string;
  json: boolean;
}

/** The command's description for yargs. */
export const flushCommand: CommandModule<object, FlushArguments> = {
  command: 'flush [dir]',
  describe: 'return when everything written so far is stored on enough hosts',
  builder: (yargs: Argv) =>
    yargs
      .positional('dir', { type: 'string', describe: 'where the volume is mounted; need not be given' })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 flush && poweroff', 'lose nothing, even if this machine never comes back'),
  handler: flush,
};

async function flush(args: FlushArguments): Promise<void> {
  const paths = currentPaths();
  const mount = await findMount(paths);
  if (mount === null)
    throw new XcoreError('NOT_MOUNTED', 'nothing is mounted by this home; start with xcore mount DIR');
  if (args.dir !== undefined && (await mountPointPath(args.dir)) !== mount.mountPoint) {
    throw new XcoreError('NOT_MOUNTED', `${args.dir} is not mounted by this home; ${mount.mountPoint} is`);
  }
  const controller = new AbortController();
  process.once('SIGINT', () => controller.abort());
  const bar = flushBar(args.json);
  try {
    const options = { signal: controller.signal, timeoutMs: Infinity, onProgress: bar.update };
    await whileWaiting(callControl(paths.controlSocket, 'flush', {}, options), {
      controlSocket: paths.controlSocket,
      hint: 'Ctrl-C ends the waiting, and what is written stays on this disk',
      quiet: args.json,
    });
  } finally {
    bar.stop();
  }
  if (args.json) printJson({ mountPoint: mount.mountPoint, durable: true });
  else print(`everything on ${mount.mountPoint} is durable`);
}

// xcore umount: makes everything durable, unmounts, and returns when the daemon is gone.

import type { Argv, CommandModule } from 'yargs';
import { callControl } from '../../client/control.ts';
import { XcoreError } from '../../lib/errors.ts';
import { currentPaths } from '../context.ts';
import { findMount, untilProcessEnds } from '../find-mount.ts';
import { mountPointPath } from '../mount-point.ts';
import { print, printJson } from '../output.ts';
import { flushBar } from '../progress.ts';
import { clearStaleMount, isOurs } from '../stale-mount.ts';
import { whileWaiting } from '../while-waiting.ts';

interface UmountArguments {
  dir: string;
  'no-wait': boolean;
  json: boolean;
}

/** The daemon says nothing while the bridge is away, and waiting for it is what was asked for. */
const NO_TIMEOUT = Infinity;

/** The command's description for yargs. */
export const umountCommand: CommandModule<object, UmountArguments> = {
  command: ['umount <dir>', 'unmount <dir>'],
  describe: 'unmount, once everything is stored on enough hosts',
  builder: (yargs: Argv) =>
    yargs
      .positional('dir', { type: 'string', demandOption: true, describe: 'where the volume is mounted' })
      .option('no-wait', {
        type: 'boolean',
        default: false,
        describe: 'unmount at once; what is not durable yet is stored after the next mount',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 umount ~/XCloud', 'waits, with a progress bar')
      .example('$0 umount ~/XCloud --no-wait', 'at once; what is staged stays on this disk'),
  handler: umount,
};

async function umount(args: UmountArguments): Promise<void> {
  const paths = currentPaths();
  const dir = await mountPointPath(args.dir);
  const mount = await findMount(paths);
  if (mount?.mountPoint !== dir) {
    // The daemon of a stale mount is dead; what it had staged is stored after the next mount.
    if (await clearStaleMount(dir)) {
      done(args, dir, 'removed the dead mount of');
      return;
    }
    if (await isOurs(dir)) {
      throw new XcoreError(
        'NOT_MOUNTED',
        `${dir} is mounted by another home: set XCORE_HOME to that one, or, as whoever mounted it, type: fusermount3 -u ${dir}`,
      );
    }
    throw new XcoreError(
      'NOT_MOUNTED',
      mount === null
        ? `${dir} is not mounted by this home; nothing is`
        : `${dir} is not mounted by this home; ${mount.mountPoint} is`,
    );
  }
  const controller = new AbortController();
  const onSignal = (): void => controller.abort();
  process.once('SIGINT', onSignal);
  const bar = flushBar(args.json || args['no-wait']);
  try {
    const options = { signal: controller.signal, timeoutMs: NO_TIMEOUT, onProgress: bar.update };
    await whileWaiting(callControl(paths.controlSocket, 'unmount', { wait: !args['no-wait'] }, options), {
      controlSocket: paths.controlSocket,
      hint: 'Ctrl-C leaves it mounted, and --no-wait unmounts at once and stores the rest after the next mount',
      quiet: args.json,
    });
  } finally {
    bar.stop();
    process.off('SIGINT', onSignal);
  }
  await untilProcessEnds(mount.pid);
  done(args, dir, 'unmounted');
}

function done(args: UmountArguments, dir: string, what: string): void {
  if (args.json) printJson({ mountPoint: dir, unmounted: true });
  else print(`${what} ${dir}`);
}

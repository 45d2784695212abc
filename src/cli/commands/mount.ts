// xcore mount: checks what can be checked here, then starts the daemon that serves the folder.

import { stat } from 'node:fs/promises';
import type { Argv, CommandModule } from 'yargs';
import { callControl } from '../../client/control.ts';
import { createIdentity, identityState, loadConfig, loadIdentity } from '../../client/identity.ts';
import { DRIVER_NAMES, type DriverName } from '../../fuse/choose-driver.ts';
import { hasCode, XcoreError } from '../../lib/errors.ts';
import { createLogger, logLevel } from '../../lib/log.ts';
import { MemoryTrim } from '../../lib/memory-trim.ts';
import { ensureHome, removeEmptyFolders, type Paths } from '../../lib/paths.ts';
import { currentPaths } from '../context.ts';
import { receivePassphrase, startDaemonProcess, tellStarter } from '../daemon-process.ts';
import { requireFuse } from '../fuse-checks.ts';
import { parseMountOptions, type ListedOptions } from '../mount-options.ts';
import { checkMirrors } from '../mirrors.ts';
import { mountPointPath, prepareMountPoint, refuseOwnFolders, removeMountPoint } from '../mount-point.ts';
import { bytesOf } from '../option-values.ts';
import { note, print, printJson } from '../output.ts';
import { askPassphrase } from '../prompt.ts';
import { runUntilStopped } from '../signals.ts';
import { spawnLocalNetwork } from '../spawn-local-network.ts';
import { requireUnmounted } from '../stale-mount.ts';

interface MountArguments {
  dir: string;
  foreground: boolean;
  'read-only': boolean;
  'allow-other': boolean;
  'cache-size': string;
  'take-over': boolean;
  driver: DriverName;
  mirrors?: number;
  options: string;
  json: boolean;
  daemon: boolean;
}

/** The command's description for yargs. */
export const mountCommand: CommandModule<object, MountArguments> = {
  command: 'mount <dir>',
  describe: 'mount the volume on a folder',
  builder: (yargs: Argv) =>
    yargs
      .positional('dir', { type: 'string', demandOption: true, describe: 'an empty folder; made if absent' })
      .option('foreground', { type: 'boolean', default: false, describe: 'stay, until Ctrl-C unmounts' })
      .option('read-only', { type: 'boolean', default: false, describe: 'refuse every change' })
      .option('allow-other', { type: 'boolean', default: false, describe: 'let other users of this machine in' })
      .option('cache-size', {
        type: 'string',
        requiresArg: true,
        default: '10GiB',
        describe: 'most ciphertext to keep on this disk for reading',
      })
      .option('take-over', {
        type: 'boolean',
        default: false,
        describe: 'become the writer even if another device is; it keeps what it had not stored',
      })
      .option('driver', {
        choices: DRIVER_NAMES,
        default: 'auto' as const,
        describe: 'how to speak to the kernel; fuse-native has limits, see native-notes/fuse-native.md',
      })
      .option('mirrors', {
        type: 'number',
        requiresArg: true,
        describe: 'copies of each shard from now on, on as many hosts; the bridge remembers it',
      })
      .option('options', {
        alias: 'o',
        type: 'string',
        requiresArg: true,
        default: '',
        describe: 'as in fstab: ro,allow_other,noatime,noexec,take-over,driver=NAME,cache-size=SIZE,home=DIR',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .option('daemon', { type: 'boolean', default: false, hidden: true })
      .example('$0 mount ~/XCloud', 'the folder is there until xcore umount ~/XCloud')
      .example('$0 mount ~/XCloud --cache-size 50GB', 'keep more on this disk'),
  handler: async (args) => {
    withListed(args, parseMountOptions(args.options));
    if (args.daemon) await serveMount(args);
    else await mount(args);
  },
};

/** Lets a list of options say what flags of their own could. */
function withListed(args: MountArguments, listed: ListedOptions): void {
  args['read-only'] ||= listed.readOnly === true;
  args['allow-other'] ||= listed.allowOther === true;
  args['take-over'] ||= listed.takeOver === true;
  args.driver = listed.driver ?? args.driver;
  args['cache-size'] = listed.cacheSize ?? args['cache-size'];
  if (listed.home !== undefined) process.env['XCORE_HOME'] = listed.home;
}

async function mount(args: MountArguments): Promise<void> {
  bytesOf('--cache-size', args['cache-size']);
  checkMirrors(args.mirrors);
  if (args['read-only'] && args['take-over']) {
    throw new XcoreError('USAGE', 'a read-only mount writes nothing; give either --read-only or --take-over');
  }
  const paths = currentPaths();
  const dir = await mountPointPath(args.dir);
  await refuseOwnFolders(dir, paths);
  const home = ensureHome(paths);
  let made = false;
  try {
    await refuseSecondMount(paths, dir);
    await requireUnmounted(dir);
    made = await prepareMountPoint(dir);
    await requireFuse({ allowOther: args['allow-other'] });
    if ((await identityState(paths)) === 'absent') {
      await createIdentity(paths);
      note('made a new identity; xcore phrase shows the 24 words that bring everything back, so write them down');
    }
    if (args.foreground) {
      await serveMount(args);
      return;
    }
    await mountInBackground(args, dir, paths);
  } catch (error) {
    if (made) await removeMountPoint(dir);
    removeEmptyFolders(home);
    throw error;
  }
}

async function mountInBackground(args: MountArguments, dir: string, paths: Paths): Promise<void> {
  const passphrase = (await identityState(paths)) === 'locked' ? await askPassphrase() : null;
  // A wrong passphrase is better told here than by the daemon.
  if (passphrase !== null) await loadIdentity(paths, () => Promise.resolve(passphrase));
  const flags = (['read-only', 'allow-other', 'take-over'] as const).filter((flag) => args[flag]);
  const list = args.options === '' ? [] : ['--options', args.options];
  const controller = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort());
  const ready = await startDaemonProcess(
    [
      'mount',
      dir,
      '--foreground',
      '--cache-size',
      args['cache-size'],
      '--driver',
      args.driver,
      ...(args.mirrors === undefined ? [] : ['--mirrors', String(args.mirrors)]),
      ...list,
      ...flags.map((flag) => `--${flag}`),
    ],
    { paths, passphrase, signal: controller.signal },
  );
  // until somebody looks, the kernel takes the mount's root for root's own, and refuses chmod to its owner
  await stat(dir).catch(() => undefined);
  tellReady(args, dir, ready.notes, ready.pid);
}

function tellReady(args: MountArguments, dir: string, notes: readonly string[], pid: number): void {
  if (args.json) {
    printJson({ mountPoint: dir, pid, notes });
    return;
  }
  print(`mounted on ${dir}`);
  for (const line of notes) note(line);
}

/** Serves the mount in this process until it is unmounted; the daemon, or a foreground mount. */
async function serveMount(args: MountArguments): Promise<void> {
  const paths = currentPaths();
  const dir = await mountPointPath(args.dir);
  const log = args.daemon
    ? createLogger({ level: logLevel(process.env, 'info'), file: paths.daemonLog })
    : createLogger({ level: logLevel(process.env, 'warn') });
  const trim = new MemoryTrim(log);
  const { accessTimes = true, noExec = false } = parseMountOptions(args.options);
  try {
    trim.start();
    const identity = await loadIdentity(paths, args.daemon ? receivePassphrase : () => askPassphrase());
    const config = await loadConfig(paths);
    const { startDaemon } = await import('../../client/daemon.ts');
    const daemon = await startDaemon(
      {
        mountPoint: dir,
        readOnly: args['read-only'],
        allowOther: args['allow-other'],
        cacheBytes: bytesOf('--cache-size', args['cache-size']),
        takeOver: args['take-over'],
        accessTimes,
        noExec,
        bridge: config.bridge,
        mirrors: checkMirrors(args.mirrors) || (config.mirrors ?? 0),
        phrase: identity.phrase,
        deviceSeed: identity.deviceSeed,
        driver: args.driver,
      },
      { log, paths, spawnLocalNetwork: (folder) => spawnLocalNetwork(folder, paths) },
    );
    await runUntilStopped(daemon, log, {
      tellReady: () => {
        if (args.daemon) return tellStarter({ notes: daemon.notes });
        tellReady(args, dir, daemon.notes, process.pid);
      },
    });
  } catch (error) {
    log.error({ err: error }, 'the mount failed');
    if (args.daemon) await tellStarter({ error });
    throw error;
  } finally {
    trim.stop();
  }
}

/** One home serves one mount; says where it is. */
async function refuseSecondMount(paths: Paths, dir: string): Promise<void> {
  const status = await callControl(paths.controlSocket, 'status', {}).catch((error: unknown) => {
    if (hasCode(error, 'NOT_MOUNTED')) return null;
    throw error;
  });
  if (status === null) return;
  if (status.mountPoint === dir) throw new XcoreError('MOUNT_BUSY', `${dir} is mounted already; see xcore status`);
  throw new XcoreError(
    'HOME_LOCKED',
    `this home is mounted on ${status.mountPoint} already; xcore umount ${status.mountPoint} first, or use another XCORE_HOME`,
  );
}

// xcore fsck: looks whether a volume that is not mounted is sound, and repairs it if told.

import { readdir } from 'node:fs/promises';
import type { Argv, CommandModule } from 'yargs';
import { loadConfig, loadIdentity } from '../../client/identity.ts';
import type { FsckReport } from '../../client/fsck/fsck.ts';
import { deriveVolumeKeys } from '../../crypto/keys.ts';
import { systemClock } from '../../lib/clock.ts';
import { EXIT, XcoreError } from '../../lib/errors.ts';
import type { Paths } from '../../lib/paths.ts';
import { checkPrivateFolder } from '../../lib/paths.ts';
import type { Network } from '../../net/network.ts';
import { currentPaths, foregroundLog } from '../context.ts';
import { findMount } from '../find-mount.ts';
import { mountPointPath } from '../mount-point.ts';
import { note, print, printJson } from '../output.ts';
import { fsckBar } from '../progress.ts';
import { askPassphrase } from '../prompt.ts';
import { spawnLocalNetwork } from '../spawn-local-network.ts';
import { isOurs } from '../stale-mount.ts';

/** How long the bridge is waited for; without it, log and mirrors are not looked at. */
const CONNECTION_MS = 15_000;
/** Findings that a person still reads. */
const MAX_LINES = 20;

interface FsckArguments {
  dir?: string;
  repair: boolean;
  'accept-log': boolean;
  json: boolean;
}

/** The command's description for yargs. */
export const fsckCommand: CommandModule<object, FsckArguments> = {
  command: 'fsck [dir]',
  describe: 'check the volume of this home, which must not be mounted, and repair it if told',
  builder: (yargs: Argv) =>
    yargs
      .positional('dir', { type: 'string', describe: 'where the volume is usually mounted; need not be given' })
      .option('repair', {
        type: 'boolean',
        default: false,
        describe: 'fetch damaged copies again and rebuild a damaged index from the volume log; loses nothing',
      })
      .option('accept-log', {
        type: 'boolean',
        default: false,
        describe:
          'where the bridge has another volume log than this machine saw: accept it, and set aside what is here',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 fsck', 'ends with 0 when all is sound, with 8 when something is not')
      .example('$0 fsck --repair', 'what cannot be repaired is named, and kept'),
  handler: check,
};

async function check(args: FsckArguments): Promise<void> {
  const paths = currentPaths();
  if (args['accept-log'] && !args.repair) throw new XcoreError('USAGE', '--accept-log goes with --repair; give both');
  const mount = await findMount(paths);
  if (mount !== null) {
    const { mountPoint } = mount;
    const message = `the volume is mounted on ${mountPoint}; first type: xcore umount ${mountPoint}`;
    throw new XcoreError('HOME_LOCKED', message);
  }
  if (args.dir !== undefined) await refuseOtherFolder(args.dir, paths);
  checkPrivateFolder(paths.config);
  const identity = await loadIdentity(paths, () => askPassphrase());
  const keys = await deriveVolumeKeys(identity.phrase);
  const { fsck } = await import('../../client/fsck/fsck.ts');
  const link = await connect(paths, identity.deviceSeed, keys.ownerSeed);
  const bar = fsckBar(args.json);
  let report: FsckReport;
  try {
    const log = foregroundLog('fsck', 'error');
    const { network } = link;
    report = await fsck(
      { network, keys, clock: systemClock, log, progress: bar.update },
      { dir: paths.volume, repair: args.repair, acceptLog: args['accept-log'] },
    );
  } finally {
    bar.stop();
    await link.stop();
  }
  if (args.json) printJson(report);
  else for (const line of describe(report, args.repair)) print(line);
  for (const line of report.notChecked) note(`not checked: ${line}`);
  if (report.state === 'damaged') process.exitCode = EXIT.data;
}

/** Throws USAGE for a folder on which this home's volume cannot be usually mounted: somebody wants another one checked. */
async function refuseOtherFolder(dir: string, paths: Paths): Promise<void> {
  const path = await mountPointPath(dir);
  const isEmpty = await readdir(path).then(
    (names) => names.length === 0,
    () => false,
  );
  if (isEmpty && !(await isOurs(path))) return;
  const home = paths.home ?? paths.volume;
  const message = `${path} is not where the volume of ${home} is mounted; leave it out to check that one, or name another home: XCORE_HOME=DIR`;
  throw new XcoreError('USAGE', message);
}

interface Link {
  /** Null when the bridge does not answer. */
  readonly network: Network | null;
  stop(): Promise<void>;
}

/** Connects to the bridge of the home, or to the embedded network, as a mount would. */
async function connect(paths: Paths, deviceSeed: Buffer, ownerSeed: Buffer): Promise<Link> {
  const config = await loadConfig(paths);
  const { WorkerNetwork } = await import('../../net/worker-network.ts');
  const local = config.bridge === null ? await spawnLocalNetwork(paths.localNetwork, paths) : null;
  const network: Network = new WorkerNetwork(
    { bridge: config.bridge ?? local?.bridge ?? '', deviceSeed, ownerSeed },
    { logger: foregroundLog('fsck', 'error') },
  );
  const connected = new Promise<boolean>((resolve) => {
    network.on('connection', (up) => up && resolve(true));
    setTimeout(resolve, CONNECTION_MS, false).unref();
  });
  const stop = async (): Promise<void> => {
    await network.stop();
    await local?.stop();
  };
  try {
    await network.start();
    return { network: (await connected) ? network : null, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A report in lines for a person. */
export function describe(report: FsckReport, repair: boolean): string[] {
  const lines = report.findings.slice(0, MAX_LINES).map(({ area, message }) => `${area}: ${message}`);
  const more = report.findingsCount - lines.length;
  if (more > 0) lines.push(`and ${more} more: see --json`);
  lines.push(
    ...report.repairs,
    ...report.notCarried.slice(0, MAX_LINES).map((reason) => `not carried over: ${reason}`),
  );
  if (repair && report.repairs.length > 0) {
    lines.push(...report.left.slice(0, MAX_LINES).map(({ area, message }) => `left: ${area}: ${message}`));
  }
  lines.push(...report.lostFiles.slice(0, MAX_LINES).map((path) => `has lost bytes: ${path}`));
  const { checked } = report;
  if (checked !== null) {
    const { records, inodes, shards, localFiles, logEntries, unpublished } = checked;
    lines.push(
      `checked ${records} records, ${inodes} inodes, ${shards} shards, ${localFiles} local files, ` +
        `${logEntries} log entries, ${unpublished} unpublished changes`,
    );
  }
  lines.push(conclusion(report, repair));
  return lines;
}

function conclusion({ state, left }: FsckReport, repair: boolean): string {
  if (state === 'clean') return 'clean';
  if (state === 'repaired') return 'repaired';
  const canRepair = !repair && left.some(({ remedy }) => remedy !== 'none');
  return canRepair ? 'damaged; to repair it: xcore fsck --repair' : 'damaged; what is left cannot be repaired here';
}

// xcore serve: lends room on this disk, in the foreground, or installs a unit that does so from now on.

import { resolve } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { loadConfig } from '../../client/identity.ts';
import { standBack } from '../../lib/background.ts';
import { XcoreError } from '../../lib/errors.ts';
import { parseMetricsAddress } from '../../lib/metrics-server.ts';
import { ensurePrivateFolder, type Paths } from '../../lib/paths.ts';
import { formatBytes } from '../../lib/units.ts';
import { BIN, currentPaths, foregroundLog } from '../context.ts';
import { refuseOptions } from '../given.ts';
import { freeBytes } from '../home-checks.ts';
import { lingerCommand, unitPlace, unitText } from '../host-unit.ts';
import type { UnitPlace } from '../host-unit.ts';
import { installUnit, uninstallUnit } from '../install-unit.ts';
import type { Installed } from '../install-unit.ts';
import { withMetrics } from '../metrics.ts';
import { checkBridgeAddress } from '../multiaddr.ts';
import { note, print, printJson } from '../output.ts';
import { claimServerFolder } from '../server-folder.ts';
import { serveArguments, serveOptions, serveSettings } from '../serve-options.ts';
import type { ServeOptions } from '../serve-options.ts';
import { runUntilStopped } from '../signals.ts';

/** For the bridge to find out whether the host can be dialled. */
const ADVICE_TIMEOUT_MS = 60_000;

interface ServeArguments extends ServeOptions {
  bridge?: string;
  dir?: string;
  install: boolean;
  uninstall: boolean;
  json: boolean;
}

/** The command's description for yargs. */
export const serveCommand: CommandModule<object, ServeArguments> = {
  command: 'serve',
  describe: 'run a host: lend room on this disk for other people’s shards',
  builder: (yargs: Argv) =>
    serveOptions(
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
        }),
    )
      .option('install', {
        type: 'boolean',
        default: false,
        describe: 'have systemd run it with these options, now and from each login on (as root: from each start on)',
      })
      .option('uninstall', {
        type: 'boolean',
        default: false,
        describe: 'have systemd run it no more',
      })
      .option('json', { type: 'boolean', default: false, describe: 'print the line as JSON' })
      .example('$0 serve --bridge /ip4/192.0.2.1/tcp/4001/p2p/12D3… --space 500GB', 'lend half a terabyte')
      .example('$0 serve --up 2MB/s --monthly 500GB --hours 22:00-08:00', 'at night, and not too much')
      .example('$0 serve --space 500GB --install', 'in the background, from now on'),
  handler: serve,
};

async function serve(args: ServeArguments): Promise<void> {
  const { spaceBytes, listen, options } = serveSettings(args);
  if (args.metrics !== undefined) parseMetricsAddress(args.metrics);
  const paths = currentPaths();
  const dir = args.dir === undefined ? paths.host : resolve(args.dir);
  if (args.install && args.uninstall) throw new XcoreError('USAGE', 'give either --install or --uninstall');
  if (args.uninstall) {
    const advice = 'to change options, repeat --install with the new ones';
    refuseOptions('--uninstall', ['uninstall', 'dir', 'json'], advice);
  }
  const place = unitPlace(args.dir === undefined ? null : dir, process.env);
  if (args.uninstall) {
    tellUninstalled(args, place, await uninstallUnit(place));
    return;
  }
  const bridge = await bridgeOf(args, paths);
  if (args.dir === undefined) {
    if (paths.home !== null) ensurePrivateFolder(paths.home);
    ensurePrivateFolder(dir);
  }
  await claimServerFolder(dir, 'host');
  if (args.install) {
    if (args.dir !== undefined) ensurePrivateFolder(dir);
    const command = [process.execPath, BIN, 'serve', '--bridge', bridge, '--dir', dir, ...serveArguments(args)];
    tellInstalled(args, place, await installUnit(place, unitText({ scope: place.scope, dir, command })));
    return;
  }
  standBack();
  const log = foregroundLog('host');
  const free = await freeBytes(dir);
  if (free < spaceBytes) {
    note(`${dir} has ${formatBytes(free)} free; ${formatBytes(spaceBytes)} is lent only as far as the disk allows`);
  }
  const { startHost } = await import('../../host/start-host.ts');
  const host = await startHost({ dir, bridge, capacityBytes: spaceBytes, listen: [listen], options }, { log });
  const { running, url } = await withMetrics(args.metrics, host);
  const tellReady = (): void => {
    if (!host.registered) note('the bridge does not answer yet; the host goes on trying to reach it');
    if (args.json)
      printJson({
        host: host.address,
        addresses: host.addresses,
        capacityBytes: spaceBytes,
        ...(url ? { metrics: url } : {}),
      });
    else print(host.address);
    if (url && !args.json) note(`figures at ${url}`);
  };
  const ending = new AbortController();
  const advising = host
    .reachabilityAdvice(AbortSignal.any([ending.signal, AbortSignal.timeout(ADVICE_TIMEOUT_MS)]))
    .then((advice) => advice.forEach(note));
  await runUntilStopped(running, log, { tellReady });
  ending.abort();
  await advising;
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

function tellInstalled(args: ServeArguments, { path, name, scope }: UnitPlace, { done, commands }: Installed): void {
  if (args.json) {
    printJson({ unit: path, running: done, commands });
    return;
  }
  print(path);
  if (done) note(`${name} runs now, and from each ${scope === 'user' ? 'login' : 'start'} on`);
  else tellCommands('systemd does not answer here; to have it run the host, type:', commands);
  if (scope === 'user') note(`so that it also runs while you are not logged in: ${lingerCommand()}`);
}

function tellUninstalled(args: ServeArguments, { path }: UnitPlace, { changed, done, commands }: Installed): void {
  if (args.json) {
    printJson({ unit: path, removed: changed, commands });
    return;
  }
  note(changed ? `${path} is removed; the shards stay where they are` : `${path} is not there; nothing to remove`);
  if (!done) tellCommands('systemd does not answer here; type:', commands);
}

function tellCommands(lead: string, commands: readonly string[]): void {
  note(lead);
  for (const command of commands) note(`  ${command}`);
}

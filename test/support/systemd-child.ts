// Runs under a user's systemd that was started for this: installs a host's unit, and starts the one for a mount. Prints
// what it found as JSON. Arguments: a folder of its own.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unitText } from '../../src/cli/host-unit.ts';
import { installUnit, uninstallUnit } from '../../src/cli/install-unit.ts';
import { callHost } from '../../src/host/control.ts';
import { until, ROOT, XCORE } from './run.ts';

const dir = process.argv[2]!;
const found: Record<string, unknown> = {};

/** What a program prints, whether it succeeds or not. */
function say(program: string, ...args: string[]): string {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch (error) {
    return String((error as { stdout?: string }).stdout ?? error).trim();
  }
}
const systemctl = (...args: string[]): string => say('systemctl', '--user', ...args);
const mainPid = (unit: string): string => systemctl('show', '-p', 'MainPID', '--value', unit);

const bridge = spawn(process.execPath, [XCORE, 'bridge', '--listen', '/ip4/127.0.0.1/tcp/0'], {
  env: { ...process.env, XCORE_HOME: join(dir, 'bridge') },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const [line] = (await once(bridge.stdout.setEncoding('utf8'), 'data')) as [string];

const units = join(process.env['XDG_CONFIG_HOME']!, 'systemd', 'user');
// A name with all that systemd would take for something else.
const shards = join(dir, 'h %d "$HOME"');
mkdirSync(shards, { recursive: true, mode: 0o700 });
const place = { scope: 'user', name: 'xcore-host.service', path: join(units, 'xcore-host.service') } as const;
const limitOf = async (): Promise<number | undefined> =>
  (await callHost(shards, 'status', {}).catch(() => undefined))?.space.limitBytes;
const install = async (space: string, limitBytes: number): Promise<void> => {
  const options = ['--bridge', line.trim(), '--dir', shards, '--space', space, '--listen', '/ip4/127.0.0.1/tcp/0'];
  const command = [process.execPath, XCORE, 'serve', ...options];
  found[`installed ${space}`] = await installUnit(place, unitText({ scope: 'user', dir: shards, command }));
  await until('the host to run', async () => (await limitOf()) === limitBytes);
};
await install('1GB', 1e9);
found['enabled'] = systemctl('is-enabled', place.name);
found['nice'] = systemctl('show', '-p', 'Nice', '--value', place.name);
const first = mainPid(place.name);
await install('2GB', 2e9);
found['restarted'] = mainPid(place.name) !== first;
systemctl('stop', place.name);
found['result'] = systemctl('show', '-p', 'Result', '--value', place.name);
found['uninstalled'] = await uninstallUnit(place);
found['active'] = systemctl('is-active', place.name);

const mount = readFileSync(join(ROOT, 'units/xcore.service'), 'utf8')
  .replaceAll('/usr/local/bin/xcore', `${process.execPath} ${XCORE}`)
  .replace('[Service]', `[Service]\nEnvironment=XCORE_HOME=${join(dir, 'home')}`);
writeFileSync(join(units, 'xcore.service'), mount);
const file = join(process.env['HOME']!, 'XCloud', 'file');
systemctl('daemon-reload');
systemctl('enable', '--now', 'xcore');
await until('the mount', () => readFileSync('/proc/mounts', 'utf8').includes('XCloud'));
say('sh', '-c', `echo hello > '${file}'`);
found['content'] = say('cat', file);
systemctl('stop', 'xcore');
found['mount result'] = systemctl('show', '-p', 'Result', '--value', 'xcore');
found['still mounted'] = readFileSync('/proc/mounts', 'utf8').includes('XCloud');
bridge.kill();
console.log(JSON.stringify(found));
process.exit(0);

// xcore serve --install and --uninstall, as real processes; systemd-analyze reads what they write, where it is there.

import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { unitPlace, unitText } from '../../src/cli/host-unit.ts';
import { EXIT } from '../../src/lib/errors.ts';
import { ROOT, Run, XCORE } from '../support/run.ts';
import type { Result } from '../support/run.ts';

t.setTimeout(300_000);

const BRIDGE = '/ip4/127.0.0.1/tcp/9/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';
const run = new Run(t);
const units = join(run.dir, 'units');
const home = join(run.dir, 'home');
/** systemctl is not found here: what the tests write must not reach the machine's own systemd. */
const env = { XCORE_HOME: home, SYSTEMD_UNIT_PATH: units, PATH: join(run.dir, 'nothing') };

const serve = (...args: string[]): Promise<Result> => run.exec(process.execPath, [XCORE, 'serve', ...args], { env });

await t.test('--install writes a unit with the options given, and says what is left to type', async (t) => {
  const limits = ['--up', '2MB/s', '--monthly', '500GB', '--hours', '22:00-08:00', '--days', 'mon-fri'];
  const first = await serve('--bridge', BRIDGE, '--space', '1GB', ...limits, '--operator', 'me', '--install');
  t.equal(first.code, 0, first.stderr);
  const path = join(units, 'xcore-host.service');
  t.equal(first.stdout, `${path}\n`);
  t.match(first.stderr, /systemctl (--user )?daemon-reload/);
  t.match(first.stderr, /systemctl (--user )?enable xcore-host\.service/);
  const text = readFileSync(path, 'utf8');
  t.equal(statSync(path).mode & 0o777, 0o644);
  t.match(text, new RegExp(`ExecStart=${process.execPath} ${ROOT}/bin/xcore.js serve --bridge ${BRIDGE}`));
  for (const option of limits.filter((_, at) => at % 2 === 1)) t.ok(text.includes(option), option);
  t.ok(text.includes(`--dir ${home}/host `), 'it does not depend on the environment');
  t.ok(existsSync(join(home, 'host')));

  const again = await serve('--bridge', BRIDGE, '--space', '2GB', '--install', '--json');
  t.equal(again.code, 0);
  t.match(JSON.parse(again.stdout), { unit: path, running: false });
  t.match(readFileSync(path, 'utf8'), /--space 2GB/, 'our own unit is replaced');

  const gone = await serve('--uninstall');
  t.equal(gone.code, 0, gone.stderr);
  t.notOk(existsSync(path));
  t.ok(existsSync(join(home, 'host')), 'shards stay');
  t.equal((await serve('--uninstall')).code, 0, 'nothing to remove is fine');
});

await t.test('a unit of somebody else is left alone, and wrong options write nothing', async (t) => {
  const dir = join(run.dir, 'my disk');
  const path = join(units, unitPlace(dir, env).name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, '[Service]\nExecStart=/bin/true\n');
  for (const what of [['--bridge', BRIDGE, '--install'], ['--uninstall']]) {
    const result = await serve('--dir', dir, ...what);
    t.equal(result.code, EXIT.busy, result.stderr);
    t.match(result.stderr, /was not written by xcore/);
  }
  t.equal(readFileSync(path, 'utf8'), '[Service]\nExecStart=/bin/true\n');
  const wrong = [['--up', '1KB/s'], ['--hours', '8-22'], ['--days', 'funday'], ['--operator', 'a b'], ['--uninstall']];
  for (const options of wrong) {
    const result = await serve('--bridge', BRIDGE, ...options, '--install');
    t.equal(result.code, EXIT.usage, `${options.join(' ')}: ${result.stderr}`);
  }
  t.notOk(existsSync(join(units, 'xcore-host.service')));
});

await t.test('systemd takes the units', async (t) => {
  const analyze = await run.exec('systemd-analyze', ['--version']);
  if (analyze.code !== 0) {
    t.comment('no systemd-analyze here');
    return;
  }
  const command = [process.execPath, XCORE, 'serve', '--dir', `${run.dir}/100 % of "mine", $HOME\\`, '--space', '1GB'];
  for (const scope of ['system', 'user'] as const) {
    const path = join(run.dir, `xcore-${scope}.service`);
    writeFileSync(path, unitText({ scope, dir: run.dir, command }));
    const args = ['verify', ...(scope === 'user' ? ['--user'] : []), '--man=no', path];
    const verified = await run.exec('systemd-analyze', args, { env: { XDG_RUNTIME_DIR: run.dir } });
    t.equal(verified.code, 0, `${scope}: ${verified.stderr}`);
    t.notMatch(verified.stderr, new RegExp(path), verified.stderr);
  }
  // The one for mounts names a program that may not be there.
  const mount = join(run.dir, 'xcore.service');
  const text = readFileSync(join(ROOT, 'units/xcore.service'), 'utf8').replaceAll('/usr/local/bin/xcore', '/bin/true');
  writeFileSync(mount, text);
  const verified = await run.exec('systemd-analyze', ['verify', '--user', '--man=no', mount], {
    env: { XDG_RUNTIME_DIR: run.dir },
  });
  t.equal(verified.code, 0, verified.stderr);
});

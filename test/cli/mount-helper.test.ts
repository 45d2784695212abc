// Mount options as fstab writes them, the helper that mount(8) runs, and the unit file.

import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseMountOptions } from '../../src/cli/mount-options.ts';
import { setTimes } from '../support/libc.ts';
import { withNetwork } from '../support/network.ts';
import { ROOT } from '../support/run.ts';

t.setTimeout(300_000);

t.test('lists of options are understood, unknown words refused', async (t) => {
  t.strictSame(parseMountOptions(''), {});
  t.strictSame(parseMountOptions('rw,defaults,_netdev,nofail,x-systemd.automount,user=me,nosuid,nodev'), {});
  t.strictSame(parseMountOptions('ro,allow_other,noatime,noexec,take-over,cache-size=50GB,home=/home/me/.xcore'), {
    readOnly: true,
    allowOther: true,
    accessTimes: false,
    noExec: true,
    takeOver: true,
    cacheSize: '50GB',
    home: '/home/me/.xcore',
  });
  for (const list of ['nonsense', 'cache-size=many', 'home=', 'suid', 'strictatime', 'ro,dev']) {
    t.throws(() => parseMountOptions(list), { code: 'USAGE' }, list);
  }
});

t.test('mount.xcore mounts as a line of fstab says', async (t) => {
  const net = await withNetwork(t, { hosts: 1 });
  const { run } = net;
  const client = await net.newClient('a');
  const helper = join(ROOT, 'bin/mount.xcore.js');
  const usage = await run.exec(process.execPath, [helper, 'xcore']);
  t.equal(usage.code, 1);
  t.match(usage.stderr, /usage/);
  const unknown = await run.exec(process.execPath, [helper, 'xcore', client.mountPoint, '-o', 'nonsense']);
  t.equal(unknown.code, 1);
  t.match(unknown.stderr, /nonsense/);
  t.equal((await run.exec(process.execPath, [helper, 'xcore', client.mountPoint, '-f'])).code, 0, 'a dry run');
  if (process.geteuid?.() === 0) {
    const nobody = await run.exec(process.execPath, [helper, 'xcore', client.mountPoint, '-o', 'setuid=no-such-user']);
    t.equal(nobody.code, 32);
    t.equal(nobody.stderr, 'mount.xcore: setuid=no-such-user: there is no such user\n');
  }

  const options = `rw,noauto,noexec,noatime,cache-size=1GiB,home=${client.home}`;
  // mount(8) hands no PATH on
  const call = ['-u', 'PATH', process.execPath, helper, 'xcore', client.mountPoint, '-s', '-o', options];
  await run.must('/usr/bin/env', call, { timeoutMs: 120_000 });
  const line = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((entry) => entry.includes(client.mountPoint));
  t.match(line, /fuse\.xcore .*nosuid,nodev,noexec/);
  const program = join(client.mountPoint, 'program');
  copyFileSync('/bin/true', program);
  t.equal(spawnSync(program).error && 'EACCES', 'EACCES', 'noexec');
  const file = join(client.mountPoint, 'file');
  writeFileSync(file, 'x');
  setTimes(file, 5n, 5n);
  readFileSync(file);
  await client.umount('--no-wait');
  await run.must(process.execPath, [helper, 'xcore', client.mountPoint, '-o', `ro,home=${client.home}`]);
  const { atimeMs } = await import('node:fs/promises').then(({ stat }) => stat(file));
  t.ok(atimeMs < 1, 'noatime');
  t.throws(() => writeFileSync(file, 'y'), { code: 'EROFS' });
  await client.umount('--no-wait');
});

t.test('the unit file is one that systemd takes', async (t) => {
  const unit = join(ROOT, 'units/xcore.service');
  t.match(readFileSync(unit, 'utf8'), /ExecStart=.* mount --foreground %h\/XCloud/);
  const verified = spawnSync('systemd-analyze', ['--user', 'verify', unit], { encoding: 'utf8' });
  if (verified.error) {
    t.comment('systemd-analyze is not installed');
    return;
  }
  // that the program is not where the unit looks for it is this machine's matter
  const complaints = verified.stderr.split('\n').filter((line) => line.includes('xcore.service'));
  t.strictSame(
    complaints.filter((line) => !line.includes('is not executable')),
    [],
  );
});

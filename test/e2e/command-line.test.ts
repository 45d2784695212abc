// What the command line answers to wrong input and to mount points in any state.

import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { EXIT } from '../../src/lib/errors.ts';
import { mountsBelow } from '../support/cleanup.ts';
import { Client } from '../support/client.ts';
import { withNetwork } from '../support/network.ts';
import type { Result } from '../support/run.ts';

t.setTimeout(600_000);

const net = await withNetwork(t, { hosts: 3 });

/** A failure that a person can read: an exit code of its own, something on standard error, no stack. */
function isClear(result: Result, code: number): boolean {
  const lines = result.stderr.trim().split('\n');
  return result.code === code && lines.length <= 3 && (lines[0] ?? '') !== '' && !/\n\s+at /.test(result.stderr);
}

await t.test('identities: made once, shown again, recovered from valid words only', async (t) => {
  const client = net.client('id');
  t.ok(isClear(await client.xcore(['phrase']), EXIT.identity), 'no identity yet');
  await client.init(net.bridge.address);
  const shown = await client.must(['phrase']);
  t.match(shown, /^[a-z]+( [a-z]+){23}\n$/, '24 words on one line and nothing else');
  t.ok(isClear(await client.xcore(['init', '--bridge', net.bridge.address]), EXIT.identity), 'init overwrites nothing');
  t.ok(
    isClear(await client.xcore(['init', '--recover'], { input: `${'abandon '.repeat(23)}art\n` }), EXIT.identity),
    'nor does --recover',
  );
  t.equal(await client.must(['phrase']), shown, 'the identity is as before');
  for (const path of readdirSync(client.home, { recursive: true, encoding: 'utf8' })) {
    t.equal(statSync(join(client.home, path)).mode & 0o077, 0, `${path} is the owner's only`);
  }

  const words = shown.trim().split(' ');
  const others = 'legal winner thank year wave sausage worth useful '.repeat(3).trim().split(' ');
  const wrong: Record<string, [input: string, alsoWrong: string]> = {
    'no words': ['', ' '],
    '23 words': [words.slice(1).join(' '), others.slice(1).join(' ')],
    'a word that is none': [[...words.slice(0, 23), 'xyzzy'].join(' '), [...others.slice(0, 23), 'plugh'].join(' ')],
    'a wrong checksum': ['abandon '.repeat(24), 'zoo '.repeat(24)],
  };
  for (const [what, inputs] of Object.entries(wrong)) {
    const other = net.client('wrong');
    const said = [];
    for (const input of inputs) {
      const result = await other.xcore(['init', '--recover', '--bridge', net.bridge.address], { input: `${input}\n` });
      t.ok(isClear(result, EXIT.identity), `${what}: ${result.stderr.trim()}`);
      said.push(result.stderr);
    }
    t.equal(said[0], said[1], 'and the words are not repeated');
    t.ok(isClear(await other.xcore(['phrase']), EXIT.identity), 'nothing was made');
  }
  const spaced = net.client('spaced');
  await spaced.must(['init', '--recover', '--bridge', net.bridge.address], {
    input: `  ${words.slice(0, 12).join('  ').toUpperCase()}\n${words.slice(12).join('\n')}\n`,
  });
  t.equal(await spaced.must(['phrase']), shown, 'case, spacing and lines do not matter');
});

await t.test('usage errors and help', async (t) => {
  const client = net.client('usage');
  for (const args of [
    [],
    ['mount'],
    ['nonsense'],
    ['mount', client.mountPoint, '--no-such'],
    ['serve', '--space', 'many'],
  ]) {
    const result = await client.xcore(args);
    t.equal(result.code, EXIT.usage, `xcore ${args.join(' ')}`);
    t.not(result.stderr.trim(), '', 'says why');
  }
  const help = await client.must(['--help']);
  for (const command of ['init', 'phrase', 'mount', 'umount', 'status', 'flush', 'serve', 'bridge', 'doctor']) {
    t.match(help, new RegExp(`\\b${command}\\b`));
  }
  t.match(await client.must(['--version']), /^\d+\.\d+\.\d+/);
  t.ok(isClear(await client.xcore(['umount', client.mountPoint]), EXIT.busy), 'nothing mounted there');
});

await t.test('mount points: busy, not empty, absent, a file, stale', async (t) => {
  const client = await net.newClient('points');
  const mount = client.mountPoint;

  const full = join(net.run.dir, 'full');
  mkdirSync(full);
  writeFileSync(join(full, 'precious'), 'stays');
  t.ok(isClear(await client.xcore(['mount', full]), EXIT.busy), 'not empty');
  t.equal(readFileSync(join(full, 'precious'), 'utf8'), 'stays');
  const file = join(net.run.dir, 'file');
  writeFileSync(file, '');
  const onFile = await client.xcore(['mount', file]);
  t.not(onFile.code, 0, 'a file');
  t.not(onFile.stderr.trim(), '');

  await client.mount();
  writeFileSync(join(mount, 'hello'), 'world');
  t.ok(isClear(await client.xcore(['mount', mount]), EXIT.busy), 'mounting again');
  const other = join(net.run.dir, 'other');
  mkdirSync(other);
  const twice = await client.xcore(['mount', other]);
  t.ok(isClear(twice, EXIT.busy), `the same home elsewhere: ${twice.stderr.trim()}`);
  const second = await net.newClient('second');
  t.ok(isClear(await second.xcore(['mount', mount]), EXIT.busy), "on another user's mount");
  const others = await second.xcore(['umount', mount]);
  t.ok(isClear(others, EXIT.busy));
  t.match(others.stderr, /is mounted by another home/);
  t.equal(readFileSync(join(mount, 'hello'), 'utf8'), 'world', 'the mount is unharmed');

  await client.kill();
  t.throws(() => readdirSync(mount), 'a dead mount');
  await client.mount();
  t.equal(readFileSync(join(mount, 'hello'), 'utf8'), 'world', 'is cleaned up by the next');
  t.equal(mountsBelow(mount).length, 1, 'and nothing is left below it');

  await client.kill();
  await client.must(['umount', mount, '--no-wait']);
  t.strictSame(mountsBelow(mount), [], 'umount removes a dead mount');
  t.strictSame(readdirSync(mount), []);

  const fresh = join(net.run.dir, 'fresh');
  await client.must(['mount', fresh]);
  t.equal(readFileSync(join(fresh, 'hello'), 'utf8'), 'world', 'an absent folder is made');
  await client.must(['umount', fresh]);
});

await t.test('umount refuses while files are open, and the mount goes on', async (t) => {
  const client = await net.newClient('open');
  const mount = await client.mount();
  writeFileSync(join(mount, 'file'), 'x');
  const child = net.run.spawn('holder', [
    '-e',
    `require('fs').openSync(${JSON.stringify(join(mount, 'file'))}); console.log(1); setInterval(() => {}, 1e6)`,
  ]);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  const refused = await client.xcore(['umount', mount]);
  t.ok(isClear(refused, EXIT.busy));
  t.match(refused.stderr, `(${child.pid})`, 'names who has them open');
  t.equal(readFileSync(join(mount, 'file'), 'utf8'), 'x');
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  await client.umount();
});

await t.test('--read-only and --foreground', async (t) => {
  const client = await net.newClient('ro');
  const mount = await client.mount();
  writeFileSync(join(mount, 'file'), 'x');
  await client.umount();
  await client.mount('--read-only');
  t.throws(() => writeFileSync(join(mount, 'file'), 'y'), { code: 'EROFS' });
  t.equal(readFileSync(join(mount, 'file'), 'utf8'), 'x');
  t.equal((await client.status()).readOnly, true);
  await client.umount();

  const running = client.xcore(['mount', mount, '--foreground']);
  const pid = (await client.untilStatus('the foreground mount', () => true)).pid;
  t.equal(readFileSync(join(mount, 'file'), 'utf8'), 'x');
  process.kill(pid, 'SIGTERM');
  t.equal((await running).code, 0, 'SIGTERM unmounts and ends it');
  t.strictSame(mountsBelow(mount), []);
});

await t.test('without a bridge, mount makes a network on this machine and says so', async (t) => {
  const client = new Client(net.run, 'emb');
  const first = await client.xcore(['mount', client.mountPoint], { timeoutMs: 120_000 });
  t.equal(first.code, 0, first.stderr);
  t.match(first.stdout + first.stderr, /this machine only/i, 'it says that everything is still here');
  writeFileSync(join(client.mountPoint, 'file'), 'kept');
  writeFileSync(join(client.mountPoint, 'large'), Buffer.alloc(5_000_000, 'xyz'));
  await client.flush();
  const status = await client.status();
  t.equal(status.network.local, true);
  t.equal(status.network.hosts.length, 3, 'three hosts');
  t.equal(status.stagedBytes, 0);
  const words = await client.phrase();
  t.equal(words.split(' ').length, 24, 'an identity was made on the way');
  await client.umount();
  t.notOk(existsSync(join(client.mountPoint, 'file')));
  await client.mount();
  t.equal(readFileSync(join(client.mountPoint, 'file'), 'utf8'), 'kept', 'the data comes back');
  t.ok(readFileSync(join(client.mountPoint, 'large')).equals(Buffer.alloc(5_000_000, 'xyz')));
  await client.umount();
});

await t.test('doctor passes on a machine that can mount', async (t) => {
  const result = await net.client('doc').xcore(['doctor']);
  t.equal(result.code, 0, result.stdout + result.stderr);
  t.match(result.stdout, /fuse/i);
});

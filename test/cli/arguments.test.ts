// Every command with wrong arguments, and what needs no network: help, completion, doctor, exit codes.

import { chmodSync, chownSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openLevelStore } from '../../src/bridge/level-store.ts';
import { claimServerFolder } from '../../src/cli/server-folder.ts';
import { openSerialStore } from '../../src/host/used-serials.ts';
import { EXIT } from '../../src/lib/errors.ts';
import { Client } from '../support/client.ts';
import { Run, type Result } from '../support/run.ts';

const PHRASE = `${'abandon '.repeat(23)}art`;
const BRIDGE = '/ip4/127.0.0.1/tcp/9/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';

t.setTimeout(600_000);

const run = new Run(t);
let homes = 0;
const newClient = (): Client => new Client(run, `c${++homes}`);

/** One sentence on standard error that names the program, no stack, and the code. */
function isClear(result: Result, code: number): boolean {
  return result.code === code && /^xcore: .+\n$/.test(result.stderr) && !/\n\s+at /.test(result.stderr);
}

/** Runs tasks four at a time and gives their results in order. */
async function inTurns<T>(tasks: readonly (() => Promise<T>)[]): Promise<T[]> {
  const results: T[] = [];
  for (let from = 0; from < tasks.length; from += 4) {
    results.push(...(await Promise.all(tasks.slice(from, from + 4).map((task) => task()))));
  }
  return results;
}

await t.test('wrong arguments are exit 2, one sentence, and change nothing', async (t) => {
  const client = newClient();
  const dir = client.mountPoint;
  const cases: [string[], RegExp][] = [
    [[], /which command\?/],
    [['nonsense'], /unknown command: nonsense/],
    [['mont', dir], /did you mean mount\?/],
    [['init', '--bridge'], /bridge/],
    [['init', '--bridge', 'nonsense'], /not a multiaddr/],
    [['init', '--bridge', '/ip4/127.0.0.1/tcp/9'], /\/p2p\//],
    [['init', 'extra'], /extra/],
    [['phrase', 'extra'], /extra/],
    [['mount'], /argument is missing: xcore mount <dir>; see xcore mount --help/],
    [['mount', dir, 'extra'], /extra/],
    [['mount', dir, '--no-such'], /unknown argument: no-such;/],
    [['mount', dir, '--driver', 'magic'], /--driver is one of auto, kernel, fuse-native, not 'magic'/],
    [['mount', dir, '-o'], /-o needs a value/],
    [['mount', dir, '-o', 'remount,ro'], /umount it and mount it again/],
    [['mount', dir, '--cache-size', 'many'], /'many' is not a size/],
    [['mount', join(client.home, 'inside')], /where xcore keeps its own files; mount somewhere else/],
    [['host', 'set'], /the action is one of status, pause, resume, exit, verify, not 'set'/],
    [['umount'], /argument is missing: xcore umount <dir>/],
    [['host'], /argument is missing: xcore host <action>/],
    [['umount', dir, '--now'], /now/],
    [['status', 'extra'], /extra/],
    [['flush', dir, 'extra'], /extra/],
    [['serve'], /--bridge/],
    [['serve', '--space', 'many', '--bridge', BRIDGE], /--space 'many' is not a size/],
    [['serve', '--space', '0', '--bridge', BRIDGE], /--space '0' is less than one byte/],
    [['serve', '--space', '1MB', '--bridge', BRIDGE], /--space 1MB is too little/],
    [['serve', '--up', '2MB/h', '--bridge', BRIDGE], /--up '2MB\/h' is not a rate/],
    [['bridge', '--repair-after', '4'], /--repair-after '4' is not a duration/],
    [['serve', '--bridge', '/ip4/127.0.0.1/tcp/9'], /\/p2p\//],
    [['serve', '--bridge', BRIDGE, '--listen', '/ip4/127.0.0.1/udp/9'], /not a TCP address/],
    [['bridge', '--listen', 'localhost:80'], /--listen localhost:80/],
    [['bridge', 'extra'], /extra/],
    [['doctor', '--fix'], /fix/],
    [['local-network'], /dir/],
    [
      ['bridge', 'status', '--listen', '/ip4/0.0.0.0/tcp/4001'],
      /--listen does nothing with xcore bridge status; .*start it again/,
    ],
    [['bridge', 'hosts', '--mirrors=3', '--no-relay'], /--mirrors and --no-relay do nothing with xcore bridge hosts/],
    [['bridge', '--repair-rate', '-1'], /--repair-rate '-1' is not a rate; write it as in 2MB\/s/],
    [['bridge', '--repair-rate', '0'], /less than one byte a second; write it as in/],
    [['bridge', '--repair-rate', '10KB'], /64KB\/s is the least/],
    [['bridge', '--max-hosts', '1e9'], /--max-hosts is a whole number from 1 to/],
    [['bridge', '--dir', ''], /--dir needs a value/],
    [['bridge', '--listen='], /--listen needs a value/],
    [['serve', 'status'], /that is xcore host status/],
    [['serve', '--uninstall', '--space', '10GB'], /--space does nothing with --uninstall/],
    [['serve', '--bridge', '/ip4/127.0.0.1/tcp/9/p2p/nobody'], /does not name the bridge's peer/],
    [['host', 'status', '--space', '10GB'], /options of xcore serve/],
    [['host', 'pause', '--no-wait'], /--no-wait does nothing with xcore host pause/],
    [['fsck', '--accept-log'], /--accept-log goes with --repair/],
    [['fsck', '--repair=yes'], /--repair takes no value/],
    [['fsck', run.dir], /is not where the volume of .* is mounted/],
    [['mount', ''], /an argument is empty/],
    [['umount', ''], /an argument is empty/],
    [['mount', dir, '--read-only', '--take-over'], /give either/],
    [['mount', dir, '--cache-size', '1GB', '--cache-size=2GB'], /--cache-size is given twice/],
    [['mount', dir, '-o', 'ro', '--read-only', '-o', 'noexec', '--read-only'], /--options is given twice/],
    [['serve', '--space', '1GB', '--bridge', BRIDGE, '--space', '1GB'], /--space is given twice/],
  ];
  const results = await inTurns(
    cases.map(
      ([args]) =>
        () =>
          client.xcore(args),
    ),
  );
  for (const [index, [args, message]] of cases.entries()) {
    const result = results[index]!;
    t.ok(isClear(result, EXIT.usage), `xcore ${args.join(' ')}: ${result.code} ${result.stderr.trim()}`);
    t.match(result.stderr, message);
    t.equal(result.stdout, '');
  }
  t.throws(() => readdirSync(client.home), { code: 'ENOENT' }, 'no home was made');
});

await t.test('a host and a bridge take no folder that is not theirs', async (t) => {
  const dir = t.testdir({
    letters: { 'letter.txt': '', 'photo.jpg': '' },
    'a-host': { 'identity.seed': '', shards: {}, state: {}, 'notes.txt': 'of its operator' },
    'a-bridge': { 'identity.seed': '', state: {} },
    'a-disk': { 'lost+found': {} },
    'a-bridge-without-state': { 'identity.seed': '' },
    file: '',
  });
  const claim = (name: string, server: 'bridge' | 'host'): Promise<void> => claimServerFolder(join(dir, name), server);
  for (const server of ['bridge', 'host'] as const) {
    await t.rejects(claim('letters', server), { code: 'FOREIGN_HOME', message: /letter\.txt, photo\.jpg/ });
    await t.rejects(claim('file', server), { code: 'FOREIGN_HOME', message: /not a folder/ });
    await t.rejects(claim('file/below', server), { code: 'FOREIGN_HOME' });
    await claim('a-disk', server);
    await claim(`new/${server}`, server);
    t.equal(statSync(join(dir, 'new', server)).mode & 0o777, 0o700);
  }
  await claim('a-host', 'host');
  await t.rejects(claim('a-host', 'bridge'), { code: 'FOREIGN_HOME', message: /the folder of a host/ });
  await claim('a-bridge', 'bridge');
  await t.rejects(claim('a-bridge-without-state', 'bridge'), { code: 'BAD_FORMAT', message: /state, .* is gone/ });
  await (await openLevelStore(join(dir, 'a-bridge/state'))).close();
  await t.rejects(openSerialStore(join(dir, 'a-bridge/state')), { code: 'BAD_FORMAT', message: /none of a host/ });
  if (process.getuid?.() === 0) {
    chownSync(join(dir, 'a-host/identity.seed'), 1000, 1000);
    await t.rejects(claim('a-host', 'host'), { code: 'FOREIGN_HOME', message: /another user \(uid 1000\)/ });
  } else {
    chmodSync(join(dir, 'a-disk'), 0o500);
    await t.rejects(claim('a-disk', 'host'), { code: 'EACCES' });
    chmodSync(join(dir, 'a-disk'), 0o700);
  }
  const refused = await newClient().xcore(['serve', '--bridge', BRIDGE, '--dir', join(dir, 'letters')]);
  t.ok(isClear(refused, EXIT.identity), refused.stderr);
  t.strictSame(readdirSync(join(dir, 'letters')), ['letter.txt', 'photo.jpg'], 'and nothing was put there');
});

await t.test('with --json an error is JSON on stdout too', async (t) => {
  const client = newClient();
  for (const [args, code, exit] of [
    [['flush', '--json'], 'NOT_MOUNTED', EXIT.busy],
    [['umount', client.mountPoint, '--json'], 'NOT_MOUNTED', EXIT.busy],
    [['mount', '--json'], 'USAGE', EXIT.usage],
    [['--json', 'nonsense'], 'USAGE', EXIT.usage],
    [['mount', '/dev/null', '--json'], 'ENOTDIR', EXIT.failure],
    [['mount', '/proc/xcore', '--json'], 'EACCES', EXIT.failure],
  ] as const) {
    const result = await client.xcore(args);
    t.ok(isClear(result, exit), args.join(' '));
    const { error } = JSON.parse(result.stdout) as { error: { code: string; message: string } };
    t.equal(error.code, code);
    t.equal(result.stderr, `xcore: ${error.message}\n`);
  }
});

await t.test('help, version and completion', async (t) => {
  const client = newClient();
  const commands = ['init', 'phrase', 'mount', 'umount', 'status', 'flush', 'serve', 'bridge', 'doctor'];
  const helps = await inTurns(commands.map((command) => () => client.must([command, '--help'])));
  for (const [index, command] of commands.entries()) {
    const help = helps[index]!;
    t.match(help, new RegExp(`^xcore ${command}`));
    t.match(help, /Examples:/, `${command} has examples`);
  }
  const help = await client.must(['--help']);
  t.match(help, /Exit codes: 0 done/);
  t.notMatch(help, /local-network/);
  t.match(await client.must(['completion']), /_xcore_yargs_completions/);
  t.match(await client.must(['--get-yargs-completions', 'xcore', 'um']), /umount/);
  t.equal(await client.must(['--version']), '0.1.0\n');
});

await t.test('an identity is made, shown, locked and never overwritten', async (t) => {
  const client = newClient();
  t.ok(isClear(await client.xcore(['phrase']), EXIT.identity));
  const made = await client.xcore(['init', '--json', '--bridge', BRIDGE]);
  t.equal(made.code, 0);
  const identity = join(client.home, 'identity.json');
  t.strictSame(JSON.parse(made.stdout), { identity, recovered: false, bridge: BRIDGE, locked: false }, 'no word of it');
  t.equal(made.stderr, '');
  const words = await client.phrase();
  t.ok(isClear(await client.xcore(['init']), EXIT.identity));
  t.ok(isClear(await client.xcore(['init', '--recover'], { input: PHRASE }), EXIT.identity));
  t.equal(await client.phrase(), words);

  const locked = newClient();
  const file = join(run.dir, 'passphrase');
  const env = { XCORE_PASSPHRASE_FILE: file };
  t.ok(isClear(await locked.xcore(['init', '--passphrase'], { env }), EXIT.identity), 'no such file');
  writeFileSync(file, 'correct horse\n', { mode: 0o644 });
  t.ok(isClear(await locked.xcore(['init', '--passphrase'], { env }), EXIT.identity), 'open to others');
  chmodSync(file, 0o600);
  await locked.must(['init', '--recover', '--passphrase'], { env, input: PHRASE });
  t.ok(isClear(await locked.xcore(['phrase']), EXIT.identity), 'no terminal to ask on');
  t.equal(await locked.must(['phrase'], { env }), `${PHRASE}\n`);
  writeFileSync(file, 'wrong');
  const wrong = await locked.xcore(['phrase'], { env });
  t.ok(isClear(wrong, EXIT.identity));
  t.notMatch(wrong.stderr, /correct|abandon/);
});

await t.test('words from stdin: any case and spacing, and only the right ones', async (t) => {
  const client = newClient();
  const wrong = [
    '',
    'abandon',
    'abandon '.repeat(24),
    PHRASE.replace('art', 'xyzzy'),
    `${PHRASE} art`,
    '\0'.repeat(100),
  ];
  const results = await inTurns(wrong.map((input) => () => client.xcore(['init', '--recover'], { input })));
  for (const [index, input] of wrong.entries()) {
    const result = results[index]!;
    t.ok(isClear(result, EXIT.identity), `${JSON.stringify(input.slice(0, 20))}: ${result.stderr.trim()}`);
    t.notMatch(result.stderr, /abandon|xyzzy/);
  }
  await client.must(['init', '--recover'], { input: `\n ${PHRASE.toUpperCase().replaceAll(' ', '\n\t')}\n\n` });
  t.equal(await client.phrase(), PHRASE);
});

await t.test('a first init or mount that fails leaves no home behind', async (t) => {
  const client = newClient();
  await client.xcore(['init', '--recover'], { input: 'abandon' });
  t.throws(() => readdirSync(client.home), { code: 'ENOENT' });
  const full = t.testdir({ file: '' });
  t.equal((await client.xcore(['mount', full])).code, EXIT.busy);
  t.throws(() => readdirSync(client.home), { code: 'ENOENT' });
  mkdirSync(client.home, { mode: 0o700 });
  await client.xcore(['init', '--recover'], { input: 'abandon' });
  t.same(readdirSync(client.home), [], 'a folder that was there stays');
});

await t.test('homes that are open, foreign or impossible are refused', async (t) => {
  const open = newClient();
  await open.init();
  chmodSync(open.home, 0o755);
  for (const args of [['phrase'], ['mount', open.mountPoint], ['init']]) {
    const result = await open.xcore(args);
    t.ok(isClear(result, EXIT.identity), args.join());
    t.match(result.stderr, `chmod 700 '${open.home}'`);
  }
  chmodSync(open.home, 0o700);
  chmodSync(join(open.home, 'identity.json'), 0o644);
  t.match((await open.xcore(['mount', open.mountPoint])).stderr, /chmod 600/);

  const strange = { XCORE_HOME: '/proc/xcore' };
  t.ok(isClear(await open.xcore(['init'], { env: strange }), EXIT.identity), 'where nothing can be made');
  const file = join(run.dir, 'file');
  writeFileSync(file, '');
  t.ok(isClear(await open.xcore(['init'], { env: { XCORE_HOME: file } }), EXIT.identity), 'a file');

  const foreign = newClient();
  mkdirSync(foreign.home, { mode: 0o700 });
  if (process.getuid?.() === 0) chownSync(foreign.home, 12_345, 12_345);
  const elsewhere = process.getuid?.() === 0 ? foreign.home : '/var/lib';
  const env = { XCORE_HOME: elsewhere };
  for (const args of [['init'], ['phrase'], ['mount', foreign.mountPoint]]) {
    const result = await foreign.xcore(args, { env });
    t.ok(isClear(result, EXIT.identity), `${args[0] ?? ''}: ${result.stderr}`);
    t.match(result.stderr, /belongs to another user/);
  }
});

await t.test('a damaged identity is told as damaged data', async (t) => {
  const client = newClient();
  await client.init();
  const file = join(client.home, 'identity.json');
  writeFileSync(file, readFileSync(file, 'utf8').slice(0, 40));
  t.ok(isClear(await client.xcore(['phrase']), EXIT.data));
  t.ok(isClear(await client.xcore(['mount', client.mountPoint]), EXIT.data));
  t.ok(isClear(await client.xcore(['init']), EXIT.data), 'and is not overwritten');
});

await t.test('status works with nothing mounted', async (t) => {
  const client = newClient();
  t.match(await client.must(['status']), /nothing is mounted/);
  t.strictSame(JSON.parse(await client.must(['--json', 'status'])), { home: client.home, mounts: [] });
});

await t.test('doctor names what is missing and how to get it', async (t) => {
  const client = newClient();
  const fine = JSON.parse(await client.must(['doctor', '--json'])) as { ok: boolean; checks: { name: string }[] };
  t.equal(fine.ok, true);
  const names = fine.checks.map((check) => check.name);
  t.strictSame(names.slice(0, 3), ['node', 'fuse device', 'fusermount3']);
  await client.init(BRIDGE);
  t.match(await client.must(['doctor']), /warning bridge: .* does not answer\n.* first mount .* cannot do without/);
  chmodSync(client.home, 0o777);
  const broken = await client.xcore(['doctor']);
  t.equal(broken.code, EXIT.fuse);
  t.match(broken.stdout, /MISSING home: .*chmod 700/);
  if (process.getuid?.() !== 0) {
    const bare = await client.xcore(['doctor'], { env: { PATH: '/nowhere' } });
    t.match(bare.stdout, /MISSING fusermount3: .*not installed/);
    const mount = await client.xcore(['mount', client.mountPoint], {
      env: { PATH: '/nowhere', XCORE_HOME: join(run.dir, 'bare') },
    });
    t.ok(isClear(mount, EXIT.fuse), mount.stderr);
  }
});

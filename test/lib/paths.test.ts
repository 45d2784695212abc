// Where a home lies, who may use it, and how its files are replaced.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { writeFileAtomic } from '../../src/lib/atomic-file.ts';
import { createLogger, logLevel } from '../../src/lib/log.ts';
import { checkPrivateFolder, ensureHome, ensurePrivateFolder, homePaths } from '../../src/lib/paths.ts';

const modeOf = (path: string): number => statSync(path).mode & 0o777;

await t.test('everything is below XCORE_HOME', async (t) => {
  const paths = homePaths({ XCORE_HOME: '/srv/x', HOME: '/home/me', XDG_CONFIG_HOME: '/elsewhere' });
  const { home, ...rest } = paths;
  t.equal(home, '/srv/x');
  for (const [name, path] of Object.entries(rest)) t.ok(path === '/srv/x' || path?.startsWith('/srv/x/'), name);
  t.equal(paths.identityFile, '/srv/x/identity.json');
  t.equal(paths.controlSocket, '/srv/x/run/control.sock');
});

await t.test('without it the XDG folders are used, relative ones ignored', async (t) => {
  const env = { HOME: '/home/me', XDG_CONFIG_HOME: '/c', XDG_DATA_HOME: 'relative', XDG_RUNTIME_DIR: '/run/user/7' };
  const paths = homePaths(env);
  t.equal(paths.home, null);
  t.equal(paths.identityFile, '/c/xcore/identity.json');
  t.equal(paths.volume, '/home/me/.local/share/xcore/volume');
  t.equal(paths.log, '/home/me/.local/state/xcore/log');
  t.equal(paths.controlSocket, '/run/user/7/xcore/control.sock');
  t.equal(homePaths({ HOME: '/home/me', XCORE_HOME: '' }).run, '/home/me/.local/state/xcore/run');
});

await t.test('a socket path is never longer than a socket can have', async (t) => {
  const wanted = (length: number): string => `/${'h'.repeat(length - '/run/control.sock'.length - 1)}`;
  t.equal(homePaths({ XCORE_HOME: wanted(107) }).controlSocket.length, 107);
  const short = homePaths({ XCORE_HOME: wanted(108), XDG_RUNTIME_DIR: '/run/user/7' }, 7).controlSocket;
  t.match(short, /^\/run\/user\/7\/xcore\/[0-9a-f]{32}\.sock$/);
  const temporary = homePaths({ XCORE_HOME: wanted(108) }, 7).controlSocket;
  t.match(temporary, /\/xcore-7\/[0-9a-f]{32}\.sock$/);
  t.ok(Buffer.byteLength(temporary) <= 107);
  t.not(temporary, homePaths({ XCORE_HOME: wanted(109) }, 7).controlSocket, 'each home has its own');
  t.ok(Buffer.byteLength(homePaths({ XCORE_HOME: `/${'ä'.repeat(60)}` }, 7).controlSocket) <= 107, 'bytes count');
});

await t.test('folders are private, and others’ or open ones refused', async (t) => {
  const dir = t.testdir();
  const fresh = join(dir, 'a/b');
  ensurePrivateFolder(fresh);
  t.equal(modeOf(fresh), 0o700);
  t.equal(modeOf(join(dir, 'a')), 0o700, 'what was made on the way too');

  const empty = join(dir, 'empty');
  mkdirSync(empty);
  chmodSync(empty, 0o755);
  t.throws(() => checkPrivateFolder(empty), { code: 'UNSAFE_MODE' });
  ensurePrivateFolder(empty);
  t.equal(modeOf(empty), 0o700, 'an empty one of ours is closed');

  const used = join(dir, 'used');
  mkdirSync(join(used, 'x'), { recursive: true });
  chmodSync(used, 0o750);
  t.throws(() => ensurePrivateFolder(used), { code: 'UNSAFE_MODE', message: `chmod 700 '${used}'` });
  chmodSync(used, 0o700);
  symlinkSync(used, join(dir, 'link'));
  t.doesNotThrow(() => ensurePrivateFolder(join(dir, 'link')), 'a link is followed');
  t.throws(() => ensurePrivateFolder(used, (process.getuid?.() ?? 0) + 1), { code: 'FOREIGN_HOME' });
  writeFileSync(join(dir, 'file'), '');
  t.throws(() => ensurePrivateFolder(join(dir, 'file')), { code: 'FOREIGN_HOME' });
  t.throws(() => ensurePrivateFolder(join(dir, 'file/below')), { code: 'FOREIGN_HOME' });
  t.doesNotThrow(() => checkPrivateFolder(join(dir, 'absent')));

  const home = join(dir, 'home');
  ensureHome(homePaths({ XCORE_HOME: home }));
  t.equal(modeOf(home), 0o700);
  t.equal(modeOf(dirname(homePaths({ XCORE_HOME: home }).controlSocket)), 0o700);
});

await t.test('a file is replaced whole, with its mode, or not at all', async (t) => {
  const dir = t.testdir();
  const path = join(dir, 'file');
  await writeFileAtomic(path, 'one', { mode: 0o600 });
  await writeFileAtomic(path, Buffer.from('two'), { mode: 0o640 });
  t.equal(readFileSync(path, 'utf8'), 'two');
  t.equal(modeOf(path), 0o640);
  await t.rejects(writeFileAtomic(path, 'three', { mode: 0o600, exclusive: true }), { code: 'EEXIST' });
  t.equal(readFileSync(path, 'utf8'), 'two');
  await writeFileAtomic(join(dir, 'new'), 'x', { mode: 0o600, exclusive: true });
  await t.rejects(writeFileAtomic(join(dir, 'absent/file'), 'x', { mode: 0o600 }), { code: 'ENOENT' });
  t.strictSame(readdirSync(dir).sort(), ['file', 'new'], 'no temporary file stays');
});

await t.test(
  'a log on a full disk takes nothing else with it',
  { skip: !existsSync('/dev/full') && 'no /dev/full here' },
  async (t) => {
    const log = createLogger({ level: 'info', file: '/dev/full' });
    const lines = Array.from({ length: 20 }, (_, n) => () => log.error({ n }, 'x'.repeat(10_000)));
    for (const line of lines) t.doesNotThrow(line);
  },
);

await t.test('the log is the user’s only and drops secrets', async (t) => {
  const file = join(t.testdir(), 'log/daemon.log');
  const log = createLogger({ level: 'info', file });
  log.info({ phrase: 'abandon abandon', options: { deviceSeed: 'feed' }, shard: 'abc' }, 'started');
  log.child({ part: 'net' }).warn({ err: new Error('lost') }, 'trouble');
  log.debug({}, 'not shown');
  t.ok(existsSync(file));
  t.equal(modeOf(file), 0o600);
  const text = readFileSync(file, 'utf8');
  t.match(text, /"shard":"abc"/);
  t.match(text, /"part":"net".*lost/);
  t.notMatch(text, /abandon|feed|not shown/);
  t.equal(logLevel({ XCORE_LOG: 'DEBUG' }, 'warn'), 'debug');
  t.equal(logLevel({ XCORE_LOG: 'loud' }, 'warn'), 'warn');
});

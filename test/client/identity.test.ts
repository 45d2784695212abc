// The identity file: made once, closed to others, and never half understood.

import { chmodSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import t from 'tap';
import { createIdentity, identityState, loadConfig, loadIdentity, saveConfig } from '../../src/client/identity.ts';
import { homePaths, type Paths } from '../../src/lib/paths.ts';

const PHRASE = `${'abandon '.repeat(23)}art`;

function newHome(t: { testdir(): string }): Paths {
  return homePaths({ XCORE_HOME: join(t.testdir(), 'home') });
}

await t.test('is made with a new phrase and comes back', async (t) => {
  const paths = newHome(t);
  t.equal(await identityState(paths), 'absent');
  await t.rejects(loadIdentity(paths), { code: 'NO_IDENTITY' });
  const made = await createIdentity(paths);
  t.equal(made.phrase.split(' ').length, 24);
  t.equal(made.deviceSeed.length, 32);
  t.strictSame(await loadIdentity(paths), made);
  t.equal(await identityState(paths), 'plain');
  t.equal(statSync(paths.identityFile).mode & 0o777, 0o600);
  t.equal(statSync(paths.config).mode & 0o777, 0o700);
});

await t.test('is made from given words, and not from wrong ones', async (t) => {
  const paths = newHome(t);
  await t.rejects(createIdentity(paths, { phrase: 'abandon' }), { code: 'BAD_PHRASE' });
  t.equal(await identityState(paths), 'absent');
  const made = await createIdentity(paths, { phrase: `  ${PHRASE.toUpperCase()}\n` });
  t.equal(made.phrase, PHRASE);
  const other = await createIdentity(homePaths({ XCORE_HOME: join(t.testdir(), 'other') }), { phrase: PHRASE });
  t.notOk(made.deviceSeed.equals(other.deviceSeed), 'each device has a seed of its own');
});

await t.test('is never overwritten, also when two make it at once', async (t) => {
  const paths = newHome(t);
  const results = await Promise.allSettled([createIdentity(paths), createIdentity(paths), createIdentity(paths)]);
  t.equal(results.filter((result) => result.status === 'fulfilled').length, 1);
  const before = readFileSync(paths.identityFile, 'utf8');
  await t.rejects(createIdentity(paths, { phrase: PHRASE }), { code: 'IDENTITY_EXISTS' });
  t.equal(readFileSync(paths.identityFile, 'utf8'), before);
  t.strictSame(readdirSync(paths.config), ['identity.json'], 'and nothing else is left');
});

await t.test('is refused with looser modes', async (t) => {
  const paths = newHome(t);
  await createIdentity(paths);
  for (const mode of [0o640, 0o604, 0o660]) {
    chmodSync(paths.identityFile, mode);
    await t.rejects(loadIdentity(paths), { code: 'UNSAFE_MODE', message: 'chmod 600' });
  }
  chmodSync(paths.identityFile, 0o600);
  chmodSync(paths.config, 0o711);
  await t.rejects(loadIdentity(paths), { code: 'UNSAFE_MODE', message: 'chmod 700' });
  chmodSync(paths.config, 0o700);
  await loadIdentity(paths);
});

await t.test('is refused when it cannot be understood, without quoting it', async (t) => {
  const paths = newHome(t);
  await createIdentity(paths, { phrase: PHRASE });
  const good = readFileSync(paths.identityFile, 'utf8');
  const bad = [
    '',
    'abandon',
    '[]',
    'null',
    '{}',
    '{"version":1}',
    good.replace('"version": 1', '"version": 2'),
    good.replace(/"deviceSeed": "../, '"deviceSeed": "'),
    good.slice(0, 50),
    ' '.repeat(70_000),
  ];
  for (const text of bad) {
    writeFileSync(paths.identityFile, text);
    const error = await loadIdentity(paths).then(
      () => null,
      (thrown: unknown) => thrown as Error & { code: string },
    );
    t.equal(error?.code, 'BAD_FORMAT', text.slice(0, 30));
    t.notMatch(inspect(error), /abandon/);
  }
});

await t.test('is locked with a passphrase', async (t) => {
  const paths = newHome(t);
  const made = await createIdentity(paths, { passphrase: 'correct horse' });
  t.equal(await identityState(paths), 'locked');
  const { locked, ...open } = JSON.parse(readFileSync(paths.identityFile, 'utf8')) as { locked: string };
  t.strictSame(open, { version: 1 });
  // in what is sealed, a short word comes by chance
  const sealed = Buffer.from(locked, 'base64');
  t.notOk(sealed.includes(made.phrase.split(' ').slice(0, 3).join(' ')));
  t.notOk(sealed.includes(made.deviceSeed.toString('hex').slice(0, 16)) || sealed.includes(made.deviceSeed));
  await t.rejects(loadIdentity(paths), { code: 'BAD_PASSPHRASE' });
  await t.rejects(
    loadIdentity(paths, async () => 'wrong'),
    { code: 'BAD_PASSPHRASE' },
  );
  t.strictSame(await loadIdentity(paths, async () => 'correct horse'), made);
});

await t.test('the config has defaults, comes back, and is refused when it is not understood', async (t) => {
  const paths = newHome(t);
  t.strictSame(await loadConfig(paths), { bridge: null });
  await saveConfig(paths, { bridge: '/ip4/127.0.0.1/tcp/1/p2p/x' });
  t.strictSame(await loadConfig(paths), { bridge: '/ip4/127.0.0.1/tcp/1/p2p/x' });
  await saveConfig(paths, { bridge: null, mirrors: 5 });
  t.strictSame(await loadConfig(paths), { bridge: null, mirrors: 5 });
  for (const text of ['nonsense', '{"version":9}', '{"version":1,"bridge":7}']) {
    writeFileSync(paths.configFile, text);
    await t.rejects(loadConfig(paths), { code: 'BAD_FORMAT' }, text);
  }
});

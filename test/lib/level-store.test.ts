// The store of the servers: batches side by side, and a disk that is full for a while.

import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openLevelStore } from '../../src/bridge/level-store.ts';
import { hasCode } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import type { Store } from '../../src/lib/store.ts';

const keyOf = (name: string): Buffer => Buffer.from(`k${name}`);
const ALL = { from: Buffer.from('k'), to: Buffer.from('l') };

async function namesIn(store: Store): Promise<string[]> {
  const names: string[] = [];
  for await (const [key] of store.range(ALL)) names.push(Buffer.from(key).toString().slice(1));
  return names;
}

await t.test('batches side by side are applied in their order, and as a whole', async (t) => {
  const store = await openLevelStore(t.testdir());
  t.teardown(() => store.close());
  await Promise.all(
    Array.from({ length: 500 }, (_, n) =>
      store.batch(
        [
          { key: keyOf(String(n)), value: Buffer.from('v') },
          { key: keyOf('last'), value: Buffer.from(String(n)) },
          ...(n > 0 ? [{ key: keyOf(String(n - 1)) }] : []),
        ],
        { sync: n % 100 === 0 },
      ),
    ),
  );
  t.strictSame(await namesIn(store), ['499', 'last']);
  t.equal(Buffer.from((await store.get(keyOf('last')))!).toString(), '499');
  t.equal(store.failure, undefined);
});

await t.test('a store without its CURRENT is not taken for a new one, and opens again with it', async (t) => {
  const dir = t.testdir();
  const [current, kept] = [join(dir, 'CURRENT'), join(dir, '..', 'kept')];
  t.teardown(() => rmSync(kept, { force: true }));
  const store = await openLevelStore(dir);
  await store.batch([{ key: keyOf('a'), value: Buffer.from('v') }], { sync: true });
  await store.close();
  renameSync(current, kept);
  const before = readdirSync(dir);
  const error = await openLevelStore(dir).catch((thrown: unknown) => thrown as Error);
  t.match(error, {
    code: 'BAD_FORMAT',
    message: /CURRENT .* is gone, and nothing was changed: put it back: echo MANIFEST-/,
  });
  t.strictSame(readdirSync(dir), before, 'nothing was changed');
  execFileSync('sh', ['-c', /echo [^;]*/.exec((error as Error).message)![0]]);
  t.strictSame(readFileSync(current), readFileSync(kept));
  const again = await openLevelStore(dir);
  t.strictSame(await namesIn(again), ['a']);
  await again.close();
  for (const name of readdirSync(dir)) if (!/^MANIFEST/.test(name)) rmSync(join(dir, name));
  for (const name of readdirSync(dir)) renameSync(join(dir, name), join(dir, 'MANIFEST-000001'));
  await (await openLevelStore(dir)).close();
  t.pass('a making that a crash cut short is begun anew');
});

await t.test(
  'a full disk takes nothing that was acknowledged, and is gone on with once there is room',
  { skip: process.getuid?.() !== 0 && 'only root mounts a small disk' },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'xc-store-'));
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const small = join(dir, 'small');
    mkdirSync(small);
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'none', small]).status !== 0) {
      return t.comment('no tmpfs here');
    }
    t.teardown(() => spawnSync('umount', ['-l', small]));
    const said: string[] = [];
    const log = { ...silentLogger, error: (_: object, message = '') => said.push(message) };
    const store = await openLevelStore(join(small, 'state'), log);
    t.teardown(() => store.close());

    const acknowledged: string[] = [];
    const refusals = new Set<string>();
    let next = 1000;
    const writeSome = (count: number): Promise<unknown> =>
      Promise.all(
        Array.from({ length: count }, async () => {
          const name = String((next += 1));
          try {
            await store.batch([{ key: keyOf(name), value: Buffer.alloc(3_000, name) }], { sync: true });
            acknowledged.push(name);
          } catch (error) {
            refusals.add(hasCode(error, 'EAGAIN') ? error.message : String(error));
          }
        }),
      );
    await writeSome(20);
    t.equal(acknowledged.length, 20);

    spawnSync('dd', ['if=/dev/zero', `of=${join(small, 'filler')}`, 'bs=4k']);
    for (let round = 0; round < 5; round += 1) await writeSome(10);
    t.strictSame([...refusals], ['the bridge can store nothing now: the local disk is full']);
    t.match(store.failure, { code: 'ENOSPC' });
    t.strictSame(said, [...refusals], 'which is logged once');
    t.strictSame(await namesIn(store), [...acknowledged].sort(), 'it can still be read');

    rmSync(join(small, 'filler'));
    const before = acknowledged.length;
    await writeSome(10);
    t.equal(acknowledged.length, before + 10);
    t.equal(store.failure, undefined);

    // As a killed process leaves it.
    cpSync(join(small, 'state'), join(dir, 'copy'), { recursive: true });
    const again = await openLevelStore(join(dir, 'copy'));
    t.teardown(() => again.close());
    const kept = new Set(await namesIn(again));
    t.strictSame(
      acknowledged.filter((name) => !kept.has(name)),
      [],
    );
  },
);

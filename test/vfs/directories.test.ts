import t from 'tap';
import { NO_BARRIER } from '../../src/tree/durability.ts';
import type { DirectoryEntry } from '../../src/vfs/filesystem.ts';
import { pickSeed, Random } from '../support/random.ts';
import { CALLER, openVolume, temporaryFolder } from '../support/volume.ts';
import type { OpenVolume, Scope } from '../support/volume.ts';

const IS_LONG = process.env['XCORE_TEST_LONG'] === '1';

t.setTimeout(IS_LONG ? 1_800_000 : 120_000);

async function opened(t: Scope, dir = temporaryFolder(t)): Promise<OpenVolume> {
  const volume = await openVolume(dir);
  t.teardown(() => volume.close().catch(() => undefined));
  return volume;
}

async function touch(volume: OpenVolume, parent: number, name: string): Promise<number> {
  return (await volume.vfs.mknod(parent, name, 0o100644, 0, CALLER)).ino;
}

/** All entries; the driver takes at most `taken` of each answer and comes back with the last cookie. */
async function list(
  volume: OpenVolume,
  ino: number,
  limit: number,
  taken = limit,
  plus = false,
): Promise<DirectoryEntry[]> {
  const handle = await volume.vfs.opendir(ino);
  const found: DirectoryEntry[] = [];
  for (let cookie = 0n; ;) {
    const entries = (await volume.vfs.readdir(ino, handle, cookie, limit, plus)).slice(0, taken);
    if (entries.length > limit) throw new RangeError('more than asked for');
    const last = entries.at(-1);
    if (last === undefined) break;
    found.push(...entries);
    cookie = last.cookie;
  }
  await volume.vfs.releasedir(ino, handle);
  return found;
}

const namesOf = (entries: readonly DirectoryEntry[]): string[] => entries.map(({ name }) => name).sort();

t.test('an empty directory holds . and .., whatever the limit', async (t) => {
  const volume = await opened(t);
  const dir = (await volume.vfs.mkdir(1, 'd', 0o755, CALLER)).ino;
  for (const limit of [1, 2, 3, 100]) {
    const entries = await list(volume, dir, limit, limit, true);
    t.same(
      entries.map(({ name, ino, type }) => [name, ino, type]),
      [
        ['.', dir, 0o040000],
        ['..', 1, 0o040000],
      ],
    );
  }
  await t.rejects(async () => volume.vfs.readdir(dir, 12_345, 0n, 10, false), { code: 'EBADF' });
  const file = await touch(volume, 1, 'f');
  t.throws(() => volume.vfs.opendir(file), { code: 'ENOTDIR' });
  t.throws(() => volume.vfs.opendir(999), { code: 'ENOENT' });
});

t.test('20,000 entries come once each, with any limit, committed or not', async (t) => {
  const volume = await opened(t);
  const dir = (await volume.vfs.mkdir(1, 'd', 0o755, CALLER)).ino;
  const inos = new Map<string, number>([
    ['.', dir],
    ['..', 1],
  ]);
  for (let n = 0; n < 20_000; n++) inos.set(`file-${n}`, await touch(volume, dir, `file-${n}`));
  const expected = [...inos.keys()].sort();
  for (const [limit, taken, plus] of [
    [2_048, 2_048, true],
    [300, 170, false],
    [50_000, 50_000, false],
  ] as const) {
    const entries = await list(volume, dir, limit, taken, plus);
    t.same(namesOf(entries), expected, `limit ${limit}, ${taken} taken`);
    t.ok(entries.every(({ name, ino }) => inos.get(name) === ino));
    t.ok(entries.every(({ cookie }) => cookie > 0n && cookie < 2n ** 63n));
    t.ok(entries.every(({ cookie }, i) => i === 0 || cookie > (entries[i - 1]?.cookie ?? 0n)));
    if (plus) t.ok(entries.every(({ name, attributes, ino }) => name.startsWith('.') || attributes?.ino === ino));
    else t.ok(entries.every(({ attributes }) => attributes === undefined));
  }
});

t.test('a listing goes on from any cookie, also through a new handle, and begins anew from 0', async (t) => {
  const volume = await opened(t);
  for (let n = 0; n < 300; n++) await touch(volume, 1, `f${n}`);
  const all = await list(volume, 1, 1_000);
  const handle = await volume.vfs.opendir(1);
  for (const at of [0, 1, 2, 150, 299, 301, 40, 40]) {
    const from = all[at]?.cookie ?? 0n;
    t.same(await volume.vfs.readdir(1, handle, from, 1_000, false), all.slice(at + 1), `from entry ${at}`);
  }
  t.same(await volume.vfs.readdir(1, handle, 0n, 1_000, false), all);
  t.same(await volume.vfs.readdir(1, handle, 2n ** 63n - 1n, 10, false), [], 'past all entries');
  await touch(volume, 1, 'later');
  t.equal((await volume.vfs.readdir(1, handle, 0n, 1_000, false)).length, all.length + 1, 'rewinddir sees new names');
  await volume.vfs.releasedir(1, handle);
  t.equal(volume.vfs.openHandles, 0);
});

t.test('directories that nobody opened are listed as well, many of them by turns', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const dirs: number[] = [];
  for (let d = 0; d < 20; d++) {
    const { ino } = await vfs.mkdir(1, `d${d}`, 0o755, CALLER);
    dirs.push(ino);
    for (let n = 0; n < 50; n++) await touch(volume, ino, `f${n}`);
  }
  const whole = await list(volume, dirs[0] ?? 0, 1_000);
  const found = new Map<number, DirectoryEntry[]>(dirs.map((ino) => [ino, []]));
  for (let isOver = false; !isOver;) {
    isOver = true;
    for (const [ino, entries] of found) {
      const more = (await vfs.readdir(ino, 0, entries.at(-1)?.cookie ?? 0n, 20, false)).slice(0, 15);
      entries.push(...more);
      if (more.length > 0) isOver = false;
    }
  }
  for (const entries of found.values()) t.same(namesOf(entries), namesOf(whole));
  t.same(await vfs.readdir(dirs[0] ?? 0, 0, whole[20]?.cookie ?? 0n, 1_000, false), whole.slice(21), 'from anywhere');
  t.equal(vfs.openHandles, 0);
});

t.test('a listing is complete while changes wait to be committed, and when they cannot be', async (t) => {
  const volume = await opened(t);
  const { vfs, store } = volume;
  const expected: string[] = ['.', '..'];
  const add = async (name: string): Promise<void> => {
    await touch(volume, 1, name);
    expected.push(name);
  };
  const remove = async (name: string): Promise<void> => {
    await vfs.unlink(1, name);
    expected.splice(expected.indexOf(name), 1);
  };
  for (let n = 0; n < 300; n++) await add(`committed-${n}`);
  await store.commit();
  const entered = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  store.setBarrier({
    ...NO_BARRIER,
    wait: () => {
      entered.resolve();
      return gate.promise;
    },
  });
  for (let n = 0; n < 100; n++) await add(`in-flight-${n}`);
  for (let n = 0; n < 50; n++) await remove(`committed-${n}`);
  const commit = store.commit();
  await entered.promise;
  for (let n = 0; n < 100; n++) await add(`dirty-${n}`);
  for (let n = 0; n < 50; n++) await remove(`in-flight-${n}`);
  for (let n = 50; n < 100; n++) await remove(`committed-${n}`);
  await add('committed-7');
  for (const limit of [1_000, 37]) {
    const entries = await list(volume, 1, limit, limit, true);
    t.same(namesOf(entries), expected.toSorted());
    t.ok(entries.every(({ cookie }, i) => i === 0 || cookie > (entries[i - 1]?.cookie ?? 0n)));
  }
  gate.reject(new Error('disk'));
  await t.rejects(commit);
  t.same(namesOf(await list(volume, 1, 100)), expected.toSorted(), 'nothing can be committed');
  store.setBarrier(NO_BARRIER);
  await store.commit();
  t.same(namesOf(await list(volume, 1, 100)), expected.toSorted(), 'all is committed');
});

t.test('while names come and go, what stays is seen once and what is gone is not', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const volume = await opened(t);
  const { vfs } = volume;
  for (let n = 0; n < 2_000; n++) await touch(volume, 1, `stay-${n}`);
  const going: string[] = [];
  for (let n = 0; n < 500; n++) {
    going.push(`go-${n}`);
    await touch(volume, 1, `go-${n}`);
  }
  const handle = await vfs.opendir(1);
  const seen: string[] = [];
  const gone = new Set<string>();
  let ghosts = 0;
  for (let cookie = 0n; ;) {
    const entries = await vfs.readdir(1, handle, cookie, random.between(5, 200), true);
    const last = entries.at(-1);
    if (last === undefined) break;
    cookie = last.cookie;
    for (const { name } of entries) {
      seen.push(name);
      if (gone.has(name)) ghosts++;
    }
    for (let n = 0; n < 20 && going.length > 0; n++) {
      const name = going.splice(random.below(going.length), 1)[0] ?? '';
      if (n % 3 === 0) await vfs.rename(1, name, 1, `moved-${name}`, 0);
      else await vfs.unlink(1, name);
      gone.add(name);
      await touch(volume, 1, `new-${seen.length}-${n}`);
    }
    if (random.below(3) === 0) await volume.store.commit();
  }
  t.equal(ghosts, 0);
  t.equal(new Set(seen).size, seen.length, 'nothing twice');
  t.equal(seen.filter((name) => name.startsWith('stay-')).length, 2_000);
  await vfs.releasedir(1, handle);
});

t.test('a directory can be emptied while it is listed', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const dir = (await vfs.mkdir(1, 'd', 0o755, CALLER)).ino;
  for (let n = 0; n < 3_000; n++) await touch(volume, dir, `f${n}`);
  const handle = await vfs.opendir(dir);
  for (let cookie = 0n; ;) {
    const entries = (await vfs.readdir(dir, handle, cookie, 256, false)).slice(0, 100);
    const last = entries.at(-1);
    if (last === undefined) break;
    cookie = last.cookie;
    for (const { name } of entries) if (!name.startsWith('.')) await vfs.unlink(dir, name);
  }
  await vfs.releasedir(dir, handle);
  t.equal(volume.tree.inode(dir)?.entries, 0);
  await vfs.rmdir(1, 'd');
  t.equal(volume.tree.counters.inodes, 1);
});

t.test('a million names: each is listed once', { skip: IS_LONG ? false : 'XCORE_TEST_LONG=1 only' }, async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const count = 1_000_000;
  const dir = (await vfs.mkdir(1, 'd', 0o755, CALLER)).ino;
  for (let n = 0; n < count; n++) await vfs.mknod(dir, `name-${n}`, 0o100644, 0, CALLER);
  const seen = new Uint8Array(count);
  const handle = await vfs.opendir(dir);
  let listed = 0;
  let repeated = 0;
  for (let cookie = 2n; ;) {
    const entries = await vfs.readdir(dir, handle, cookie, 2_000, true);
    const last = entries.at(-1);
    if (last === undefined) break;
    cookie = last.cookie;
    for (const { name } of entries) {
      const n = Number(name.slice('name-'.length));
      repeated += seen[n] ?? 1;
      seen[n] = 1;
      listed++;
    }
  }
  await vfs.releasedir(dir, handle);
  t.equal(listed, count);
  t.equal(repeated, 0);
});

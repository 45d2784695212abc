// A local disk that fails at any call: the caller is told, what was acknowledged stays, and the volume
// goes on once the disk does.

import { constants, tmpdir } from 'node:os';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Hasher } from '../../src/cache/hasher.ts';
import { errnoOf } from '../../src/lib/errors.ts';
import { pickSeed, Random } from '../support/random.ts';
import { findingsIn } from '../support/findings.ts';
import { CALLER, openVolume, readAll } from '../support/volume.ts';
import type { OpenVolume } from '../support/volume.ts';
import { WatchedDisk } from '../support/watched-disk.ts';
import type { Point } from '../support/watched-disk.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const ROUNDS = isLong ? 60 : 7;
const FILES = 14;
type Code = 'ENOSPC' | 'EIO' | 'EROFS';

t.setTimeout(isLong ? 3_600_000 : 600_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);
const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'xc-faults-'));
t.teardown(() => rmSync(root, { recursive: true, force: true }));
const hasher = new Hasher();
t.teardown(() => hasher.stop());

function failure(code: Code): Error {
  return Object.assign(new Error(`${code}: injected`), { code, errno: -constants.errno[code] });
}

/** A volume on a disk that can fail, and what was acknowledged on it. */
class Bench {
  readonly dir: string;
  readonly watched: WatchedDisk;
  readonly acknowledged = new Map<string, Buffer>();
  readonly told: (Error | null)[] = [];
  readonly errnos = new Set<number>();
  volume!: OpenVolume;
  #made = 0;

  constructor(name: string) {
    this.dir = join(root, name);
    mkdirSync(this.dir);
    this.watched = new WatchedDisk(this.dir);
  }

  async open(): Promise<void> {
    const { disk, guard } = this.watched;
    this.volume = await openVolume(this.dir, { disk, guard, hasher, onHealth: (error) => this.told.push(error) });
    this.volume.segments.setSize(48 * 1024);
  }

  /** Writes a file; whether its close() or fsync() succeeded. */
  async write(synced: boolean): Promise<boolean> {
    const { vfs } = this.volume;
    const name = `f${this.#made++}`;
    const content = random.bytes(random.between(100, 20_000));
    try {
      const { attributes, file } = await vfs.create(1, name, 0o100644, 2, CALLER);
      try {
        await vfs.write(attributes.ino, file.handle, 0, content, false);
        if (synced) await vfs.fsync();
        else await vfs.flush(attributes.ino, file.handle);
        this.acknowledged.set(name, content);
        return true;
      } finally {
        await vfs.release(attributes.ino, file.handle);
      }
    } catch (error) {
      this.errnos.add(errnoOf(error));
      return false;
    }
  }

  /** Names of acknowledged files that are not as they should be. */
  async wrong(): Promise<string[]> {
    const wrong: string[] = [];
    for (const [name, content] of this.acknowledged) {
      const found = await this.volume.vfs.lookup(1, name);
      if (found === null) wrong.push(`${name} is gone`);
      else if (!(await readAll(this.volume.vfs, found.ino)).equals(content)) wrong.push(`${name} differs`);
    }
    return wrong;
  }

  /** As wrong(), after a restart, with what a check of the index finds. */
  async wrongAfterRestart(): Promise<string[]> {
    await this.volume.close();
    this.volume = await openVolume(this.dir, { hasher });
    const wrong = [...(await this.wrong()), ...(await findingsIn(this.volume))];
    if (this.volume.lost.length > 0) wrong.push('bytes were lost');
    await this.volume.close();
    rmSync(this.dir, { recursive: true });
    return wrong;
  }
}

/** Points of a run in which nothing fails. */
async function countPoints(): Promise<number> {
  const bench = new Bench('count');
  await bench.open();
  for (let n = 0; n < FILES; n++) await bench.write(n % 4 === 3);
  const { points } = bench.watched;
  t.strictSame(await bench.wrongAfterRestart(), []);
  return points;
}

const points = await countPoints();
const isSync = ({ call }: Point): boolean => call.endsWith('sync');

for (const code of ['ENOSPC', 'EIO', 'EROFS'] as const) {
  await t.test(`${code} at one call is told to somebody or heals, and nothing acknowledged is lost`, async (t) => {
    for (let round = 0; round < ROUNDS; round++) {
      const bench = new Bench(`${code}-${round}`);
      const at = random.between(4, points);
      await bench.open();
      let failed = '';
      bench.watched.onPoint = ({ number, call }) => {
        if (number !== at) return;
        failed = call;
        throw failure(code);
      };
      // how many calls there are by then depends on the sizes, and on what goes on beside
      for (let n = 0; n < FILES || failed === ''; n++) await bench.write(n % 4 === 3);
      const what = `point ${at}, ${failed}`;
      await bench.volume.store.commit(true).catch(() => undefined);
      await bench.volume.store.commit(true);
      t.ok(
        [...bench.errnos].every((errno) => errno === constants.errno[code]),
        `${what}: the errno`,
      );
      t.strictSame(await bench.wrong(), [], `${what}: what was acknowledged`);
      t.ok(await bench.write(true), `${what}: the volume goes on`);
      t.strictSame(await bench.wrongAfterRestart(), [], `${what}: after a restart`);
    }
  });

  await t.test(`${code} from a call on: changes fail with it, reads go on, and all is well when it ends`, async (t) => {
    for (let round = 0; round < ROUNDS; round++) {
      const bench = new Bench(`${code}-on-${round}`);
      const at = random.between(4, points);
      // of every other disk only the syncs fail
      const syncsOnly = round % 2 === 1;
      await bench.open();
      let isFailing = false;
      bench.watched.onPoint = (point) => {
        isFailing ||= point.number >= at;
        if (isFailing && (!syncsOnly || isSync(point))) throw failure(code);
      };
      for (let n = 0; n < FILES || !isFailing; n++) await bench.write(n % 4 === 3);
      const what = `from point ${at}${syncsOnly ? ', syncs' : ''}`;
      t.notOk(await bench.write(true), `${what}: fsync fails`);
      if (!syncsOnly) t.notOk(await bench.write(false), `${what}: close fails`);
      t.strictSame([...bench.errnos], [constants.errno[code]], `${what}: with the errno`);
      t.equal(errnoOf(bench.told.at(-1)), constants.errno[code], `${what}: it is told`);
      t.strictSame(await bench.wrong(), [], `${what}: what was acknowledged can be read`);
      bench.watched.onPoint = () => undefined;
      await bench.volume.store.commit();
      t.equal(bench.told.at(-1), null, `${what}: that it is over is told`);
      t.ok(await bench.write(true), `${what}: the volume goes on`);
      t.strictSame(await bench.wrong(), [], `${what}: nothing went meanwhile`);
      t.strictSame(await bench.wrongAfterRestart(), [], `${what}: after a restart`);
    }
  });
}

await t.test('reads wait while the index is opened anew, and are EIO when that takes too long', async (t) => {
  const dir = join(root, 'reopened');
  mkdirSync(dir);
  const content = random.bytes(5_000);
  const names = Array.from({ length: 30 }, (_item, n) => `name ${n}`);
  const before = await openVolume(dir, { hasher });
  const { attributes, file } = await before.vfs.create(1, 'file', 0o100644, 2, CALLER);
  const { ino } = attributes;
  await before.vfs.write(ino, file.handle, 0, content, false);
  await before.vfs.setxattr(ino, 'user.name', Buffer.from('value'), 0);
  const link = await before.vfs.symlink(1, 'link', Buffer.from('target'), CALLER);
  const folder = await before.vfs.mkdir(1, 'folder', 0o755, CALLER);
  for (const name of names) await before.vfs.mknod(folder.ino, name, 0o100644, 0, CALLER);
  await before.close();

  let isFailing = false;
  let [begun, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const guard = {
    before: () => undefined,
    // LevelDB has seen it, and nobody knows how much of it is on the disk
    after: () => {
      if (isFailing) throw failure('EIO');
    },
    reopening: () => {
      begun.resolve();
      return held.promise;
    },
  };
  let volume = await openVolume(dir, { hasher, guard, reopenDeadlineMs: 60_000 });
  let { vfs, store } = volume;
  const listing = await vfs.opendir(folder.ino);
  const first = await vfs.readdir(folder.ino, listing, 0n, 5, false);
  await store.commit();
  isFailing = true;
  await vfs.mknod(1, 'more', 0o100644, 0, CALLER);
  await t.rejects(store.commit(), { code: 'EIO' });
  isFailing = false;

  const committed = store.commit();
  await begun.promise;
  let answers = 0;
  const read = async (): Promise<Buffer> => {
    const { handle } = await vfs.open(ino, 0);
    return Buffer.concat(await vfs.read(ino, handle, 0, 10_000));
  };
  const rest = async (): Promise<string[]> => {
    const later = await vfs.readdir(folder.ino, listing, first.at(-1)!.cookie, 100, true);
    return [...first, ...later].map(({ name }) => name).filter((name) => !name.startsWith('.'));
  };
  const looks = [
    async () => (await vfs.lookup(1, 'file'))?.ino,
    async () => (await vfs.getattr(link.ino)).mode & 0o170000,
    async () => (await vfs.readlink(link.ino)).toString(),
    async () => (await vfs.getxattr(ino, 'user.name')).toString(),
    async () => vfs.listxattr(ino),
    async () => vfs.seek(ino, 0, true),
    async () => (await read()).equals(content),
    async () => (await rest()).sort(),
  ].map(async (look) => {
    const answer = await look();
    answers++;
    return answer;
  });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(answers, 0, 'nobody is told anything meanwhile');
  held.resolve();
  t.strictSame(await Promise.all(looks), [
    ino,
    0o120000,
    'target',
    'value',
    ['user.name'],
    content.length,
    true,
    [...names].sort(),
  ]);
  await committed;
  await volume.close();

  volume = await openVolume(dir, { hasher, guard, reopenDeadlineMs: 200 });
  ({ vfs, store } = volume);
  [begun, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await store.commit();
  isFailing = true;
  await vfs.mknod(1, 'again', 0o100644, 0, CALLER);
  await t.rejects(store.commit(), { code: 'EIO' });
  isFailing = false;
  const again = store.commit();
  await begun.promise;
  const uncached = names[7]!;
  await t.rejects(async () => vfs.lookup(folder.ino, uncached), { code: 'EIO' }, 'after the deadline');
  await t.rejects(async () => vfs.lookup(folder.ino, uncached), { code: 'EIO' }, 'and at once from then on');
  held.resolve();
  await again;
  t.ok(await vfs.lookup(folder.ino, uncached));
  t.ok(await vfs.lookup(1, 'again'));
  t.strictSame(await findingsIn(volume), []);
  await volume.close();
});

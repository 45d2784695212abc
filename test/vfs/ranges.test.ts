// fallocate, lseek and copy_file_range on the filesystem itself: what files show, and what is stored for it.

import t from 'tap';
import { pickSeed, Random } from '../support/random.ts';
import { CALLER, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume } from '../support/volume.ts';

const ROOT = { uid: 0, gid: 0, pid: 1 };
const KEEP = 1;
const PUNCH = 2 | KEEP;
const ZERO = 16;
const MIB = 2 ** 20;
const MAX = 2 ** 44;

async function opened(t: { teardown(handler: () => unknown): void }): Promise<OpenVolume> {
  const volume = await openVolume(temporaryFolder(t));
  t.teardown(() => volume.close());
  return volume;
}

/** Bytes that the shards of a volume count as referred to. */
function liveBytes({ tree }: OpenVolume): number {
  let sum = 0;
  for (let shard = 1; shard < tree.counters.nextShard; shard++) sum += tree.shard(shard)?.liveBytes ?? 0;
  return sum;
}

t.test('fallocate: sizes, holes, zeros and what it refuses', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const data = new Random('fallocate').bytes(5 * MIB);
  const file = await writeFileAt(vfs, 1, 'f', data);
  await vfs.fallocate(file, 0, 0, 1, CALLER);
  t.equal((await vfs.getattr(file)).sizeBytes, data.length, 'inside it changes nothing');
  await vfs.fallocate(file, KEEP, 0, 8 * MIB, CALLER);
  t.equal((await vfs.getattr(file)).sizeBytes, data.length, 'KEEP_SIZE');
  await vfs.fallocate(file, 0, 5 * MIB, MIB, CALLER);
  t.equal((await vfs.getattr(file)).sizeBytes, 6 * MIB, 'a longer file');

  const before = liveBytes(volume);
  await vfs.fallocate(file, PUNCH, MIB, 2 * MIB, CALLER);
  data.fill(0, MIB, 3 * MIB);
  await vfs.fallocate(file, ZERO | KEEP, 4 * MIB, 10 * MIB, CALLER);
  data.fill(0, 4 * MIB);
  t.equal(before - liveBytes(volume), 3 * MIB, 'holes take no room');
  t.ok((await readAll(vfs, file)).equals(Buffer.concat([data, Buffer.alloc(MIB)])));
  t.equal((await vfs.getattr(file)).blocks * 512, 2 * MIB);
  await vfs.fallocate(file, ZERO, 5 * MIB, 2 * MIB, CALLER);
  t.equal((await vfs.getattr(file)).sizeBytes, 7 * MIB, 'ZERO_RANGE may make a file longer');
  await vfs.fallocate(file, PUNCH, 0, MAX, CALLER);
  t.match(await vfs.getattr(file), { sizeBytes: 7 * MIB, blocks: 0 });
  t.equal(liveBytes(volume), 0);

  for (const [mode, offset, length, code] of [
    [PUNCH & ~KEEP, 0, 1, 'EOPNOTSUPP'],
    [PUNCH | ZERO, 0, 1, 'EOPNOTSUPP'],
    [8, 0, MIB, 'EOPNOTSUPP'],
    [32, 0, MIB, 'EOPNOTSUPP'],
    [0, 0, 0, 'EINVAL'],
    [0, MAX, 1, 'EFBIG'],
    [0, 0, 2 ** 43, 'ENOSPC'],
  ] as const) {
    t.throws(() => vfs.fallocate(file, mode, offset, length, CALLER), { code }, `mode ${mode}`);
  }
  t.throws(() => vfs.fallocate(1, 0, 0, 1, CALLER), { code: 'EISDIR' });
});

t.test('a change of content takes setuid and capabilities away', async (t) => {
  const { vfs } = await opened(t);
  const file = await writeFileAt(vfs, 1, 'f', Buffer.alloc(10, 'x'));
  const other = await writeFileAt(vfs, 1, 'g', Buffer.alloc(10, 'y'));
  for (const [what, call] of [
    ['fallocate', () => vfs.fallocate(file, PUNCH, 0, 1, CALLER)],
    ['copy', () => vfs.copyRange(other, 0, file, 0, 5, CALLER)],
  ] as const) {
    await vfs.setattr(file, { mode: 0o6755 });
    await vfs.setxattr(file, 'security.capability', Buffer.from('cap'), 0);
    await call();
    t.equal((await vfs.getattr(file)).mode & 0o7777, 0o755, what);
    t.strictSame(await vfs.listxattr(file), [], what);
  }
  await vfs.setattr(file, { mode: 0o6755 });
  await vfs.fallocate(file, PUNCH, 0, 1, ROOT);
  t.equal((await vfs.getattr(file)).mode & 0o7777, 0o6755, 'root may');
  await vfs.setxattr(file, 'security.capability', Buffer.from('cap'), 0);
  await vfs.write(file, 0, 0, Buffer.from('z'), false);
  t.strictSame(await vfs.listxattr(file), [], 'a write takes capabilities away');
  await vfs.setxattr(file, 'security.capability', Buffer.from('cap'), 0);
  await vfs.setattr(file, { uid: 1 });
  t.strictSame(await vfs.listxattr(file), [], 'and so does a new owner');
});

t.test('holes and data are found, also terabytes apart', async (t) => {
  const { vfs, store } = await opened(t);
  const file = await writeFileAt(vfs, 1, 'f', Buffer.alloc(3 * MIB, 'x'));
  t.equal(await vfs.seek(file, 0, true), 3 * MIB, 'the end counts as a hole');
  t.equal(await vfs.seek(file, 5, false), 5);
  await vfs.fallocate(file, PUNCH, MIB, MIB, CALLER);
  t.equal(await vfs.seek(file, 0, true), MIB);
  t.equal(await vfs.seek(file, MIB + 7, true), MIB + 7);
  t.equal(await vfs.seek(file, MIB, false), 2 * MIB);
  t.equal(await vfs.seek(file, 2 * MIB, true), 3 * MIB);
  t.throws(() => vfs.seek(file, 3 * MIB, true), { code: 'ENXIO' });
  t.throws(() => vfs.seek(file, 3 * MIB, false), { code: 'ENXIO' });
  await vfs.write(file, 0, 8 * 2 ** 40, Buffer.from('far'), false);
  t.equal(await vfs.seek(file, 3 * MIB, false), 8 * 2 ** 40, 'not committed yet');
  await store.commit();
  t.equal(await vfs.seek(file, 3 * MIB, false), 8 * 2 ** 40);
  await vfs.setattr(file, { sizeBytes: 12 * 2 ** 40 });
  t.equal(await vfs.seek(file, 8 * 2 ** 40, true), 8 * 2 ** 40 + 3);
  await t.rejects(async () => vfs.seek(file, 8 * 2 ** 40 + 3, false), { code: 'ENXIO' }, 'no data follows');
});

t.test('a copy shares what is stored, and each file keeps its bytes', async (t) => {
  const volume = await opened(t);
  const { vfs, tree } = volume;
  const data = new Random('copy').bytes(7 * MIB + 123);
  const from = await writeFileAt(vfs, 1, 'from', data);
  const shards = tree.counters.nextShard;
  const to = await writeFileAt(vfs, 1, 'to', Buffer.alloc(0));
  t.equal(await vfs.copyRange(from, 0, to, 0, 2 ** 40, CALLER), data.length);
  t.equal(tree.counters.nextShard, shards, 'nothing was written');
  t.equal(liveBytes(volume), 2 * data.length, 'live bytes count for both');
  t.ok((await readAll(vfs, to)).equals(data));
  t.equal((await vfs.getattr(to)).blocks, (await vfs.getattr(from)).blocks);

  await vfs.write(from, 0, MIB, Buffer.from('changed'), false);
  t.ok((await readAll(vfs, to)).equals(data), 'a change of one is none of the other');
  await vfs.unlink(1, 'from');
  await vfs.settled();
  t.ok((await readAll(vfs, to)).equals(data), 'nor is its end');
  t.equal(liveBytes(volume), data.length);

  t.equal(await vfs.copyRange(to, data.length, to, 0, 5, CALLER), 0, 'at the end there is nothing');
  t.throws(() => vfs.copyRange(to, 0, to, 100, 101, CALLER), { code: 'EINVAL' }, 'overlapping');
  t.equal(await vfs.copyRange(to, 0, to, 8 * MIB, 100, CALLER), 100, 'inside one file');
  t.throws(() => vfs.copyRange(to, 0, to, MAX - 1, 100, CALLER), { code: 'EFBIG' });
  t.throws(() => vfs.copyRange(to, 0, 1, 0, 100, CALLER), { code: 'EISDIR' });
  await vfs.unlink(1, 'to');
  await vfs.settled();
  t.equal(liveBytes(volume), 0);
});

t.test('10 GiB are copied without being read or written', async (t) => {
  const volume = await opened(t);
  const { vfs, tree } = volume;
  const GIB = 2 ** 30;
  const from = await writeFileAt(vfs, 1, 'from', new Random('big').bytes(4 * MIB));
  for (let size = 4 * MIB; size < 10 * GIB; size *= 2) {
    await vfs.copyRange(from, 0, from, size, Math.min(size, 10 * GIB - size), CALLER);
  }
  const to = await writeFileAt(vfs, 1, 'to', Buffer.alloc(0));
  const shards = tree.counters.nextShard;
  let done = 0;
  const start = performance.now();
  while (done < 10 * GIB) done += await vfs.copyRange(from, done, to, done, 2 * GIB, CALLER);
  t.comment(`10 GiB in ${Math.round(performance.now() - start)} ms`);
  t.equal(tree.counters.nextShard, shards);
  t.match(await vfs.getattr(to), { sizeBytes: 10 * GIB, blocks: (10 * GIB) / 512 });
  await vfs.unlink(1, 'to');
  await vfs.unlink(1, 'from');
  await vfs.settled();
  t.equal(liveBytes(volume), 0);
});

t.test('random ranges equal an array of bytes', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const volume = await opened(t);
  const { vfs } = volume;
  const names = ['a', 'b', 'c'];
  const files = await Promise.all(names.map((name) => writeFileAt(vfs, 1, name, Buffer.alloc(0))));
  const contents: Buffer[] = files.map(() => Buffer.alloc(0));
  const grow = (n: number, size: number): Buffer => {
    const old = contents[n] as Buffer;
    const grown = size > old.length ? Buffer.concat([old, Buffer.alloc(size - old.length)]) : old;
    contents[n] = grown;
    return grown;
  };
  for (let step = 0; step < 3_000; step++) {
    const n = random.below(files.length);
    const file = files[n] as number;
    const offset = random.below(5 * MIB);
    const length = random.pick([1, 5_000, 100_000, MIB]) + random.below(1_000);
    const size = (contents[n] as Buffer).length;
    const what = random.below(6);
    if (what === 0) {
      const data = random.bytes(Math.min(length, MIB));
      await vfs.write(file, 0, offset, data, false);
      data.copy(grow(n, offset + data.length), offset);
    } else if (what === 1) {
      await vfs.fallocate(file, PUNCH, offset, length, CALLER);
      contents[n]?.fill(0, Math.min(offset, size), Math.min(offset + length, size));
    } else if (what === 2) {
      await vfs.fallocate(file, ZERO, offset, length, CALLER);
      grow(n, offset + length).fill(0, offset, offset + length);
    } else if (what === 3) {
      const cut = random.below(6 * MIB);
      await vfs.setattr(file, { sizeBytes: cut });
      contents[n] = Buffer.from(grow(n, cut).subarray(0, cut));
    } else {
      const m = random.below(files.length);
      const at = random.below(5 * MIB);
      const wanted = Math.max(0, Math.min(length, size - offset));
      if (m === n && offset < at + wanted && at < offset + wanted) continue;
      const source = Buffer.from((contents[n] as Buffer).subarray(offset, offset + wanted));
      t.equal(await vfs.copyRange(file, offset, files[m] as number, at, length, CALLER), wanted);
      if (wanted > 0) source.copy(grow(m, at + wanted), at);
    }
    if (step % 300 !== 0) continue;
    for (const [k, ino] of files.entries()) {
      const content = contents[k] as Buffer;
      if (!(await readAll(vfs, ino)).equals(content)) t.fail(`${names[k]} differs at step ${step}`);
      const inode = await vfs.getattr(ino);
      t.equal(inode.sizeBytes, content.length);
    }
    t.equal(liveBytes(volume), volume.tree.counters.storedBytes, 'shards and files count the same bytes');
  }
});

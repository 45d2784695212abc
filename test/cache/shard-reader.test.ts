import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { ARRIVED_SHARDS } from '../../src/cache/arrived-shards.ts';
import { ReadAhead } from '../../src/cache/read-ahead.ts';
import { RangeWidth } from '../../src/cache/range-width.ts';
import { fileSizeOf } from '../../src/cache/shard-files.ts';
import { LEAF_SIZE_BYTES, MAX_SHARD_SIZE_BYTES } from '../../src/crypto/merkle.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { DiskPatience } from '../../src/lib/resident-read.ts';
import { pickSeed, Random } from '../support/random.ts';
import { bytesOf, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume, Scope, VolumeOptions } from '../support/volume.ts';

const MIB = 2 ** 20;

async function opened(t: Scope, dir: string, options: VolumeOptions = {}): Promise<OpenVolume> {
  const volume = await openVolume(dir, options);
  t.teardown(() => volume.close().catch(() => undefined));
  return volume;
}

/** One sealed file of random bytes in a volume that was closed; its shards are on the host too if `durable`. */
async function prepared(
  t: Scope,
  random: Random,
  sizeBytes: number,
  durable: boolean,
): Promise<{ dir: string; ino: number; data: Buffer }> {
  const dir = temporaryFolder(t);
  const volume = await opened(t, dir);
  const data = random.bytes(sizeBytes);
  const ino = await writeFileAt(volume.vfs, 1, 'a', data);
  await volume.segments.seal();
  if (durable) await volume.upload();
  await volume.close();
  return { dir, ino, data };
}

/** Opens a volume without local copies. */
async function emptied(t: Scope, dir: string, options: VolumeOptions = {}): Promise<OpenVolume> {
  rmSync(join(dir, 'cache'), { recursive: true });
  return opened(t, dir, options);
}

async function rangeOf(
  volume: OpenVolume,
  shard: number,
  offset: number,
  length: number,
  whole = false,
  signal?: AbortSignal,
): Promise<Buffer> {
  return await volume.reader.read(shard, offset, length, whole, signal);
}

/** Bytes of all files in the cache folder. */
async function bytesOnDisk(dir: string): Promise<number> {
  let sum = 0;
  for (const name of await readdir(join(dir, 'cache'), { recursive: true })) {
    const stat = statSync(join(dir, 'cache', name), { throwIfNoEntry: false });
    if (stat?.isFile() === true) sum += stat.size;
  }
  return sum;
}

const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

t.test('any range of a local shard reads as it was written, from disk and from memory', async (t) => {
  const size = 5 * LEAF_SIZE_BYTES + 77;
  const { dir, data } = await prepared(t, random, size, false);
  const volume = await opened(t, dir);
  const edges = [
    0,
    1,
    15,
    16,
    17,
    LEAF_SIZE_BYTES - 1,
    LEAF_SIZE_BYTES,
    LEAF_SIZE_BYTES + 1,
    size - 78,
    size - 77,
    size - 1,
  ];
  let wrong = 0;
  for (const from of edges) {
    for (const to of [...edges, size].filter((end) => end > from)) {
      for (let again = 0; again < 2; again++) {
        if (!(await rangeOf(volume, 1, from, to - from)).equals(data.subarray(from, to))) wrong++;
      }
    }
    volume.reader.forget(1);
  }
  t.equal(wrong, 0);
  t.notOk(volume.reader.read(1, 10, 10, false) instanceof Buffer, 'forgotten');
  await rangeOf(volume, 1, 10, 10);
  t.ok(volume.reader.read(1, 0, 100, false) instanceof Buffer, 'at once when it is in memory');
});

t.test('a changed byte of a local file never reaches a reader', async (t) => {
  const size = 3 * LEAF_SIZE_BYTES + 100;
  for (const durable of [true, false]) {
    const { dir, ino, data } = await prepared(t, random, size, durable);
    const volume = await opened(t, dir);
    const path = volume.files.path(1);
    const good = readFileSync(path);
    t.equal(good.length, fileSizeOf(size));
    const positions = [0, LEAF_SIZE_BYTES, size - 1, size, good.length - 1];
    for (let n = 0; n < 40; n++) positions.push(random.below(good.length));
    let wrong = 0;
    let refused = 0;
    for (const at of positions) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ (1 << random.below(8));
      writeFileSync(path, bad);
      volume.reader.forget(1);
      volume.files.add(1, good.length, !durable);
      const before = volume.damaged.length;
      const read = await readAll(volume.vfs, ino, LEAF_SIZE_BYTES).catch((error: unknown) => {
        t.match(error, { code: 'CORRUPT_SHARD' });
        refused++;
        return data;
      });
      if (!read.equals(data)) wrong++;
      const inTrailer = at >= size;
      if (inTrailer && volume.damaged.length !== before) t.fail(`byte ${at}: leaf hashes are computed anew`);
      if (!inTrailer && volume.damaged.length === before) t.fail(`byte ${at}: damage is reported`);
    }
    t.equal(wrong, 0);
    t.ok(volume.damaged.every(({ lost }) => lost === !durable));
    if (durable) t.equal(refused, 0, 'fetched again');
    else t.ok(refused > 0, 'EIO, for there is no other copy');
    t.equal(volume.files.has(1), true, 'kept or fetched');
    if (!durable) {
      writeFileSync(path, good);
      volume.reader.forget(1);
      t.ok((await readAll(volume.vfs, ino)).equals(data), 'and read again once it is repaired');
    }
    await volume.close();
  }
});

t.test('a local file that is cut off, gone or without leaf hashes', async (t) => {
  const size = 2 * LEAF_SIZE_BYTES;
  for (const durable of [true, false]) {
    const { dir, ino, data } = await prepared(t, random, size, durable);
    const volume = await opened(t, dir);
    const path = volume.files.path(1);
    truncateSync(path, size);
    t.ok((await readAll(volume.vfs, ino)).equals(data), 'no leaf hashes: computed');
    t.same(volume.damaged, []);
    for (const damage of [(): void => truncateSync(path, size - 1), (): void => rmSync(path)]) {
      damage();
      volume.reader.forget(1);
      if (durable) t.ok((await readAll(volume.vfs, ino)).equals(data), 'fetched');
      else await t.rejects(readAll(volume.vfs, ino), { code: 'CORRUPT_SHARD' });
      t.same(volume.damaged.splice(0)[0], { shard: 1, lost: !durable });
    }
    await volume.close();
  }
});

t.test('one fetch serves all who read a shard, a random read fetches leaves only', async (t) => {
  const { dir, data } = await prepared(t, random, MAX_SHARD_SIZE_BYTES, true);
  const volume = await emptied(t, dir);
  t.ok((await rangeOf(volume, 1, 1_000_000, 4_096)).equals(data.subarray(1_000_000, 1_004_096)));
  t.same([volume.host.leafFetches, volume.host.shardFetches], [1, 0]);
  t.ok(volume.reader.read(1, 1_000_000, 4_096, false) instanceof Buffer, 'kept in memory');
  const reads = [...Array(50).keys()].map(async (n) =>
    (await rangeOf(volume, 1, n * 10_000, 9_000, n % 2 === 0)).equals(data.subarray(n * 10_000, n * 10_000 + 9_000)),
  );
  t.ok((await Promise.all(reads)).every(Boolean));
  t.same([volume.host.leafFetches, volume.host.shardFetches], [1, 1]);
  t.equal(volume.reader.fetching, 0);
  await volume.reader.prefetch(1);
  t.equal(volume.host.shardFetches, 1, 'what is here is not fetched');

  const other = await emptied(t, (await prepared(t, random, MAX_SHARD_SIZE_BYTES, true)).dir);
  const end = MAX_SHARD_SIZE_BYTES;
  await rangeOf(other, 1, end - 1, 1);
  await rangeOf(other, 1, 0, 1);
  t.same([other.host.leafFetches, other.host.shardFetches], [2, 0], 'another random read fetches other leaves');
  for (let leaf = 4; leaf < 32; leaf += 4) await rangeOf(other, 1, leaf * LEAF_SIZE_BYTES, 1);
  await other.reader.prefetch(1);
  t.equal(other.host.shardFetches, 1, 'after a quarter of them the shard is fetched');
  const { leafFetches } = other.host;
  await rangeOf(other, 1, 1_500_000, 1);
  t.equal(other.host.leafFetches, leafFetches);
});

t.test('what has just come is read from memory, and what did not get there from its file', async (t) => {
  const { dir, ino, data } = await prepared(t, random, 40 * MIB, true);
  // memory that is not read for a while may go to another shard: here no time passes
  const volume = await emptied(t, dir, { clock: { ...systemClock, monotonicMs: () => 0 } });
  const shards = volume.tree.extents.spans(ino, 0, data.length).map(({ shard }) => shard);
  t.ok(shards.length > ARRIVED_SHARDS);
  for (const shard of shards) await volume.reader.prefetch(shard);
  t.same(volume.host.expected, [shards.length], 'where all of them are was asked at once');
  const atOnce = shards.filter((shard) => volume.reader.read(shard, 5_000, 100_000, true) instanceof Buffer);
  t.same(atOnce, shards.slice(-ARRIVED_SHARDS), 'the last ones are in memory');
  const newest = atOnce.at(-1) ?? 0;
  writeFileSync(volume.files.path(newest), 'damaged');
  t.ok((await readAll(volume.vfs, ino)).equals(data));
  t.same(volume.damaged, [], 'without a look at the file');
  volume.reader.forget(newest);
  t.ok((await readAll(volume.vfs, ino)).equals(data), 'freed memory is not read');
  t.same(volume.damaged, [{ shard: newest, lost: false }]);

  volume.host.fillsMemory = false;
  volume.reader.forget(newest);
  await volume.files.drop(newest);
  await volume.reader.prefetch(newest);
  const span = volume.tree.extents.spans(ino, 0, data.length).find(({ shard }) => shard === newest);
  const at = (span?.offset ?? 0) - (span?.shardOffset ?? 0);
  t.ok(
    (await rangeOf(volume, newest, 0, 100_000)).equals(data.subarray(at, at + 100_000)),
    'memory that nobody filled',
  );
});

t.test('a host that fails fails the read, and the next read tries again', async (t) => {
  const { dir, ino, data } = await prepared(t, random, 100_000, true);
  const volume = await emptied(t, dir);
  volume.host.before = () => {
    throw new XcoreError('UNREACHABLE', 'no host answers');
  };
  await t.rejects(readAll(volume.vfs, ino), { code: 'UNREACHABLE' });
  await t.rejects(rangeOf(volume, 1, 0, 10), { code: 'UNREACHABLE' });
  volume.host.before = () => undefined;
  t.ok((await readAll(volume.vfs, ino)).equals(data));
});

t.test('an interrupted read ends at once, the fetch goes on for the others', async (t) => {
  const { dir, data } = await prepared(t, random, 100_000, true);
  const volume = await emptied(t, dir);
  const gate = Promise.withResolvers<void>();
  volume.host.before = () => gate.promise;
  const controller = new AbortController();
  const interrupted = rangeOf(volume, 1, 0, 10, true, controller.signal);
  const patient = rangeOf(volume, 1, 0, 10, true);
  controller.abort();
  await t.rejects(interrupted, { code: 'EINTR' });
  await t.rejects(rangeOf(volume, 1, 0, 10, true, AbortSignal.abort()), { code: 'EINTR' });
  gate.resolve();
  t.ok((await patient).equals(data.subarray(0, 10)));
  t.equal(volume.host.shardFetches, 1);
});

t.test('readers and evictions under a small cap: right bytes, never more on disk than allowed', async (t) => {
  const size = 24 * MIB;
  const { dir, ino, data } = await prepared(t, random, size, true);
  const capBytes = 7 * MIB;
  const volume = await emptied(t, dir, { capBytes });
  let wrong = 0;
  let most = 0;
  let onDisk = 0;
  const reader = async (): Promise<void> => {
    const { handle } = await volume.vfs.open(ino, 0);
    for (let n = 0; n < 60; n++) {
      const offset = random.below(size);
      const length = random.between(1, 300_000);
      const read = await bytesOf(volume.vfs.read(ino, handle, offset, length));
      if (!read.equals(data.subarray(offset, offset + length))) wrong++;
      most = Math.max(most, volume.files.usedBytes);
      if (n % 10 === 0) onDisk = Math.max(onDisk, await bytesOnDisk(dir));
    }
  };
  const sequential = async (): Promise<void> => {
    if (!(await readAll(volume.vfs, ino)).equals(data)) wrong++;
  };
  await Promise.all([reader(), reader(), reader(), sequential(), sequential()]);
  t.equal(wrong, 0);
  t.ok(most <= capBytes, `${most} bytes accounted`);
  t.ok(onDisk <= capBytes, `${onDisk} bytes on disk`);
  t.same(volume.damaged, [], 'an evicted shard is not a damaged one');
  t.ok(volume.host.shardFetches > 12, `${volume.host.shardFetches} fetches: some more than once`);
  const links = await readdir('/proc/self/fd').catch(() => []);
  t.ok(links.length < 200, 'evicted files are closed');
});

t.test('a cache with no room at all still reads', async (t) => {
  const { dir, ino, data } = await prepared(t, random, 3 * MIB, true);
  const volume = await emptied(t, dir, { capBytes: MIB });
  t.ok((await readAll(volume.vfs, ino)).equals(data));
  t.equal(volume.host.shardFetches, 0);
  t.equal(await bytesOnDisk(dir), 0);
});

t.test('what is staged is never evicted, what is durable goes, least recently used first', async (t) => {
  const volume = await opened(t, temporaryFolder(t), { capBytes: 20 * MIB });
  const { files } = volume;
  await writeFileAt(volume.vfs, 1, 'a', random.bytes(4 * MIB));
  await volume.segments.seal();
  await volume.upload();
  const staged = await writeFileAt(volume.vfs, 1, 'b', random.bytes(2 * MIB));
  await volume.segments.seal();
  t.same(files.shards(), [1, 2, 3]);
  t.equal(files.stagedBytes, fileSizeOf(MAX_SHARD_SIZE_BYTES));
  t.equal(files.usedBytes, await bytesOnDisk(volume.dir));
  files.touch(1);
  await files.reserve(15 * MIB);
  t.same(files.shards(), [3, 1], '2 was used longest ago');
  files.release(15 * MIB);
  await files.reserve(17 * MIB);
  t.same(files.shards(), [3]);
  await t.rejects(files.reserve(17 * MIB), { code: 'ENOSPC' }, 'reserved twice');
  files.release(17 * MIB);
  await t.rejects(files.reserve(19 * MIB), { code: 'ENOSPC' });
  t.same(files.shards(), [3]);
  t.equal(await bytesOnDisk(volume.dir), files.usedBytes);
  t.equal((await readAll(volume.vfs, staged)).length, 2 * MIB);
  t.ok(files.isTight);
  t.equal(files.roomBytes, 20 * MIB - files.stagedBytes);
});

t.test('the folder is taken over as it is, leftovers of broken transfers go', async (t) => {
  const { dir } = await prepared(t, random, 5 * MIB, true);
  writeFileSync(join(dir, 'cache', '0', '2.part'), 'half');
  const volume = await opened(t, dir);
  t.same(volume.files.shards().toSorted(), [1, 2, 3]);
  t.equal(volume.files.usedBytes, await bytesOnDisk(dir));
  t.equal(volume.files.stagedBytes, 0);
});

t.test('a sequential reader gets ever more ahead of it, no range twice; a random one nothing', async (t) => {
  const reading = new ReadAhead();
  const asked: number[] = [];
  let reached = 0;
  let gaps = 0;
  for (let at = 0; at < 200 * MIB; at += 128 * 1024) {
    const { sequential, ahead } = reading.note(at, 128 * 1024);
    if (!sequential || (ahead === null && reached < at + 128 * 1024)) gaps++;
    if (ahead === null) continue;
    if (reached > 0 && ahead.from !== reached) gaps++;
    asked.push(ahead.to - at);
    reached = ahead.to;
  }
  t.equal(gaps, 0);
  t.ok(Math.max(...asked) <= 16 * MIB + 128 * 1024 && Math.max(...asked) > 12 * MIB, 'up to 8 shards');
  t.ok((asked[0] ?? 0) < 3 * MIB, 'one shard at first');
  const sums = [10, 100, 30, 170, 60].map((at) => reading.note(at * MIB, 4_096));
  t.ok(sums.every(({ sequential, ahead }) => !sequential && ahead === null));
});

t.test('random reads fetch the neighbours of a leaf for as long as those are read, too', (t) => {
  const width = new RangeWidth();
  t.equal(width.leaves, 4);
  for (let leaf = 0; leaf < 200 * 4; leaf += 4) width.fetched(leaf);
  t.equal(width.leaves, 1, 'nobody read them');
  for (let leaf = 10_000; leaf < 10_000 + 100 * 4; leaf++) width.fetched(leaf);
  t.equal(width.leaves, 4, 'all were asked for one by one');
  for (let leaf = 20_000; leaf < 20_000 + 200 * 4; leaf += 4) {
    width.fetched(leaf);
    if (leaf % 12 === 0) width.used(leaf + 3);
  }
  t.equal(width.leaves, 4, 'a third of them is worth it');
  t.end();
});

t.test('a slow disk is not waited for by the thread that serves the mount, one hiccup of a fast one is', async (t) => {
  let nowMs = 1_000_000;
  const patience = new DiskPatience({ monotonicMs: () => nowMs, soon: (run) => void setImmediate(run) });
  const nextTurn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));
  /** Waits in so many turns of the event loop; how many of them were. */
  const waits = async (times: number, tookMs: (n: number) => number): Promise<number> => {
    let waited = 0;
    for (let n = 0; n < times; n++) {
      if (patience.wait(() => ((nowMs += tookMs(n)), true)) === true) waited++;
      await nextTurn();
    }
    return waited;
  };
  t.equal(
    patience.wait(() => patience.wait(() => true)),
    null,
    'one wait in each turn',
  );
  await nextTurn();
  t.equal(await waits(100, () => 0.08), 100);
  t.equal(await waits(100, (n) => (n % 20 === 10 ? 15 : 0.08)), 100, 'hiccups');
  t.equal(await waits(100, (n) => (n % 5 < 2 ? 2 : 0.08)), 100, 'a busy machine');
  t.equal(await waits(100, () => 8), 3, 'a slow disk');
  nowMs += 250;
  t.equal(await waits(100, () => 8), 1, 'which is tried once');
  nowMs += 250;
  t.equal(await waits(100, () => 0.08), 0, 'and more and more seldom');
  nowMs += 250;
  t.equal(await waits(100, () => 0.08), 100, 'until it is fast');
  t.ok((await waits(100, () => 0.8)) < 20, 'a disk that is slower than a thread');
});

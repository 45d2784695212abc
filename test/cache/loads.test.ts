import { openSync, closeSync, readFileSync, rmSync, truncateSync, writeFileSync, fsyncSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ARRIVED_SHARDS, ArrivedShards } from '../../src/cache/arrived-shards.ts';
import { DiskTurns } from '../../src/cache/disk-turns.ts';
import { Hasher } from '../../src/cache/hasher.ts';
import { LOAD_MEMORY_BYTES, loadShard } from '../../src/cache/shard-load.ts';
import { adviseHugePage, hugePageIn, HUGE_PAGE_BYTES } from '../../src/lib/huge-page.ts';
import type { ShardLoad } from '../../src/cache/shard-load.ts';
import { leafHashes, MAX_SHARD_SIZE_BYTES, shardIdOf } from '../../src/crypto/merkle.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { systemDisk } from '../../src/lib/disk.ts';
import { forgetPages, isResident } from '../../src/lib/resident-read.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { pickSeed, Random } from '../support/random.ts';
import { bytesOf, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume, Scope } from '../support/volume.ts';

const MIB = 2 ** 20;
const O_RDWR = 2;
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

/** Loads as told to, and counts them. */
class WatchedLoader extends Hasher {
  gate: Promise<void> = Promise.resolve();
  begun = 0;
  readonly found: (number | null)[] = [];

  override async load(load: ShardLoad): Promise<number | null> {
    this.begun++;
    await this.gate;
    const start = await super.load(load);
    this.found.push(start);
    return start;
  }
}

interface Prepared {
  readonly volume: OpenVolume;
  readonly loader: WatchedLoader;
  readonly ino: number;
  readonly data: Buffer;
  readonly shards: number[];
}

/** A volume with one sealed file, opened anew. */
async function prepared(t: Scope, sizeBytes: number, durable: boolean, clock?: Clock): Promise<Prepared> {
  const dir = temporaryFolder(t);
  const loader = new WatchedLoader();
  const data = random.bytes(sizeBytes);
  const before = await openVolume(dir, { hasher: loader });
  const ino = await writeFileAt(before.vfs, 1, 'a', data);
  await before.segments.seal();
  if (durable) await before.upload();
  await before.close();
  const volume = await openVolume(dir, { hasher: loader, ...(clock && { clock }) });
  t.teardown(async () => {
    await volume.close().catch(() => undefined);
    await loader.stop();
  });
  return { volume, loader, ino, data, shards: volume.tree.extents.spans(ino, 0, sizeBytes).map(({ shard }) => shard) };
}

/** Turns one byte of a shard's local file. */
function damage(volume: OpenVolume, shard: number, at: number): void {
  const bytes = readFileSync(volume.files.path(shard));
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(volume.files.path(shard), bytes);
}

t.test('a file is loaded past the memory of the kernel or from it, and only if it is what its id says', async (t) => {
  const path = join(temporaryFolder(t), 'shard');
  const memory = new SharedArrayBuffer(LOAD_MEMORY_BYTES);
  for (const sizeBytes of [1, 511, 4_095, 4_096, 4_097, 300_000, MAX_SHARD_SIZE_BYTES - 1, MAX_SHARD_SIZE_BYTES]) {
    const data = random.bytes(sizeBytes);
    const leaves = leafHashes(data);
    const id = shardIdOf(leaves, sizeBytes);
    const load = async (): Promise<boolean> => {
      const start = await loadShard({ path, id, sizeBytes, memory });
      return start !== null && Buffer.from(memory, start, sizeBytes).equals(data);
    };
    writeFileSync(path, Buffer.concat([data, leaves]));
    const fd = openSync(path, 'r');
    fsyncSync(fd);
    t.ok(await load(), `${sizeBytes} bytes that the kernel has`);
    await forgetPages(fd);
    t.ok(await load(), `${sizeBytes} bytes that only the disk has`);
    if (sizeBytes === MAX_SHARD_SIZE_BYTES && !isResident(fd, sizeBytes)) t.pass('no pages were made of them');
    await forgetPages(fd);
    truncateSync(path, sizeBytes);
    t.ok(await load(), 'without leaf hashes behind');
    for (const bad of [
      data.subarray(0, sizeBytes - 1),
      Buffer.concat([Buffer.of((data[0] as number) ^ 1), data.subarray(1)]),
    ]) {
      writeFileSync(path, bad);
      t.equal(await loadShard({ path, id, sizeBytes, memory }), null);
    }
    closeSync(fd);
  }
  rmSync(path);
  t.equal(await loadShard({ path, id: Buffer.alloc(32), sizeBytes: 1, memory }), null, 'no file');
});

t.test('a sequential reader reads what was loaded ahead, and a random one has nothing loaded', async (t) => {
  // memory that nobody reads for a while is used for other shards, which is when the test says so
  const clock = new FakeClock();
  const { volume, loader, ino, data, shards } = await prepared(t, 40 * MIB + 12_345, false, clock);
  t.ok((await readAll(volume.vfs, ino, MIB)).equals(data));
  t.ok(loader.begun > shards.length / 2, `${loader.begun} loads for ${shards.length} shards`);
  t.ok(loader.begun <= shards.length, 'each once');
  t.ok(loader.found.every((start) => start !== null));
  t.same(volume.damaged, []);
  // many at once want more memory than there is, and one that ends in the middle keeps none for ever
  for (let n = 0; n < ARRIVED_SHARDS; n++) {
    const { handle } = await volume.vfs.open(ino, 0);
    for (let at = n * MIB; at < (n + 3) * MIB; at += MIB) await bytesOf(volume.vfs.read(ino, handle, at, MIB));
  }
  clock.advance(1_000);
  const readers = await Promise.all(Array.from({ length: 9 }, () => readAll(volume.vfs, ino, MIB)));
  t.ok(readers.every((read) => read.equals(data)));
  const { begun } = loader;
  const { handle } = await volume.vfs.open(ino, 0);
  for (let n = 0; n < 50; n++) {
    const at = ((n * 17 + 5) % 37) * MIB;
    const read = await bytesOf(volume.vfs.read(ino, handle, at, 4_096));
    if (!read.equals(data.subarray(at, at + 4_096))) t.fail(`other bytes at ${at}`);
  }
  t.equal(loader.begun, begun);
});

t.test('a damaged or lost file is found while it is loaded, and read elsewhere or refused', async (t) => {
  for (const durable of [true, false]) {
    const { volume, loader, ino, data, shards } = await prepared(t, 12 * MIB, durable);
    const [, , bad = 0, gone = 0] = shards;
    damage(volume, bad, 1_000_000);
    rmSync(volume.files.path(gone));
    const first = await readAll(volume.vfs, ino, MIB).catch((error: unknown) => error);
    t.ok(loader.found.includes(null), 'it is not loaded');
    if (durable) {
      t.ok(data.equals(first as Buffer), 'fetched again');
      t.same(volume.damaged.map(({ shard }) => shard).toSorted(), [bad, gone].toSorted());
      t.ok(volume.damaged.every(({ lost }) => !lost));
      continue;
    }
    t.match(first, { code: 'CORRUPT_SHARD' });
    t.ok(volume.damaged.some(({ shard, lost }) => shard === bad && lost));
    const { handle } = await volume.vfs.open(ino, 0);
    const good = await bytesOf(volume.vfs.read(ino, handle, 0, 3 * MIB));
    t.ok(good.equals(data.subarray(0, good.length)), 'what is whole is read');
  }
});

t.test('while a file is loaded: readers give up or wait, shards are evicted, overwritten and freed', async (t) => {
  const { volume, loader, ino, data, shards } = await prepared(t, 32 * MIB, true);
  const { handle } = await volume.vfs.open(ino, 0);
  const read = (at: number, signal?: AbortSignal): Promise<Buffer> =>
    bytesOf(volume.vfs.read(ino, handle, at, MIB, signal));
  const gate = Promise.withResolvers<void>();
  loader.gate = gate.promise;
  t.ok((await read(0)).equals(data.subarray(0, MIB)), 'the first read waits for none');
  t.ok(loader.begun > 0);
  t.ok((await read(MIB)).equals(data.subarray(MIB, 2 * MIB)), 'nor does the rest of the same shard');
  const aborter = new AbortController();
  const impatient = read(2 * MIB, aborter.signal);
  const patient = read(2 * MIB);
  aborter.abort();
  await t.rejects(impatient, { code: 'EINTR' });
  const other = await volume.vfs.open(ino, 0);
  const random4k = await bytesOf(volume.vfs.read(ino, other.handle, 3 * MIB + 77, 4_096));
  t.ok(random4k.equals(data.subarray(3 * MIB + 77, 3 * MIB + 77 + 4_096)), 'a random reader does not wait');

  const [, second = 0] = shards;
  await volume.files.drop(second);
  // those that are begun from now on
  const again = Promise.withResolvers<void>();
  loader.gate = again.promise;
  gate.resolve();
  t.ok((await patient).equals(data.subarray(2 * MIB, 3 * MIB)));
  t.ok((await read(3 * MIB)).equals(data.subarray(3 * MIB, 4 * MIB)), 'evicted meanwhile');

  const early = [read(4 * MIB), read(5 * MIB)];
  const ahead = read(6 * MIB);
  const writer = await volume.vfs.open(ino, O_RDWR);
  const fresh = random.bytes(MIB);
  await volume.vfs.write(ino, writer.handle, 6 * MIB, fresh, false);
  const caller = { uid: 0, gid: 0, pid: 1, groups: () => Promise.resolve([]) };
  await volume.vfs.setattr(ino, { sizeBytes: 8 * MIB }, caller as never);
  for (const shard of shards.slice(4)) volume.reader.forget(shard);
  again.resolve();
  t.ok(Buffer.concat(await Promise.all(early)).equals(data.subarray(4 * MIB, 6 * MIB)));
  const seen = await ahead;
  t.ok(seen.equals(fresh) || seen.equals(data.subarray(6 * MIB, 7 * MIB)), 'old or new');
  t.ok((await read(6 * MIB)).equals(fresh), 'new from then on');
  t.ok((await read(7 * MIB)).equals(data.subarray(7 * MIB, 8 * MIB)));
  t.equal((await read(8 * MIB)).length, 0, 'cut off');
  t.same(volume.damaged, []);
});

t.test(
  'random readers of what only the disk has wait without a thread; closed and evicted files leave none waiting',
  async (t) => {
    const { volume, ino, data, shards } = await prepared(t, 12 * MIB, true);
    const { handle } = await volume.vfs.open(ino, 0);
    const read = async (at: number): Promise<boolean> =>
      (await bytesOf(volume.vfs.read(ino, handle, at, 4_096))).equals(data.subarray(at, at + 4_096));
    const somewhere = (): number => random.below(12 * MIB - 4_096);
    const forget = async (): Promise<void> => {
      for (const shard of shards.filter((each) => volume.files.has(each))) {
        const fd = openSync(volume.files.path(shard), 'r');
        fsyncSync(fd);
        await forgetPages(fd);
        closeSync(fd);
      }
    };
    await read(10 * MIB);
    for (const shard of shards) await volume.reader.read(shard, 0, 1, false);
    for (let round = 0; round < 3; round++) {
      await forget();
      t.ok((await Promise.all(Array.from({ length: 100 }, () => read(somewhere())))).every(Boolean));
    }
    await forget();
    const reads = Array.from({ length: 100 }, () => read(somewhere()));
    for (const shard of shards.slice(0, 3)) await volume.files.drop(shard);
    t.ok((await Promise.all(reads)).every(Boolean), 'evicted meanwhile');
    await forget();
    damage(volume, shards[4] ?? 0, 5);
    await forget();
    t.ok((await Promise.all(Array.from({ length: 100 }, () => read(somewhere())))).every(Boolean), 'damaged');

    const turns = new DiskTurns();
    const path = join(temporaryFolder(t), 'file');
    writeFileSync(path, data.subarray(0, 100));
    const file = await systemDisk.open(path, 'r');
    const awaited = [turns.arrival(file, 99), turns.arrival(file, 0)];
    t.same(await Promise.all(awaited), [true, true]);
    const late = [turns.arrival(file, 99), turns.arrival(file, 0)];
    await file.close();
    t.same(await Promise.all(late), [false, false]);
  },
);

t.test('memory of loads goes from shards that were read to their end, or that nobody reads', (t) => {
  let nowMs = 1_000;
  const arrived = new ArrivedShards({ monotonicMs: () => nowMs });
  const fill = (shard: number, memory: SharedArrayBuffer | null): void => {
    if (memory === null) t.fail('no memory');
    else arrived.put(shard, memory, 0, 100);
  };
  for (let shard = 1; shard <= ARRIVED_SHARDS; shard++) fill(shard, arrived.takeSpare());
  t.equal(arrived.takeSpare(), null, 'all are still to be read');
  arrived.read(5, 0, 50);
  t.equal(arrived.takeSpare(), null);
  arrived.read(5, 50, 100);
  fill(20, arrived.takeSpare());
  t.notOk(arrived.has(5), 'what was read to its end goes');
  t.equal(arrived.spare, 0);
  nowMs += 10_000;
  arrived.read(20, 0, 1);
  arrived.read(4, 0, 1);
  t.equal(arrived.spare, ARRIVED_SHARDS - 2);
  t.ok(arrived.takeSpare());
  t.notOk(arrived.has(1), 'used longest ago');
  t.equal(arrived.read(2, 50, 101), undefined, 'no more than there is');
  fill(21, arrived.take());
  t.notOk(arrived.has(2), 'a fetch takes what was used longest ago');
  t.end();
});

void t.test('memory for a load has a whole page of 2 MiB in it', async (t) => {
  for (const memory of [new SharedArrayBuffer(LOAD_MEMORY_BYTES), new ArrayBuffer(LOAD_MEMORY_BYTES)]) {
    const start = adviseHugePage(memory);
    t.equal(start, hugePageIn(memory));
    t.ok(start >= 0 && start + HUGE_PAGE_BYTES <= memory.byteLength);
    t.ok(new Uint8Array(memory).every((byte) => byte === 0));
  }
  t.throws(() => adviseHugePage(new ArrayBuffer(HUGE_PAGE_BYTES - 1)), RangeError);
});

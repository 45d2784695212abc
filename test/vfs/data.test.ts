import t from 'tap';
import { NO_BARRIER } from '../../src/tree/durability.ts';
import { MAX_FILE_SIZE_BYTES } from '../../src/vfs/attributes.ts';
import { pickSeed, Random } from '../support/random.ts';
import { abandon, bytesOf, CALLER, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume, Scope, VolumeOptions } from '../support/volume.ts';

const MIB = 2 ** 20;
const WINDOW = 2 * MIB;
const TRUNCATE = 0o1000;

async function opened(t: Scope, options: VolumeOptions = {}, dir = temporaryFolder(t)): Promise<OpenVolume> {
  const volume = await openVolume(dir, options);
  t.teardown(() => volume.close().catch(() => undefined));
  return volume;
}

async function readRange(volume: OpenVolume, ino: number, offset: number, length: number): Promise<Buffer> {
  return await bytesOf(volume.vfs.read(ino, 0, offset, length));
}

t.test('a file ends where it ends', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const ino = await writeFileAt(vfs, 1, 'f', Buffer.from('0123456789'));
  t.equal((await readRange(volume, ino, 0, 100)).toString(), '0123456789');
  t.equal((await readRange(volume, ino, 9, 1)).toString(), '9');
  t.equal((await readRange(volume, ino, 9, 2)).toString(), '9');
  t.equal((await readRange(volume, ino, 10, 1)).length, 0);
  t.equal((await readRange(volume, ino, 2 ** 50, 1)).length, 0);
  await vfs.write(ino, 0, 3, Buffer.alloc(0), false);
  t.match(await vfs.getattr(ino), { sizeBytes: 10, blocks: 1 });
  t.throws(() => vfs.write(ino, 0, MAX_FILE_SIZE_BYTES, Buffer.from('x'), false), { code: 'EFBIG' });
  t.throws(() => vfs.setattr(ino, { sizeBytes: MAX_FILE_SIZE_BYTES + 1 }), { code: 'EFBIG' });
  const dir = await vfs.mkdir(1, 'd', 0o755, CALLER);
  t.throws(() => vfs.setattr(dir.ino, { sizeBytes: 0 }), { code: 'EISDIR' });
  const link = await vfs.symlink(1, 'l', Buffer.from('x'), CALLER);
  t.throws(() => vfs.setattr(link.ino, { sizeBytes: 0 }), { code: 'EINVAL' });
});

t.test('holes read as zeros and take no space', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const ino = await writeFileAt(vfs, 1, 'f', Buffer.from('start'));
  const far = 2 ** 40 + 3;
  await vfs.write(ino, 0, far, Buffer.from('end'), false);
  t.match(await vfs.getattr(ino), { sizeBytes: far + 3, blocks: 1 });
  const read = await readRange(volume, ino, far - 1_500_000, 2 * MIB);
  t.equal(read.length, 1_500_003);
  t.ok(read.subarray(0, 1_500_000).equals(Buffer.alloc(1_500_000)));
  t.equal(read.subarray(1_500_000).toString(), 'end');
  await vfs.setattr(ino, { sizeBytes: 3 });
  t.match(await vfs.getattr(ino), { sizeBytes: 3, blocks: 1 });
  t.equal(volume.tree.counters.storedBytes, 3);
});

t.test('what a cut takes away never comes back', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  for (const size of [10, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 5]) {
    const data = Buffer.alloc(size, 'd');
    const ino = await writeFileAt(vfs, 1, `f${size}`, data);
    for (const cut of [size - 1, Math.floor(size / 2), 1, 0]) {
      await vfs.write(ino, 0, 0, data.subarray(0, MIB), false);
      await vfs.setattr(ino, { sizeBytes: cut });
      t.equal((await vfs.getattr(ino)).sizeBytes, cut);
      await vfs.setattr(ino, { sizeBytes: size + 5 });
      const read = await readAll(vfs, ino, MIB);
      t.equal(read.length, size + 5);
      t.notOk(
        read.subarray(cut).some((byte) => byte !== 0),
        `${size} cut to ${cut}: zeros behind`,
      );
      t.equal((await vfs.getattr(ino)).blocks, Math.ceil((volume.tree.inode(ino)?.storedBytes ?? -1) / 512));
    }
    t.equal((await vfs.getattr(ino)).blocks, 0);
  }
  const ino = await writeFileAt(vfs, 1, 'g', Buffer.from('content'));
  const { handle } = await vfs.open(ino, 2 | TRUNCATE);
  t.match(await vfs.getattr(ino), { sizeBytes: 0, blocks: 0 });
  await vfs.release(ino, handle);
});

t.test('random writes, cuts and reads agree with an array of bytes, over seals and restarts', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  let volume = await opened(t);
  const limit = 3 * WINDOW;
  const inos: number[] = [];
  const models = new Map<number, Buffer>();
  for (const name of ['a', 'b', 'c']) {
    const ino = await writeFileAt(volume.vfs, 1, name, Buffer.alloc(0));
    inos.push(ino);
    models.set(ino, Buffer.alloc(0));
  }
  for (let step = 0; step < 1_500; step++) {
    const ino = random.pick(inos);
    const model = models.get(ino) as Buffer;
    const offset = random.below(4) === 0 ? model.length : random.below(limit);
    const length = random.below(10) === 0 ? random.between(1, MIB) : random.between(1, 20_000);
    const what = random.below(20);
    if (what < 10) {
      const data = random.bytes(length);
      const grown = Buffer.alloc(Math.max(model.length, offset + length));
      model.copy(grown);
      data.copy(grown, offset);
      models.set(ino, grown);
      const done = volume.vfs.write(ino, 0, offset, data, random.below(2) === 0);
      data.fill(0); // the buffer is borrowed only until write() returns
      await done;
    } else if (what < 11) {
      const size = random.below(limit);
      const resized = Buffer.alloc(size);
      model.copy(resized);
      models.set(ino, resized);
      await volume.vfs.setattr(ino, { sizeBytes: size });
    } else {
      const read = await readRange(volume, ino, offset, length);
      if (!read.equals(model.subarray(offset, offset + length))) return t.fail(`step ${step}: read differs`);
    }
    if (step % 97 === 96) await volume.segments.seal();
    if (step % 333 === 332) {
      const { dir } = volume;
      if (random.below(2) === 0) {
        await volume.store.commit();
        await abandon(volume);
      } else {
        await volume.close();
      }
      volume = await opened(t, {}, dir);
    }
  }
  for (const [ino, model] of models) {
    t.ok((await readAll(volume.vfs, ino)).equals(model), 'whole file');
    t.equal((await volume.vfs.getattr(ino)).sizeBytes, model.length);
  }
  t.same(volume.lost, []);
  t.same(volume.damaged, []);
});

t.test('writers and readers side by side see whole writes', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const inos = await Promise.all([1, 2, 3, 4].map((n) => writeFileAt(vfs, 1, `f${n}`, Buffer.alloc(4 * MIB))));
  let torn = 0;
  const write = async (ino: number, from: number): Promise<void> => {
    for (let n = 1; n <= 30; n++) {
      await vfs.write(ino, 0, from, Buffer.alloc(MIB, n), false);
      if (n % 10 === 0) await vfs.fsync();
    }
  };
  const read = async (ino: number, from: number): Promise<void> => {
    let last = 0;
    for (let n = 0; n < 60; n++) {
      const data = await readRange(volume, ino, from, MIB);
      const value = data[0] ?? 0;
      if (value < last || data.some((byte) => byte !== value)) torn++;
      last = value;
    }
  };
  await Promise.all(
    inos.flatMap((ino, n) => [write(ino, n * 1_000), read(ino, n * 1_000), write(ino, 2 * MIB), read(ino, 2 * MIB)]),
  );
  t.equal(torn, 0);
});

t.test('fsync makes the file and its name survive, flush survives a kill', async (t) => {
  const volume = await opened(t);
  const { vfs, dir } = volume;
  const syncs: boolean[] = [];
  volume.store.setBarrier({
    ...NO_BARRIER,
    wait: async (sync) => {
      syncs.push(sync);
      await volume.segments.barrier.wait(sync);
    },
  });
  const { attributes, file } = await vfs.create(1, 'f', 0o100644, 2, CALLER);
  await vfs.write(attributes.ino, file.handle, 0, Buffer.from('kept'), false);
  await vfs.fsync();
  t.ok(syncs.includes(true));
  const reading = await vfs.open(attributes.ino, 0);
  const count = syncs.length;
  await vfs.flush(attributes.ino, reading.handle);
  t.equal(syncs.length, count, 'closing what was only read waits for nothing');
  await vfs.write(attributes.ino, file.handle, 4, Buffer.from(' too'), false);
  await vfs.flush(attributes.ino, file.handle);
  await abandon(volume);
  const again = await opened(t, {}, dir);
  t.equal((await readAll(again.vfs, attributes.ino)).toString(), 'kept too');
});

t.test('an orphan that a crash left is removed with all that it holds', async (t) => {
  const volume = await opened(t);
  const ino = await writeFileAt(volume.vfs, 1, 'f', Buffer.alloc(100_000, 'o'));
  await volume.vfs.open(ino, 0);
  await volume.vfs.unlink(1, 'f');
  await volume.store.commit();
  await abandon(volume);
  const again = await opened(t, {}, volume.dir);
  const [orphan] = await again.tree.orphans();
  t.equal(orphan, ino);
  const inode = again.tree.inode(ino);
  if (inode !== undefined) await again.tree.removeInode(inode);
  t.match(again.tree.counters, { inodes: 1, storedBytes: 0 });
  t.equal(again.tree.requireShard(1).liveBytes, 0);
});

t.test('a sequential reader fetches ahead, several shards at once', async (t) => {
  const size = 20 * MIB;
  const first = await opened(t);
  const data = new Random('ahead').bytes(size);
  const ino = await writeFileAt(first.vfs, 1, 'f', data);
  await first.segments.seal();
  await first.upload();
  for (const shard of first.files.shards()) await first.files.drop(shard);
  await first.close();
  const volume = await opened(t, {}, first.dir);
  let most = 0;
  volume.host.before = async () => {
    most = Math.max(most, volume.reader.fetching);
    await new Promise((resolve) => setTimeout(resolve, 5));
  };
  t.ok((await readAll(volume.vfs, ino)).equals(data));
  t.equal(volume.host.shardFetches, 10);
  t.equal(volume.host.leafFetches, 0);
  t.ok(most > 2, `${most} at once`);
});

t.test('new handles write through when little room is left', async (t) => {
  const roomy = await opened(t);
  t.equal((await roomy.vfs.create(1, 'f', 0o100644, 2, CALLER)).file.directIo, false);
  const tight = await opened(t, { capBytes: 50 * MIB });
  const { attributes, file } = await tight.vfs.create(1, 'f', 0o100644, 2, CALLER);
  t.equal(file.directIo, true);
  t.equal((await tight.vfs.open(attributes.ino, 0)).directIo, false);
});

import { spawnSync } from 'node:child_process';
import { NO_BARRIER } from '../../src/tree/durability.ts';
import { existsSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ctr } from '@noble/ciphers/aes.js';
import t from 'tap';
import { MAX_SHARD_SIZE_BYTES, leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { shardKey } from '../../src/crypto/keys.ts';
import { fileSizeOf } from '../../src/cache/shard-files.ts';
import { systemDisk } from '../../src/lib/disk.ts';
import type { Disk } from '../../src/lib/disk.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { pickSeed, Random } from '../support/random.ts';
import { until } from '../support/run.ts';
import { abandon, CALLER, DATA_KEY, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume, Scope, VolumeOptions } from '../support/volume.ts';

async function opened(t: Scope, dir: string, options: VolumeOptions = {}): Promise<OpenVolume> {
  const volume = await openVolume(dir, options);
  t.teardown(() => volume.close().catch(() => undefined));
  return volume;
}

/** Moves a clock on, 25 times as fast as real time, until something is settled. */
async function during<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => clock.advance(500), 20);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

const MIB = 2 ** 20;

/** The machine's disk, whose direct writes do at most so many bytes at once. */
function diskWithDirectWritesOf(maxBytes: number): Disk {
  const open: Disk['open'] = async (...args) => {
    const file = await systemDisk.open(...args);
    const { writeDirect } = file;
    return Object.assign(file, {
      writeDirect: (bytes: Uint8Array, from: number, length: number, position: number) =>
        maxBytes === 0 ? Promise.resolve(0) : writeDirect?.(bytes, from, Math.min(maxBytes, length), position),
    });
  };
  return { ...systemDisk, open };
}

t.test('what lies on disk is the AES-256-CTR of what was written, under a fresh key for each segment', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = temporaryFolder(t);
  const salts = new Set<string>();
  const written: Buffer[] = [];
  for (let run = 0; run < 3; run++) {
    // the last two are disks without direct writes, and with interrupted ones
    const volume = await opened(t, dir, run === 0 ? {} : { disk: diskWithDirectWritesOf(run === 1 ? 0 : 8_192) });
    for (let i = 0; i < 3; i++) {
      const data = random.bytes(random.between(1, MIB));
      await writeFileAt(volume.vfs, 1, `file-${run}-${i}`, data);
      written.push(data);
    }
    if (run === 1) await volume.segments.seal();
    await (run < 2 ? abandon(volume) : volume.close());
  }
  const volume = await opened(t, dir);
  const stream = Buffer.concat(written);
  let at = 0;
  for (const shard of volume.files.shards().sort((a, b) => a - b)) {
    const { salt, sizeBytes, id } = volume.tree.requireShard(shard);
    t.notOk(salts.has(Buffer.from(salt).toString('hex')), `shard ${shard} has a salt of its own`);
    salts.add(Buffer.from(salt).toString('hex'));
    const file = readFileSync(volume.files.path(shard));
    t.equal(file.length, fileSizeOf(sizeBytes));
    const plain = stream.subarray(at, at + sizeBytes);
    const oracle = ctr(shardKey(DATA_KEY, salt), new Uint8Array(16)).encrypt(plain);
    t.ok(file.subarray(0, sizeBytes).equals(oracle), `shard ${shard} as @noble/ciphers encrypts it`);
    // a few bytes may be anywhere
    if (plain.length >= 32) t.notOk(file.includes(plain.subarray(0, 32)), 'no plaintext');
    const leaves = leafHashes(file.subarray(0, sizeBytes));
    t.ok(shardIdOf(leaves, sizeBytes).equals(id) && file.subarray(sizeBytes).equals(leaves), 'with its leaf hashes');
    at += sizeBytes;
  }
  t.equal(at, stream.length, 'all bytes, in the order of writing');
});

t.test('after a crash an open segment is sealed as it was committed, never continued', async (t) => {
  const dir = temporaryFolder(t);
  const first = await opened(t, dir);
  const kept = await writeFileAt(first.vfs, 1, 'kept', Buffer.alloc(100, 'k'));
  const { attributes, file } = await first.vfs.create(1, 'lost', 0o100644, 2, CALLER);
  await first.vfs.write(attributes.ino, file.handle, 0, Buffer.alloc(50, 'l'), false);
  t.equal(first.tree.requireShard(1).sizeBytes, 150);
  await first.segments.barrier.wait(false);
  t.equal(statSync(first.files.path(1)).size, 150, 'more bytes on disk than were committed');
  const salt = Buffer.from(first.tree.requireShard(1).salt);
  await abandon(first);

  const second = await opened(t, dir);
  t.same(second.lost, []);
  const shard = second.tree.requireShard(1);
  t.equal(shard.sizeBytes, 100);
  t.equal(shard.id.length, 32);
  t.equal(statSync(second.files.path(1)).size, fileSizeOf(100), 'cut to what was committed');
  t.equal(second.tree.dentry(1, 'lost'), undefined);
  t.equal((await readAll(second.vfs, kept)).toString(), 'k'.repeat(100));
  await writeFileAt(second.vfs, 1, 'more', Buffer.alloc(10, 'm'));
  t.equal(second.tree.requireShard(1).sizeBytes, 100);
  t.equal(second.tree.requireShard(2).sizeBytes, 10);
  await abandon(second);

  // a segment of which nothing was committed: its number comes again, its key never
  const third = await opened(t, dir);
  third.store.setBarrier({ ...NO_BARRIER, wait: () => Promise.reject(new Error('no')) });
  const made = await third.vfs.create(1, 'gone', 0o100644, 2, CALLER);
  await third.vfs.write(made.attributes.ino, made.file.handle, 0, Buffer.alloc(10, 'g'), false);
  await third.segments.barrier.wait(true);
  const before = Buffer.from(third.tree.requireShard(3).salt);
  await abandon(third);
  const fourth = await opened(t, dir);
  t.equal(fourth.tree.shard(3), undefined);
  const ino = await writeFileAt(fourth.vfs, 1, 'new', Buffer.alloc(20, 'n'));
  t.notOk(before.equals(fourth.tree.requireShard(3).salt));
  t.notOk(salt.equals(fourth.tree.requireShard(3).salt));
  await fourth.segments.seal();
  t.equal((await readAll(fourth.vfs, ino)).toString(), 'n'.repeat(20));
});

t.test('bytes lost with the power are found at the next start', async (t) => {
  const damages: [string, (path: string) => void][] = [
    ['cut off', (path) => truncateSync(path, 60)],
    ['gone', (path) => rmSync(path)],
    ['zeroed', (path) => writeFileSync(path, Buffer.alloc(100))],
  ];
  for (const [name, damage] of damages) {
    for (const sealed of [false, true]) {
      if (sealed && name === 'zeroed') continue; // met by the reader, leaf by leaf
      const dir = temporaryFolder(t);
      const first = await opened(t, dir);
      const ino = await writeFileAt(first.vfs, 1, 'a', Buffer.alloc(100, 'a'));
      if (sealed) await first.segments.seal();
      await first.store.commit();
      await abandon(first);
      damage(first.files.path(1));
      const second = await opened(t, dir);
      t.same(second.lost, [1], `${sealed ? 'sealed' : 'open'}, ${name}`);
      await t.rejects(readAll(second.vfs, ino), 'never wrong bytes');
      await second.close();
    }
  }
});

t.test('all bytes that a commit refers to are in their files before the index names them', async (t) => {
  const volume = await opened(t, temporaryFolder(t));
  const seen: boolean[] = [];
  volume.store.setBarrier({
    ...NO_BARRIER,
    wait: async (sync) => {
      const named = volume.tree.requireShard(1).sizeBytes;
      await volume.segments.barrier.wait(sync);
      seen.push(statSync(volume.files.path(1)).size >= named);
    },
  });
  const { attributes, file } = await volume.vfs.create(1, 'a', 0o100644, 2, CALLER);
  for (let n = 0; n < 50; n++) {
    await volume.vfs.write(attributes.ino, file.handle, n * 1_000, Buffer.alloc(1_000, n), false);
    await (n % 5 === 0 ? volume.vfs.fsync() : volume.vfs.flush(attributes.ino, file.handle));
  }
  t.equal(seen.length, 50);
  t.ok(seen.every(Boolean));
});

t.test('segments are sealed when full, idle, old, or asked to', async (t) => {
  const clock = new FakeClock();
  const volume = await opened(t, temporaryFolder(t), { clock, seal: { idleMs: 2_000, maxAgeMs: 15_000 } });
  const data = Buffer.alloc(MIB, 7);
  const ino = await writeFileAt(volume.vfs, 1, 'a', data);
  const write = (offset: number, bytes: Buffer): unknown => volume.vfs.write(ino, 0, offset, bytes, false);
  await write(MIB, data);
  await until('a full segment is sealed', () => volume.sealed.length === 1);
  t.equal(volume.tree.requireShard(1).sizeBytes, MAX_SHARD_SIZE_BYTES);
  t.equal(volume.segments.unsealedBytes, 0);

  await write(0, Buffer.from('x'));
  clock.advance(2_000);
  await until('an idle segment is sealed', () => volume.sealed.length === 2);

  for (let n = 0; n < 16; n++) {
    await write(0, Buffer.from('y'));
    clock.advance(999);
  }
  await until('a busy segment is sealed once it is old', () => volume.sealed.length === 3);

  await write(0, Buffer.from('z'));
  await volume.segments.seal();
  t.same(volume.sealed.toSorted(), [1, 2, 3, 4]);

  volume.segments.setSize(262_144);
  await write(0, data);
  await volume.segments.seal();
  t.same(volume.sealed.toSorted(), [1, 2, 3, 4, 5, 6, 7, 8]);
  t.equal(volume.tree.requireShard(8).sizeBytes, 262_144);
  volume.segments.setSize(0);
  volume.segments.setSize(MAX_SHARD_SIZE_BYTES + 1);
  await write(0, data);
  await volume.segments.seal();
  t.equal(volume.sealed.length, 12, 'an impossible size changes nothing');
  t.ok((await readAll(volume.vfs, ino)).equals(Buffer.concat([data, data])));
});

t.test('memory is used again without harm to those who read', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const volume = await opened(t, temporaryFolder(t));
  const files: { ino: number; data: Buffer }[] = [];
  let wrong = 0;
  for (let n = 0; n < 40; n++) {
    const data = random.bytes(random.between(MIB, 2 * MIB));
    files.push({ ino: await writeFileAt(volume.vfs, 1, `f${n}`, data), data });
    const checks = [files.at(-1), random.pick(files), random.pick(files)].map(async (file) => {
      if (file !== undefined && !(await readAll(volume.vfs, file.ino)).equals(file.data)) wrong++;
    });
    await Promise.all(checks);
  }
  t.equal(wrong, 0);
  await volume.close();
  const again = await opened(t, volume.dir);
  for (const { ino, data } of files) if (!(await readAll(again.vfs, ino)).equals(data)) wrong++;
  t.equal(wrong, 0);
  t.same(again.damaged, []);
});

t.test('while the cache folder cannot be written, bytes stay readable and nothing is acknowledged', async (t) => {
  const clock = new FakeClock();
  const volume = await opened(t, temporaryFolder(t), { clock });
  const folder = join(volume.dir, 'cache', '0');
  writeFileSync(folder, 'in the way');
  const { attributes, file } = await volume.vfs.create(1, 'a', 0o100644, 2, CALLER);
  const { ino } = attributes;
  const data = Buffer.alloc(MAX_SHARD_SIZE_BYTES + 5_000, 'a');
  await volume.vfs.write(ino, file.handle, 0, data.subarray(0, MIB), false);
  await volume.vfs.write(ino, file.handle, MIB, data.subarray(MIB, 2 * MIB), false);
  await volume.vfs.write(ino, file.handle, 2 * MIB, data.subarray(2 * MIB), false);
  await t.rejects(async () => volume.vfs.flush(ino, file.handle), 'close(2) says it');
  t.throws(() => volume.vfs.write(ino, file.handle, 0, data.subarray(0, 10), false), 'and so do later writes');
  t.throws(() => volume.vfs.mkdir(1, 'd', 0o755, CALLER));
  t.ok((await readAll(volume.vfs, ino)).equals(data), 'readable');
  t.same(volume.sealed.toSorted(), []);

  rmSync(folder);
  await during(
    clock,
    until('the full segment is sealed', () => volume.sealed.length > 0),
  );
  await volume.vfs.flush(ino, file.handle);
  t.ok((await readAll(volume.vfs, ino)).equals(data));
  await volume.vfs.mkdir(1, 'd', 0o755, CALLER);

  // and with a folder that is there, but not for us
  renameSync(folder, `${folder}-aside`);
  writeFileSync(folder, 'in the way');
  await volume.vfs.write(ino, file.handle, 0, Buffer.from('b'), false);
  await volume.vfs.flush(ino, file.handle);
  const sealing = volume.segments.seal();
  rmSync(folder);
  renameSync(`${folder}-aside`, folder);
  await during(clock, sealing);
  await volume.close();
  const again = await opened(t, volume.dir);
  data[0] = 'b'.charCodeAt(0);
  t.ok((await readAll(again.vfs, ino)).equals(data), 'after a restart');
});

t.test('what could not be sealed when stopping is whole at the next start', async (t) => {
  const volume = await opened(t, temporaryFolder(t));
  const data = Buffer.alloc(300_000, 's');
  const ino = await writeFileAt(volume.vfs, 1, 'a', data);
  await volume.store.commit(true);
  const { hasher } = volume;
  hasher.hash = () => Promise.reject(new Error('no thread'));
  await volume.close();
  const again = await opened(t, volume.dir);
  t.same(again.lost, []);
  t.ok((await readAll(again.vfs, ino)).equals(data));
});

t.test('a full cache lets writers wait for uploads, and fails them when none come', async (t) => {
  const clock = new FakeClock();
  const capBytes = 24 * MIB;
  const volume = await opened(t, temporaryFolder(t), { clock, capBytes });
  const { attributes, file } = await volume.vfs.create(1, 'a', 0o100644, 2, CALLER);
  const { ino } = attributes;
  const block = Buffer.alloc(MIB, 'w');
  let offset = 0;
  const write = async (): Promise<void> => {
    await volume.vfs.write(ino, file.handle, offset, block, false);
    offset += MIB;
  };
  const fill = async (): Promise<void> => {
    for (;;) await write();
  };
  await t.rejects(during(clock, fill()), { code: 'ENOSPC' });
  t.ok(offset > 12 * MIB, `${offset / MIB} MiB were taken`);
  t.ok(volume.files.usedBytes <= capBytes);
  await volume.segments.seal();
  t.equal((await readAll(volume.vfs, ino, MIB)).length, offset, 'the rest stays readable');
  await volume.vfs.flush(ino, file.handle);

  const waiting = write();
  await volume.upload();
  await waiting;
  t.pass('an upload made room');
  await t.rejects(during(clock, fill()), { code: 'ENOSPC' });
  t.ok(volume.files.usedBytes <= capBytes, 'never over the cap');
  t.equal((await readAll(volume.vfs, ino, MIB)).length, offset);
});

t.test(
  'a full disk is ENOSPC, and what was written stays',
  { skip: process.getuid?.() !== 0 && 'root only' },
  async (t) => {
    const dir = temporaryFolder(t);
    const cache = join(dir, 'cache');
    await mkdir(cache);
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=84m', 'none', cache]).status !== 0) {
      return t.comment('no tmpfs here');
    }
    t.teardown(() => spawnSync('umount', ['-l', cache]));
    const clock = new FakeClock();
    const volume = await openVolume(dir, { clock });
    const ino = await writeFileAt(volume.vfs, 1, 'a', Buffer.alloc(1_000, 'a'));
    let offset = 0;
    const fill = async (): Promise<void> => {
      for (; ; offset += MIB) await volume.vfs.write(ino, 0, offset, Buffer.alloc(MIB, 'b'), false);
    };
    await t.rejects(during(clock, fill()), { code: 'ENOSPC' });
    t.ok(offset >= 10 * MIB, `${offset / MIB} MiB were taken`);
    await volume.vfs.unlink(1, 'a');
    await volume.vfs.mkdir(1, 'names still fit', 0o755, CALLER);
    await volume.store.commit(true);
    await volume.close();
    t.ok(existsSync(cache));
  },
);

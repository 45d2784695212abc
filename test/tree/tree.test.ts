import { join } from 'node:path';
import t from 'tap';
import { WINDOW_SIZE_BYTES } from '../../src/tree/extents.ts';
import { KIND } from '../../src/tree/keys.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import type { Inode } from '../../src/tree/records.ts';
import { isTallied, TallyCount } from '../../src/tree/tally.ts';
import { Tree } from '../../src/tree/tree.ts';
import { pickSeed, Random } from '../support/random.ts';
import { indexSealer, LINEAGE, temporaryFolder } from '../support/volume.ts';
import type { Scope } from '../support/volume.ts';

const FILE = { mode: 0o100644, uid: 1, gid: 1, nlink: 1 };
const UNIT = 65_536;

async function openTree(t: Scope, dir: string): Promise<Tree> {
  const store = await RecordStore.open(join(dir, 'index'), indexSealer(), LINEAGE);
  store.setRecording(true);
  t.teardown(() => store.close().catch(() => undefined));
  const tree = new Tree(store, Buffer.alloc(32, 9));
  if (tree.isEmpty) tree.format({ uid: 1, gid: 1 }, 5n);
  return tree;
}

async function countOf(tree: Tree, kind: string): Promise<number> {
  await tree.store.commit();
  let count = 0;
  for await (const _ of tree.store.plaintexts(kind)) count++;
  return count;
}

t.test('a new tree has a root directory and counts it', async (t) => {
  const tree = await openTree(t, temporaryFolder(t));
  t.match(tree.inode(1), { ino: 1, mode: 0o040700, nlink: 2, parent: 1, uid: 1, mtimeNs: 5n });
  t.match(tree.counters, { nextIno: 2, nextShard: 1, inodes: 1, storedBytes: 0 });
  t.equal(tree.createInode(FILE, 6n).ino, 2);
  t.equal(tree.counters.inodes, 2);
});

t.test('random writes and cuts keep files, counters and live bytes of shards right', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = temporaryFolder(t);
  let tree = await openTree(t, dir);
  const units = (5 * WINDOW_SIZE_BYTES) / UNIT;
  const inos = [1, 2, 3].map(() => tree.createInode(FILE, 1n).ino);
  const shards = [1, 2, 3, 4].map(() => tree.createShard(Buffer.alloc(32)));
  // per unit of a file: shard and unit in it, or 0
  const models = new Map(inos.map((ino) => [ino, new Array<number>(units).fill(0)]));
  const shown = (ino: number): number[] => {
    const found: number[] = [];
    for (const span of tree.extents.spans(ino, 0, units * UNIT)) {
      for (let i = 0; i < span.lengthBytes; i += UNIT) {
        found.push(span.shard === 0 ? 0 : span.shard * 1_000_000 + (span.shardOffset + i) / UNIT);
      }
    }
    return found;
  };
  for (let step = 0; step < 1_500; step++) {
    const ino = random.pick(inos);
    const model = models.get(ino) as number[];
    const inode = tree.inode(ino) as Inode;
    const from = random.below(units);
    if (random.below(4) > 0) {
      const length = Math.min(units - from, 1 + random.below(40));
      const shard = random.pick(shards);
      const shardUnit = random.below(1_000);
      tree.extents.put(inode, from * UNIT, length * UNIT, shard, shardUnit * UNIT);
      inode.sizeBytes = Math.max(inode.sizeBytes, (from + length) * UNIT);
      tree.touch(inode);
      for (let i = 0; i < length; i++) model[from + i] = shard * 1_000_000 + shardUnit + i;
    } else {
      await tree.extents.free(inode, from * UNIT, Infinity, false);
      model.fill(0, from);
      t.ok(inode.sizeBytes <= from * UNIT);
    }
    if (step % 100 === 99) await tree.store.commit();
    if (step % 500 === 499) {
      await tree.store.close();
      tree = await openTree(t, dir);
    }
    if (shown(ino).join() !== model.join()) return t.fail(`step ${step}: the file differs`);
  }
  const all = [...models.values()].flat().filter((unit) => unit !== 0);
  t.equal(tree.counters.storedBytes, all.length * UNIT);
  for (const shard of shards) {
    const live = all.filter((unit) => Math.floor(unit / 1_000_000) === shard).length;
    t.equal(tree.requireShard(shard).liveBytes, live * UNIT, `live bytes of shard ${shard}`);
  }
  for (const [ino, model] of models) {
    t.equal(tree.inode(ino)?.storedBytes, model.filter((unit) => unit !== 0).length * UNIT);
    await tree.removeInode(tree.inode(ino) as Inode);
  }
  t.equal(tree.counters.storedBytes, 0);
  t.equal(tree.counters.inodes, 1);
  for (const shard of shards) t.equal(tree.requireShard(shard).liveBytes, 0);
  t.equal(await countOf(tree, KIND.window), 0);
});

t.test('a huge sparse file is cut and removed by what it holds, and found again after a crash', async (t) => {
  const dir = temporaryFolder(t);
  let tree = await openTree(t, dir);
  let inode = tree.createInode(FILE, 1n);
  const { ino } = inode;
  const shard = tree.createShard(Buffer.alloc(32));
  for (const at of [0, 2 ** 30, 2 ** 40, 2 ** 43]) tree.extents.put(inode, at, 10, shard, 0);
  inode.sizeBytes = 2 ** 43 + 10;
  tree.touch(inode);
  await tree.extents.free(inode, 2 ** 40 + 4, Infinity, false);
  t.equal(tree.inode(ino)?.sizeBytes, 2 ** 40 + 4);
  t.equal(tree.inode(ino)?.storedBytes, 24);
  t.equal(await countOf(tree, KIND.window), 3);
  tree.putXattrs(inode, new Map([['user.a', Buffer.from('b')]]));
  inode.nlink = 0;
  const removal = tree.removeInode(inode);
  t.type(removal, Promise);
  t.same(await tree.orphans(), []);
  await tree.store.commit();
  // as a restart would see it, had the removal not come to its end
  await removal;
  t.equal(tree.inode(ino), undefined);
  t.same([...tree.xattrs(ino)], []);
  t.equal(tree.counters.storedBytes, 0);

  inode = tree.createInode({ ...FILE, nlink: 0, sizeBytes: 2 ** 43 }, 1n);
  tree.extents.put(inode, 2 ** 42, 10, shard, 0);
  tree.markOrphan(inode.ino);
  tree.touch(inode);
  await tree.store.close();
  tree = await openTree(t, dir);
  t.same(await tree.orphans(), [inode.ino]);
  await tree.removeInode(tree.inode(inode.ino) as Inode);
  await tree.store.commit();
  t.same(await tree.orphans(), []);
  t.equal(await countOf(tree, KIND.window), 0);
});

t.test('dentries are found by name, listed in the order of their positions, and from any of them on', async (t) => {
  const tree = await openTree(t, temporaryFolder(t));
  const names = [...Array(500).keys()].map((n) => `name-${n}`).concat('\xff'.repeat(255), 'ä', '.');
  // number 255 is the last before a carry in the key
  for (const parent of [254, 255, 256]) {
    for (const name of names) tree.putDentry(parent, { name, ino: parent * 1_000, type: 0o100000 });
  }
  tree.deleteDentry(255, 'name-3');
  t.equal(tree.dentry(255, 'name-3'), undefined);
  t.same(tree.dentry(256, 'name-3'), { name: 'name-3', ino: 256_000, type: 0o100000 });
  await tree.store.commit();
  const listed: { name: string; position: bigint }[] = [];
  for await (const { dentry, position } of tree.dentries(255, 0n)) {
    t.equal(dentry.ino, 255_000);
    listed.push({ name: dentry.name, position });
  }
  t.same(new Set(listed.map(({ name }) => name)), new Set(names.filter((name) => name !== 'name-3')));
  t.ok(listed.every(({ position }, i) => i === 0 || position > (listed[i - 1]?.position ?? 0n)));
  const rest: string[] = [];
  for await (const { dentry } of tree.dentries(255, listed[200]?.position ?? 0n)) rest.push(dentry.name);
  t.same(
    rest,
    listed.slice(200).map(({ name }) => name),
  );
});

t.test('folders whose names are known answer as their records do, and the tally counts them right', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = temporaryFolder(t);
  let tree = await openTree(t, dir);
  const folder = { ...FILE, mode: 0o040700 };
  const folders = [1, ...[1, 2, 3].map(() => tree.createInode(folder, 1n).ino)];
  // one is too large to be known
  const large = tree.createInode(folder, 1n).ino;
  for (let n = 0; n < 13_000; n++) tree.putDentry(large, { name: `name-${n}`, ino: n, type: 0o100000 });
  for (let step = 1; step <= 800; step++) {
    const parent = random.pick([...folders, large]);
    const name = `name-${random.below(40)}`;
    if (random.below(2) === 0) tree.putDentry(parent, { name, ino: step, type: 0o100000 });
    else if (tree.dentry(parent, name) !== undefined) tree.deleteDentry(parent, name);
    if (random.below(10) === 0) void tree.store.commit();
    if (random.below(20) === 0) await tree.store.commit();
    if (random.below(40) === 0) tree.forgetNames(random.pick(folders));
    if (random.below(40) === 0) {
      const other = new Tree(tree.store, Buffer.alloc(32, 9));
      const gone = random.pick(folders);
      for (let n = 0; n < 40; n++) if (other.dentry(gone, `name-${n}`)) other.deleteDentry(gone, `name-${n}`);
      tree.forgetNames();
    }
    if (random.below(200) === 0) {
      await tree.store.close();
      tree = await openTree(t, dir);
    }
    if (step % 4 !== 0) continue;
    const at = random.pick(folders);
    const records = new Tree(tree.store, Buffer.alloc(32, 9));
    const listed: { name: string; position: bigint }[] = [];
    for await (const { dentry, position } of records.dentries(at, 0n)) listed.push({ name: dentry.name, position });
    const names = listed.map((entry) => entry.name);
    for (let n = 0; n < 40; n++) {
      const found = [tree.dentry(at, `name-${n}`), records.dentry(at, `name-${n}`)];
      if (found[0]?.ino !== found[1]?.ino) t.same(found[0], found[1], `name-${n} of ${at} in step ${step}`);
    }
    const whole = await tree.listDentries(at, 0n, 64);
    t.same([whole.dentries.map(({ dentry }) => dentry.name), whole.isWhole], [names, true], `step ${step}`);
    const from = listed[5]?.position ?? 2n ** 64n - 1n;
    const part = await tree.listDentries(at, from, 3);
    if (!(tree.listDentries(at, 0n, 1) instanceof Promise))
      t.equal(part.dentries.length, Math.min(3, names.slice(5).length));
    t.same(part.dentries[0]?.dentry.name, names[5]);
  }
  await tree.store.commit();
  const snapshot = tree.store.snapshot();
  const count = new TallyCount();
  for await (const { key, stamp } of tree.store.scan(snapshot)) if (isTallied(key.charAt(0))) count.replace(0n, stamp);
  await snapshot.close();
  t.match(tree.store.tally, { records: count.records, sum: count.sum });
});

t.test('a shard is staged until it is durable, and known until it is published', async (t) => {
  const tree = await openTree(t, temporaryFolder(t));
  const shard = tree.createShard(Buffer.alloc(32, 5));
  t.equal(tree.isStaged(shard), true);
  await tree.store.commit();
  t.same(await tree.uploads(), [{ shard, upload: { durable: false } }]);
  tree.putUpload(shard, { durable: true });
  t.equal(tree.isStaged(shard), false);
  tree.deleteUpload(shard);
  await tree.store.commit();
  t.same(await tree.uploads(), []);
  t.throws(() => tree.requireShard(99), { code: 'CORRUPT_RECORD' });
});

// A check of the index finds nothing in a sound one, and any record that was lost, put back or changed.

import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import t from 'tap';
import { TreeCheck } from '../../src/tree/check-tree.ts';
import type { TreeSummary } from '../../src/tree/check-tree.ts';
import { Findings } from '../../src/tree/findings.ts';
import { COUNTERS_KEY, KIND, shardKeyOf } from '../../src/tree/keys.ts';
import { inodesUsing, pathsOf } from '../../src/tree/names.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import type { Shard } from '../../src/tree/records.ts';
import { TALLY_SLOTS } from '../../src/tree/tally.ts';
import { pickSeed, Random } from '../support/random.ts';
import { findingsIn } from '../support/findings.ts';
import { CALLER, indexSealer, LINEAGE, NAME_KEY, openVolume, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume } from '../support/volume.ts';

const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

type Database = Level<Buffer, Buffer>;

function openRaw(dir: string): Database {
  return new Level<Buffer, Buffer>(join(dir, 'index'), { keyEncoding: 'buffer', valueEncoding: 'buffer' });
}

async function check({ store }: OpenVolume): Promise<{ found: Findings; summary: TreeSummary }> {
  await store.commit();
  const found = new Findings();
  const summary = await new TreeCheck(store, NAME_KEY, found).run();
  return { found, summary };
}

/** A volume with a record of every kind. */
async function fill(volume: OpenVolume): Promise<void> {
  const { vfs, segments, store } = volume;
  const dir = await vfs.mknod(1, 'dir', 0o040755, 0, CALLER);
  const deep = await vfs.mknod(dir.ino, 'deep', 0o040755, 0, CALLER);
  const file = await writeFileAt(vfs, deep.ino, 'file', random.bytes(50_000));
  await vfs.link(file, 1, 'second name');
  await vfs.setxattr(file, 'user.a', Buffer.from('b'), 0);
  const removed = await writeFileAt(vfs, 1, 'removed', random.bytes(1_000));
  await vfs.open(removed, 0);
  await vfs.unlink(1, 'removed');
  await segments.seal();
  await volume.upload();
  await writeFileAt(vfs, dir.ino, 'staged', random.bytes(2_500_000));
  for (let n = 0; n < 50; n++) {
    await vfs.mknod(1, `file ${n}`, 0o100644, 0, CALLER);
    await store.commit(n % 7 === 0);
  }
  for (let n = 0; n < 20; n++) await vfs.unlink(1, `file ${n}`);
  await vfs.rename(1, 'file 30', dir.ino, 'moved', 0);
}

await t.test('nothing is found in a sound index, after a restart either, and past the ring of tallies', async (t) => {
  const dir = temporaryFolder(t);
  let volume = await openVolume(dir);
  await fill(volume);
  const { found, summary } = await check(volume);
  t.strictSame(found.list, []);
  t.equal(summary.inodes, 36);
  const inodes = await inodesUsing(volume.store, new Set([1]));
  t.strictSame([...(await pathsOf(volume.store, inodes)).values()].sort(), ['/second name']);
  await volume.close();
  volume = await openVolume(dir);
  for (let n = 0; n < TALLY_SLOTS + 10; n++) {
    volume.tree.touch(volume.tree.inode(1)!);
    await volume.store.commit();
  }
  t.strictSame((await check(volume)).found.list, []);
  await volume.close();
});

await t.test('a record of any kind that is gone, old, flipped or at another place is found', async (t) => {
  const dir = temporaryFolder(t);
  let volume = await openVolume(dir);
  await fill(volume);
  await volume.close();
  const db = openRaw(dir);
  const old = new Map<string, Buffer>();
  for await (const [key, value] of db.iterator()) old.set(key.toString('latin1'), value);
  await db.close();
  volume = await openVolume(dir);
  for (const ino of [1, 2, 3]) volume.tree.touch(volume.tree.inode(ino)!);
  await volume.close();

  /** What is found, or the refusal to open, after a change by hand of a copy. */
  const after = async (change: (db: Database) => Promise<unknown>): Promise<string[]> => {
    const copy = `${dir}/copy`;
    cpSync(join(dir, 'index'), join(copy, 'index'), { recursive: true });
    cpSync(join(dir, 'cache'), join(copy, 'cache'), { recursive: true });
    const raw = openRaw(copy);
    await change(raw);
    await raw.close();
    let changed: OpenVolume | null = null;
    try {
      changed = await openVolume(copy);
      return (await check(changed)).found.list.map(({ message }) => message);
    } catch (error) {
      return [`refused: ${(error as Error).message}`];
    } finally {
      await changed?.close().catch(() => undefined);
      rmSync(copy, { recursive: true });
    }
  };
  await db.open();
  const all: [Buffer, Buffer][] = [];
  for await (const entry of db.iterator()) all.push(entry);
  await db.close();
  const kinds = new Set(Object.values(KIND) as string[]);
  kinds.delete(KIND.checkpoint);
  kinds.delete(KIND.tally);
  for (const kind of kinds) {
    const some = all.filter(([key]) => key.toString('latin1').startsWith(kind));
    // a volume without uploads and log has none of these
    if (some.length === 0 && kind === KIND.meta) continue;
    const [key, value] = random.pick(some);
    t.ok((await after((raw) => raw.del(key))).length > 0, `${kind}: gone`);
    const flipped = Buffer.from(value);
    flipped[random.between(1, value.length)]! ^= 1 << random.below(8);
    t.ok((await after((raw) => raw.put(key, flipped))).length > 0, `${kind}: flipped`);
  }
  const root = all.find(([key]) => key.toString('latin1') === `i${'\0'.repeat(7)}\x01`)!;
  const before = old.get(root[0].toString('latin1'))!;
  t.strictSame(await after(async () => undefined), [], 'nothing');
  const found = await after((raw) => raw.put(root[0], before));
  t.strictSame(found, ['some of its records are older or newer than they should be'], 'old');
});

await t.test('batches that are gone from the middle or the end are missed at the next start', async (t) => {
  const dir = temporaryFolder(t);
  const volume = await openVolume(dir);
  await fill(volume);
  await volume.close();
  const db = openRaw(dir);
  await db.open();
  const slots = await db.keys({ gte: Buffer.from(KIND.tally), lt: Buffer.from('u') }).all();
  const last = slots.at(-1)!;
  for (const slot of [slots[slots.length >> 1]!, last]) {
    const value = await db.get(slot);
    await db.del(slot);
    await db.close();
    await t.rejects(openVolume(dir), { code: 'CORRUPT_RECORD', message: /xcore fsck --repair/ });
    await db.open();
    await db.put(slot, value);
  }
  await db.close();
});

await t.test('an index from before there were tallies is counted once, if that is what it is', async (t) => {
  const dir = temporaryFolder(t);
  const volume = await openVolume(dir);
  await fill(volume);
  await volume.close();
  const db = openRaw(dir);
  await db.open();
  await db.clear({ gte: Buffer.from(KIND.tally), lt: Buffer.from('u') });
  await db.close();
  rmSync(join(dir, 'index/closed.json'));
  rmSync(join(dir, 'index/journal'));
  await t.rejects(openVolume(dir), { code: 'CORRUPT_RECORD' }, 'refused where there must be tallies');
  for (const adopt of [true, false]) {
    const store = await RecordStore.open(join(dir, 'index'), indexSealer(), LINEAGE, { adopt });
    t.ok(store.tally.records > 60 && store.lastCommit > 50 && store.firstUnpublished === 1);
    t.strictSame(await findingsIn({ store }), []);
    await store.close();
  }
});

await t.test('records that contradict each other are found, though each is whole', async (t) => {
  const volume = await openVolume(temporaryFolder(t));
  await fill(volume);
  const { tree, store } = volume;
  const messages = async (): Promise<string> =>
    (await check(volume)).found.list.map(({ message }) => message).join('\n');
  const shard = tree.requireShard(1);
  tree.putShard(1, { ...shard, liveBytes: shard.liveBytes + 1 });
  t.match(await messages(), /shard 1, and it says/);
  tree.putShard(1, { ...(store.get(shardKeyOf(1)) as Shard), liveBytes: shard.liveBytes });
  t.equal(await messages(), '');
  const root = tree.inode(1)!;
  for (const field of ['nlink', 'entries'] as const) {
    root[field]++;
    tree.touch(root);
    t.match(await messages(), /the directory with inode 1/);
    root[field]--;
    tree.touch(root);
  }
  const { counters } = tree;
  for (const field of ['inodes', 'storedBytes'] as const) {
    counters[field]++;
    store.put(COUNTERS_KEY, counters);
    t.match(await messages(), /the counter of/);
    counters[field]--;
    store.put(COUNTERS_KEY, counters);
  }
  t.equal(await messages(), '');
  await volume.close();
});

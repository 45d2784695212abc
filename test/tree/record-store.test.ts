import { spawn, spawnSync } from 'node:child_process';
import { NO_BARRIER } from '../../src/tree/durability.ts';
import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Level } from 'level';
import t from 'tap';
import { fromBinary } from '@bufbuild/protobuf';
import { hasCode } from '../../src/lib/errors.ts';
import { inodeKey, keyBytes, KIND, shardKeyOf, uploadKey, xattrsKey } from '../../src/tree/keys.ts';
import { ChangeSetSchema } from '../../src/tree/proto/tree_pb.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import type { StoreOptions } from '../../src/tree/record-store.ts';
import type { Inode, Xattrs } from '../../src/tree/records.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { pickSeed, Random } from '../support/random.ts';
import { indexSealer, LINEAGE, temporaryFolder } from '../support/volume.ts';
import type { Scope } from '../support/volume.ts';

const COMMITTER = fileURLToPath(new URL('./committer.ts', import.meta.url));

async function openStore(t: Scope, dir: string, recording = true, options?: StoreOptions): Promise<RecordStore> {
  const store = await RecordStore.open(join(dir, 'index'), indexSealer(), LINEAGE, options);
  t.teardown(() => store.close().catch(() => undefined));
  if (recording) store.setRecording(true);
  return store;
}

function inode(ino: number, sizeBytes = 0): Inode {
  return {
    ...{ ino, mode: 0o100644, uid: 1, gid: 2, nlink: 1, sizeBytes, rdev: 0, parent: 0, entries: 0, storedBytes: 0 },
    ...{ atimeNs: 1n, mtimeNs: -2n, ctimeNs: 2n ** 62n, btimeNs: 4n, symlinkTarget: new Uint8Array(0) },
    hasXattrs: false,
  };
}

/** A barrier that stands until it is opened or broken. */
function gate(store: RecordStore): { open: () => void; fail: (error: Error) => void; entered: Promise<void> } {
  const entered = Promise.withResolvers<void>();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined);
  store.setBarrier({
    ...NO_BARRIER,
    wait: () => {
      entered.resolve();
      return promise;
    },
  });
  return { open: resolve, fail: reject, entered: entered.promise };
}

/** Keys and plaintext values of the outbox: what each commit recorded. */
async function recorded(store: RecordStore): Promise<{ commit: number; keys: string[] }[]> {
  const found: { commit: number; keys: string[] }[] = [];
  for await (const { value } of store.plaintexts(KIND.outbox)) {
    const set = fromBinary(ChangeSetSchema, value);
    const keys = set.changes.map(({ key, value: kept }) => `${kept ? '+' : '-'}${Buffer.from(key).toString('latin1')}`);
    found.push({ commit: Number(set.lastCommit), keys });
  }
  return found;
}

t.test('a record is seen changed, while it is committed, cached and after a restart', async (t) => {
  const dir = temporaryFolder(t);
  const store = await openStore(t, dir);
  const key = inodeKey(7);
  t.equal(store.get(key), undefined);
  store.put(key, inode(7, 100));
  t.equal((store.get(key) as Inode).sizeBytes, 100, 'dirty');

  const first = gate(store);
  const committed = store.commit();
  await first.entered;
  t.equal(store.dirtyRecords, 0);
  t.equal((store.get(key) as Inode).sizeBytes, 100, 'in flight');
  const changed = store.get(key) as Inode;
  changed.sizeBytes = 200;
  store.put(key, changed);
  store.delete(inodeKey(8));
  first.open();
  await committed;
  t.equal((store.get(key) as Inode).sizeBytes, 200, 'changed again while in flight');

  await store.commit();
  t.equal((store.get(key) as Inode).sizeBytes, 200, 'cached');
  await store.close();
  const again = await openStore(t, dir);
  t.same(again.get(key), { ...inode(7, 200) }, 'stored, field by field');
  again.delete(key);
  t.equal(again.get(key), undefined, 'deleted, not committed');
  await again.close();
  const last = await openStore(t, dir);
  t.equal(last.get(key), undefined, 'deleted');
});

t.test('a commit that waits for nothing new shares the fate of the one under way', async (t) => {
  const store = await openStore(t, temporaryFolder(t));
  store.put(inodeKey(7), inode(7));
  const blocked = gate(store);
  const first = store.commit();
  await blocked.entered;
  const second = store.commit();
  blocked.fail(new Error('disk'));
  await t.rejects(first, /disk/);
  await t.rejects(second, /disk/, 'nobody is told that the change is safe');
  t.equal((store.get(inodeKey(7)) as Inode).ino, 7, 'the change is kept');
  t.throws(() => store.assertHealthy(), /disk/);
  store.setBarrier(NO_BARRIER);
  await store.commit();
  t.doesNotThrow(() => store.assertHealthy());
  t.same((await recorded(store)).length, 1, 'and committed once');
});

t.test('a newer change wins over a failed one', async (t) => {
  const dir = temporaryFolder(t);
  const store = await openStore(t, dir);
  store.put(inodeKey(7), inode(7, 1));
  store.put(inodeKey(8), inode(8, 1));
  const blocked = gate(store);
  const first = store.commit();
  await blocked.entered;
  store.put(inodeKey(7), inode(7, 2));
  store.delete(inodeKey(8));
  blocked.fail(new Error('disk'));
  await t.rejects(first);
  store.setBarrier(NO_BARRIER);
  await store.commit();
  await store.close();
  const again = await openStore(t, dir);
  t.equal((again.get(inodeKey(7)) as Inode).sizeBytes, 2);
  t.equal(again.get(inodeKey(8)), undefined);
});

t.test('a failed sync of nothing new heals by itself', async (t) => {
  const store = await openStore(t, temporaryFolder(t));
  store.put(inodeKey(7), inode(7));
  await store.commit();
  store.setBarrier({ ...NO_BARRIER, wait: () => Promise.reject(new Error('disk')) });
  await t.rejects(store.commit(true), /disk/);
  t.throws(() => store.assertHealthy(), /disk/);
  store.setBarrier(NO_BARRIER);
  await store.commit();
  t.doesNotThrow(() => store.assertHealthy());
});

t.test('a commit asked for in the turn in which another ends is not left behind', async (t) => {
  const store = await openStore(t, temporaryFolder(t));
  for (let n = 0; n < 20; n++) {
    store.put(inodeKey(7), inode(7, n));
    await store.commit();
    await store.commit(true);
  }
  t.pass();
});

t.test('a sync reaches the barrier as a sync, also when nothing is new', async (t) => {
  const store = await openStore(t, temporaryFolder(t));
  const seen: boolean[] = [];
  store.setBarrier({ ...NO_BARRIER, wait: async (sync) => void seen.push(sync) });
  store.put(inodeKey(7), inode(7));
  await store.commit();
  await store.commit();
  await store.commit(true);
  await store.commit(true);
  t.same(seen, [false, true]);
});

t.test('commits record what is published, under rising numbers over restarts', async (t) => {
  const dir = temporaryFolder(t);
  let store = await openStore(t, dir);
  t.equal(store.lastCommit, 0);
  t.equal(store.firstUnpublished, 1);
  store.put(inodeKey(7), inode(7));
  store.put(uploadKey(3), { durable: false });
  await store.commit();
  store.put(uploadKey(4), { durable: false });
  await store.commit();
  store.delete(inodeKey(7));
  await store.commit();
  t.same(await recorded(store), [
    { commit: 1, keys: [`+${inodeKey(7)}`] },
    { commit: 2, keys: [`-${inodeKey(7)}`] },
  ]);
  await store.published(1);
  t.equal(store.firstUnpublished, 2);
  await store.close();

  store = await openStore(t, dir);
  t.equal(store.lastCommit, 2);
  t.equal(store.firstUnpublished, 2);
  await store.published(2);
  await store.close();

  // nothing is left to tell the number from, but the head of the log
  store = await RecordStore.open(join(dir, 'index'), indexSealer(), LINEAGE);
  store.setRecording(true, 2);
  t.equal(store.firstUnpublished, 3);
  store.put(inodeKey(9), inode(9));
  await store.commit();
  t.equal(store.lastCommit, 3);
  t.equal(store.firstUnpublished, 3);
  t.same(await recorded(store), [{ commit: 3, keys: [`+${inodeKey(9)}`] }]);
  await store.close();
});

t.test('what comes and goes between two commits is in none, and what a failed one may hold is', async (t) => {
  const dir = temporaryFolder(t);
  const store = await openStore(t, dir);
  store.put(inodeKey(7), inode(7));
  store.expectNone(inodeKey(8));
  t.equal(store.get(inodeKey(8)), undefined);
  store.put(inodeKey(8), inode(8));
  store.expectNone(inodeKey(9));
  store.put(inodeKey(9), inode(9));
  store.delete(inodeKey(9));
  await store.commit();
  store.delete(inodeKey(8));
  await store.commit();
  const blocked = gate(store);
  store.expectNone(inodeKey(10));
  store.put(inodeKey(10), inode(10));
  const failing = store.commit();
  await blocked.entered;
  store.delete(inodeKey(10));
  blocked.fail(new Error('disk'));
  await t.rejects(failing);
  store.setBarrier(NO_BARRIER);
  await store.commit();
  t.same(
    (await recorded(store)).map(({ keys }) => keys),
    [[`+${inodeKey(7)}`, `+${inodeKey(8)}`], [`-${inodeKey(8)}`], [`-${inodeKey(10)}`]],
  );
  t.equal(store.tally.records, 1, 'all are counted right');
  await store.close();
  const again = await openStore(t, dir);
  t.same(
    [7, 8, 9, 10].map((ino) => again.get(inodeKey(ino)) !== undefined),
    [true, false, false, false],
  );
});

t.test('a follower records nothing, and what the log carries already is not recorded', async (t) => {
  const store = await openStore(t, temporaryFolder(t), false);
  store.put(inodeKey(7), inode(7));
  await store.commit();
  t.same(await recorded(store), []);
  store.setRecording(true);
  const shard = {
    salt: Buffer.alloc(32),
    sizeBytes: 1,
    id: Buffer.alloc(32),
    liveBytes: 0,
    crc32: 0,
    syncedBytes: 0,
    syncedCrc32: 0,
  };
  for (const n of [1, 2, 3]) store.put(shardKeyOf(n), shard);
  await store.commit();
  store.deletePublished(shardKeyOf(1));
  store.deletePublished(shardKeyOf(2));
  store.put(shardKeyOf(2), shard);
  await store.commit();
  t.equal(store.get(shardKeyOf(1)), undefined);
  t.same((await recorded(store))[1]?.keys, [`+${shardKeyOf(2)}`], 'a later change is recorded again');

  // deleted while an earlier change of it is on its way
  store.put(shardKeyOf(3), shard);
  const blocked = gate(store);
  const first = store.commit();
  await blocked.entered;
  store.deletePublished(shardKeyOf(3));
  blocked.open();
  await first;
  await store.commit();
  t.equal(store.get(shardKeyOf(3)), undefined);
  t.same((await recorded(store)).length, 3, 'no commit carries the deletion');
});

t.test('a snapshot and a range show what is committed, in order, from a key on', async (t) => {
  const store = await openStore(t, temporaryFolder(t));
  for (const ino of [300, 1, 255, 256, 65_536]) store.put(inodeKey(ino), inode(ino));
  await store.commit();
  const snapshot = store.snapshot();
  store.put(inodeKey(2), inode(2));
  store.delete(inodeKey(255));
  await store.commit();
  const blocked = gate(store);
  store.put(inodeKey(3), inode(3));
  const list = async (options: { from?: Buffer; snapshot?: typeof snapshot } = {}): Promise<number[]> => {
    const found: number[] = [];
    for await (const { record } of store.range(KIND.inode, options)) found.push((record as Inode).ino);
    return found;
  };
  t.same(await list({ snapshot }), [1, 255, 256, 300, 65_536]);
  await snapshot.close();
  t.same(await list(), [1, 2, 256, 300, 65_536]);
  t.same(await list({ from: keyBytes(inodeKey(257)) }), [300, 65_536]);
  blocked.open();
});

t.test('the commit after a sync that failed is a sync, too', async (t) => {
  // no commit comes by itself
  const store = await openStore(t, temporaryFolder(t), true, { clock: new FakeClock() });
  const syncs: boolean[] = [];
  store.setBarrier({
    ...NO_BARRIER,
    wait: async (sync) => {
      syncs.push(sync);
      if (syncs.length === 1) throw new Error('the disk fails');
    },
  });
  store.put(inodeKey(2), inode(2));
  await t.rejects(store.commit(true), /the disk fails/);
  // records may say by now what a sync would have made true
  await store.commit();
  store.put(inodeKey(3), inode(3));
  await store.commit();
  t.same(syncs, [true, true, false]);
});

t.test('the index is open once', async (t) => {
  const dir = temporaryFolder(t);
  await openStore(t, dir);
  await t.rejects(openStore(t, dir), { code: 'HOME_LOCKED' });
});

t.test('no byte of a value can be changed unnoticed, no value moved to another key', async (t) => {
  const dir = temporaryFolder(t);
  const store = await openStore(t, dir);
  store.put(xattrsKey(1), new Map([['user.a', Buffer.from('value')]]));
  store.put(inodeKey(1), inode(1));
  store.put(inodeKey(2), inode(2));
  await store.close();
  const db = new Level<Buffer, Buffer>(join(dir, 'index'), { keyEncoding: 'buffer', valueEncoding: 'buffer' });
  const original = await db.get<Buffer, Buffer>(keyBytes(xattrsKey(1)), {});
  t.notOk(original.includes('value'), 'sealed');
  await db.put(keyBytes(inodeKey(2)), await db.get<Buffer, Buffer>(keyBytes(inodeKey(1)), {}));
  await db.close();
  const moved = await openStore(t, dir);
  t.throws(() => moved.get(inodeKey(2)), { code: 'CORRUPT_RECORD' });
  await moved.close();
  // version, nonce, ciphertext and tag; the sealing's own tests flip every bit
  for (const at of [0, 5, 20, original.length - 1]) {
    const flipped = Buffer.from(original);
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
    await db.open();
    await db.put(keyBytes(xattrsKey(1)), flipped);
    await db.close();
    const damaged = await openStore(t, dir);
    try {
      damaged.get(xattrsKey(1));
      t.fail(`byte ${at} was changed unnoticed`);
    } catch (error) {
      t.ok(hasCode(error, at === 0 ? 'BAD_FORMAT' : 'CORRUPT_RECORD'), `byte ${at}`);
    }
    await damaged.close();
  }
});

const asRoot = process.getuid?.() === 0;
t.test(
  'a full disk loses nothing, and commits go on once there is room',
  { skip: !asRoot && 'root only' },
  async (t) => {
    const dir = temporaryFolder(t);
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=80m', 'none', dir]).status !== 0)
      return t.comment('no tmpfs here');
    t.teardown(() => spawnSync('umount', ['-l', dir]));
    for (const fillerMiB of [72, 66]) {
      const filler = join(dir, 'filler');
      writeFileSync(filler, Buffer.alloc(fillerMiB * 2 ** 20));
      const store = await openStore(t, dir);
      let kept = 0;
      const put = async (ino: number): Promise<void> => {
        store.put(xattrsKey(ino), new Map([['n', randomBytes(20_000)]]));
        await store.commit(ino % 10 === 0);
        kept = ino;
      };
      const fill = async (): Promise<void> => {
        for (let ino = 1; ; ino++) await put(ino);
      };
      await t.rejects(fill(), { code: 'ENOSPC' });
      await t.rejects(store.commit(), { code: 'ENOSPC' });
      t.throws(() => store.assertHealthy(), { code: 'ENOSPC' });
      t.equal((store.get(xattrsKey(1)) as Xattrs).size, 1, 'what is committed stays readable');
      const failed = kept + 1;
      rmSync(filler);
      await store.commit();
      for (let ino = failed + 1; ino < failed + 20; ino++) await put(ino);
      await store.close();
      const again = await openStore(t, dir);
      let missing = 0;
      for (let ino = 1; ino <= kept; ino++) if (again.get(xattrsKey(ino)) === undefined) missing++;
      t.equal(missing, 0, `${kept} commits`);
      t.equal(again.lastCommit, kept);
      await again.close();
      rmSync(join(dir, 'index'), { recursive: true });
    }
  },
);

t.test('what is committed survives kill -9, whole batches only', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = temporaryFolder(t);
  let last = 0;
  for (let round = 0; round < 8; round++) {
    const child = spawn(process.execPath, [COMMITTER, join(dir, 'index')], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    const exited = new Promise((resolve) => child.once('close', resolve));
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (text: Buffer) => {
        if (output === '') setTimeout(() => resolve(), random.below(150));
        output += text.toString();
      });
    });
    child.kill('SIGKILL');
    await exited;
    const complete = output.slice(0, output.lastIndexOf('\n')).split('\n');
    const [said, number] = (complete.length > 1 ? (complete.at(-1) as string) : `${last} ${last}`)
      .split(' ')
      .map(Number) as [number, number];
    const store = await openStore(t, dir);
    const valueOf = (ino: number): number => {
      const record = store.get(xattrsKey(ino)) as Xattrs | undefined;
      return record === undefined ? 0 : Buffer.from(record.get('n') as Uint8Array).readUInt32LE();
    };
    const found = valueOf(1);
    t.ok(found === said || found === said + 1, `said ${said}, found ${found}`);
    t.equal(valueOf(2), found, 'never a part of a batch');
    let missing = 0;
    for (let n = 1; n <= found; n++) if (valueOf(10 + n) !== n) missing++;
    t.equal(missing, 0, 'every earlier commit is there');
    t.ok(store.lastCommit >= number, 'no number is used again');
    t.equal((await recorded(store)).length, store.lastCommit, 'each commit lies in the outbox');
    last = found;
    await store.close();
  }
  t.ok(last > 0, `${last} commits`);
});

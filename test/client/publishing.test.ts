// What is published, and when: only what hosts hold, nothing that died before, all that a flush waits for.

import { randomBytes } from 'node:crypto';
import t from 'tap';
import { XcoreError } from '../../src/lib/errors.ts';
import type { Window } from '../../src/tree/extents.ts';
import { COUNTERS_KEY, decodeNumber, inodeKey, KIND, shardKeyOf } from '../../src/tree/keys.ts';
import { decodeRecord } from '../../src/tree/record-codec.ts';
import type { Counters, Dentry, Shard } from '../../src/tree/records.ts';
import { CALLER } from '../support/volume.ts';
import { keptShards, ROOT, unreachable, until, World } from './device.ts';
import type { Device } from './device.ts';

t.setTimeout(240_000);

const world = await World.start(t, 2);

/** Counts uploads by shard id, in hex, and holds them back while told to. */
class Uploads {
  readonly begun: string[] = [];
  held = false;

  constructor(device: Device) {
    device.wrap = (real) => ({
      upload: (shard, signal) => {
        this.begun.push(Buffer.from(shard.id).toString('hex'));
        return this.held ? Promise.reject(unreachable()) : real.upload(shard, signal);
      },
    });
  }
}

await t.test('nothing is published before enough hosts hold it, and a flush waits for that', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const { seq } = a.tree.head;
  await world.stopHost(1);
  await a.write('two', randomBytes(20_000));
  await a.fs.mkdir(ROOT, 'dir', 0o755, CALLER);
  let isFlushed = false;
  const flushed = a.flush().then(() => (isFlushed = true));
  await until('the host that is there has the shard', () => world.shardsOn(0).length > world.shardsOn(1).length);
  await a.sync.nextStep();
  t.equal((await a.network.readLog(1, 1, true)).head.seq, seq, 'the log waits for the second mirror');
  t.notOk(isFlushed, 'and so does the flush');
  t.equal(a.tree.head.seq, seq);
  await world.startHost(1);
  await flushed;
  const log = await a.log();
  t.equal(log.length, a.tree.head.seq, 'all is in the log when the flush ends');
  for (const id of keptShards(log)) {
    t.ok(world.shardsOn(0).includes(id) && world.shardsOn(1).includes(id), 'each shard is on both hosts');
  }
  const b = await volume.device(t).on();
  t.same(await b.names(), ['dir', 'one', 'two']);
});

await t.test('a shard that is not durable after all is uploaded again', async (t) => {
  const a = await (await world.volume()).device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const uploads: string[] = [];
  let refusals = 0;
  a.wrap = (real) => ({
    upload: async (shard, signal) => {
      const standing = await real.upload(shard, signal);
      uploads.push(Buffer.from(shard.id).toString('hex'));
      return standing;
    },
    append: (entry) =>
      refusals++ === 0 ? Promise.reject(new XcoreError('NO_MIRROR', 'too few mirrors')) : real.append(entry),
  });
  await a.write('two', randomBytes(20_000));
  await a.flush();
  t.equal(uploads.length, 2, 'it was uploaded twice');
  t.equal(uploads[0], uploads[1]);
  t.same(keptShards(await a.log()), await a.shards());
});

await t.test('what was made and removed while offline costs no upload and leaves no trace', async (t) => {
  const a = await (await world.volume()).device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const uploads = new Uploads(a);
  uploads.held = true;
  const before = a.tree.head.seq;
  await a.write('passing', randomBytes(20_000));
  await a.store.commit();
  await a.mounted.volume.segments.seal();
  await a.fs.unlink(ROOT, 'passing');
  await a.store.commit();
  uploads.begun.length = 0;
  uploads.held = false;
  await a.flush();
  t.same(uploads.begun, [], 'a dead shard is not uploaded');
  const fresh = (await a.log()).slice(before);
  t.equal(fresh.length, 1, 'one entry');
  t.same(fresh[0]!.header.shardsAdded, []);
  const kinds = fresh[0]!.changeSet!.changes.filter(({ value }) => value !== undefined).map(({ key }) => key[0]);
  t.notOk(kinds.includes(KIND.dentry.charCodeAt(0)), 'no name is published');
  t.notOk(kinds.includes(KIND.window.charCodeAt(0)), 'and no extent');
  t.same(keptShards(await a.log()), await a.shards());
});

await t.test('a dead shard is uploaded when entries before its death wait for it', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on({ maxBodyBytes: 4_000, entryTargetBytes: 1_000 });
  await a.write('one', 'first');
  await a.flush();
  const uploads = new Uploads(a);
  uploads.held = true;
  await a.write('passing', randomBytes(20_000));
  await a.fs.setxattr((await a.ino('passing'))!, 'user.a', randomBytes(1_500), 0);
  await a.store.commit();
  await a.mounted.volume.segments.seal();
  await a.write('after', 'x');
  await a.fs.unlink(ROOT, 'passing');
  await a.store.commit();
  uploads.held = false;
  await a.flush();
  t.ok(uploads.begun.length > 0);
  t.same(await a.names(), ['after', 'one']);
  t.same(keptShards(await a.log()), await a.shards(), 'and freed again');
  const b = await volume.device(t).on();
  t.strictSame(await b.records(), await a.records());
});

await t.test('no entry refers to a shard that was dead for a while and came to life again', async (t) => {
  const a = await (await world.volume()).device(t).on({ entryTargetBytes: 1 });
  await a.write('one', 'first');
  await a.flush();
  const uploads = new Uploads(a);
  uploads.held = true;
  // all in one segment, which dies, lives and dies again while nothing can be published
  for (const bytes of [randomBytes(5_000), randomBytes(6_000)]) {
    await a.write('again', bytes);
    await a.store.commit();
    await a.fs.setattr((await a.ino('again'))!, { sizeBytes: 0 }, CALLER);
    await a.store.commit();
  }
  await a.mounted.volume.segments.seal();
  uploads.held = false;
  await a.flush();
  const shards = new Set<number>();
  for (const { changeSet } of await a.log()) {
    const changes = changeSet!.changes.map(({ key, value }) => ({ key: Buffer.from(key).toString('latin1'), value }));
    for (const { key, value } of changes.filter(({ key: name }) => name.startsWith(KIND.shard))) {
      if (value === undefined) shards.delete(decodeNumber(key, 1));
      else shards.add(decodeNumber(key, 1));
    }
    for (const { value } of changes.filter(({ key }) => key.startsWith(KIND.window))) {
      if (value === undefined) continue;
      for (const shard of (decodeRecord(KIND.window, value, 0) as Window).shards)
        t.ok(shards.has(shard), 'it is known');
    }
  }
  t.same(keptShards(await a.log()), await a.shards());
});

await t.test('a volume at its quota says so, and goes on when there is room again', async (t) => {
  const small = await World.start(t, 1, { quotaBytes: 300_000 });
  const volume = await small.volume();
  const a = await volume.device(t).on();
  await a.write('first', randomBytes(200_000));
  await a.flush();
  await a.write('too much', randomBytes(200_000));
  a.mounted.uploader.hurry();
  await a.mounted.volume.segments.seal();
  await until('it is told', () => a.problem('QUOTA') !== undefined);
  t.equal((await a.read('too much'))?.length, 200_000, 'what is staged is readable');
  await a.fs.unlink(ROOT, 'too much');
  await a.fs.unlink(ROOT, 'first');
  await a.flush();
  await until('it is over', () => a.problem('QUOTA') === undefined);
  await a.write('fits', randomBytes(200_000));
  await a.flush();
  t.equal(a.problem('QUOTA'), undefined);
  t.same(keptShards(await a.log()), await a.shards());
  const b = await volume.device(t).on();
  t.same(await b.names(), ['fits']);
});

await t.test('what is durable is published without what still waits behind it', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const uploads = new Uploads(a);
  await a.fs.mkdir(ROOT, 'dir', 0o755, CALLER);
  await a.store.commit();
  uploads.held = true;
  const { seq } = a.tree.head;
  const before = a.store.lastCommit;
  await a.write('waits', randomBytes(20_000));
  await a.mounted.volume.segments.seal();
  a.sync.nudge();
  await until('the first part is published', () => a.store.firstUnpublished > before);
  t.ok(a.tree.head.seq > seq);
  const b = await volume.device(t).on();
  await b.reaches(a);
  t.same(await b.names(), ['dir', 'one'], 'others see that part, and nothing of the rest');
  uploads.held = false;
  await a.flush();
  await b.reaches(a);
  t.strictSame(await b.records(), await a.records());
});

await t.test('what is published as several entries is sound after each of them', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on({ maxBodyBytes: 2_000, entryTargetBytes: 1_000 });
  const names = Array.from({ length: 40 }, (_, n) => `file ${n} ${'x'.repeat(60)}`);
  for (const name of names.slice(0, 20)) await a.write(name, name);
  await a.flush();
  const before = a.tree.head.seq;
  for (const name of names.slice(10)) await a.write(name, `new ${name}`);
  for (const name of names.slice(0, 10)) await a.fs.unlink(ROOT, name);
  await a.flush();
  t.ok(a.tree.head.seq > before + 3, 'it is several');
  const records = new Map<string, Uint8Array>();
  for (const { seq, header, changeSet } of await a.log()) {
    for (const { key: bytes, value } of changeSet!.changes) {
      const key = Buffer.from(bytes).toString('latin1');
      if (value === undefined) records.delete(key);
      else records.set(key, value);
    }
    const of = (kind: string): string[] => [...records.keys()].filter((key) => key.startsWith(kind));
    const wrong: string[] = [];
    const freed = new Set(header.shardsFreed.map((id) => Buffer.from(id).toString('hex')));
    for (const key of of(KIND.window)) {
      for (const shard of (decodeRecord(KIND.window, records.get(key)!, 0) as Window).shards) {
        const record = records.get(shardKeyOf(shard));
        const id = record && Buffer.from((decodeRecord(KIND.shard, record, shard) as Shard).id).toString('hex');
        if (id === undefined || freed.has(id)) wrong.push(`shard ${shard}`);
      }
    }
    for (const key of of(KIND.dentry)) {
      const { ino } = decodeRecord(KIND.dentry, records.get(key)!, 0) as Dentry;
      if (!records.has(inodeKey(ino))) wrong.push(`inode ${ino}`);
    }
    const counters = decodeRecord(COUNTERS_KEY.charAt(0), records.get(COUNTERS_KEY)!, 0) as Counters;
    const newest = Math.max(...of(KIND.inode).map((key) => decodeNumber(key, 1)));
    if (newest >= counters.nextIno) wrong.push(`inode ${newest}, and the next one is ${counters.nextIno}`);
    t.same(wrong, [], `entry ${seq}`);
  }
});

await t.test('a checkpoint that fails keeps nothing waiting, and takes no room', async (t) => {
  const volume = await world.volume();
  const a = volume.device(t);
  let tries = 0;
  a.wrap = (real) => ({
    upload: async (shard, signal) => {
      const standing = await real.upload(shard, signal);
      if (!shard.path.includes('checkpoint')) return standing;
      tries++;
      throw new XcoreError('QUOTA', 'no room for the next one');
    },
  });
  await a.on({ checkpointLogBytes: 1 });
  for (const name of ['one', 'two', 'three']) {
    await a.write(name, randomBytes(10_000));
    await a.flush();
  }
  t.match(a.problem('QUOTA'), /copy of the whole tree/);
  t.equal(tries, 1, 'it is not tried with each entry');
  let sizeBytes = 0;
  for await (const { record } of a.store.range(KIND.shard)) sizeBytes += (record as Shard).sizeBytes;
  t.equal((await a.network.space()).usedBytes, sizeBytes);
  t.same(keptShards(await a.log()), await a.shards());
});

// What happens to work that was staged when the log went on without it: a restored folder, a lost
// answer, another device that took over. Nothing is published twice or over others, nothing is lost.

import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { filesIn, HeldTime, keptShards, ROOT, unreachable, until, World } from './device.ts';
import type { Device, Wrap } from './device.ts';
import { check } from './run-fsck.ts';

t.setTimeout(240_000);

/** Of leases that a device is to lose only to another one, however long it does not get to renew them. */
const LONG_LEASE_MS = 120_000;
const LEASE_MS = 1_500;
/** Of the bridge: a lease ends there when a test says so, not when the machine is busy. */
const time = new HeldTime();
const world = await World.start(t, 2, { leaseTtlMs: LONG_LEASE_MS }, time.clock);
const short = await World.start(t, 2, { leaseTtlMs: LEASE_MS }, time.clock);

/** Nothing becomes durable, so nothing is published. */
const noUploads: Wrap = () => ({ upload: (_shard, signal) => rejected(signal) });

function rejected(signal?: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(unreachable())));
}

/** Waits until a lease that was granted last by now has run out by its device's own clock. */
async function runsOut(): Promise<void> {
  const since = performance.now();
  await until('the lease to run out', () => performance.now() > since + LEASE_MS);
}

/** The calls of a device that hears nothing and reaches nobody. */
const away: Wrap = () => ({
  upload: (_shard, signal) => rejected(signal),
  append: () => Promise.reject(unreachable()),
  readLog: () => Promise.reject(unreachable()),
  acquireLease: () => Promise.reject(unreachable()),
  renewLease: () => Promise.reject(unreachable()),
});

/** The log holds each commit and each shard once, and another device sees what this one does. */
async function sound(t: Test, device: Device): Promise<void> {
  const log = await device.log();
  const added = log.flatMap(({ header }) =>
    header.shardsAdded.map(({ shardId }) => Buffer.from(shardId).toString('hex')),
  );
  t.equal(new Set(added).size, added.length, 'each shard is added once');
  t.same(keptShards(log), await device.shards(), 'the log keeps what the tree does');
  const fresh = await device.volume.device(t, { readOnly: true }).on();
  t.strictSame(await fresh.records(), await device.records(), 'a new device sees the same');
  await fresh.off();
}

await t.test('a folder that was restored from a copy catches up, and publishes nothing over', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  await a.store.commit(true);
  const copy = a.copy();
  await a.write('two', randomBytes(50_000));
  await a.flush();
  await a.write('one', 'second');
  await a.flush();
  const records = await a.records();
  const { seq } = a.tree.head;
  await a.off();

  const b = await volume.device(t, { copyOf: copy }).on();
  await until('it is where the log is', () => b.tree.head.seq >= seq);
  t.strictSame(await b.records(), records, 'it has what was published since');
  t.equal(await b.text('one'), 'second');
  t.same(b.mounted.setAside, [], 'there was nothing to set aside');
  await b.becomesWriter();
  t.equal(b.tree.head.seq, seq, 'and publishes nothing');
  await b.write('three', 'third');
  await b.flush();
  await sound(t, b);
  t.same(await b.names(), ['one', 'three', 'two']);
});

await t.test('new work in a restored folder is set aside, named, and readable', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  await a.store.commit(true);
  const copy = a.copy();
  await a.write('two', 'published');
  await a.flush();
  await a.off();

  const b = volume.device(t, { copyOf: copy });
  b.wrap = away;
  await b.on();
  t.ok(b.sync.writer, 'a device that wrote last goes on while the bridge is away');
  await b.write('mine', 'new work');
  b.wrap = () => ({});
  await until('it is set aside', () => b.mounted.setAside.length === 1);
  await b.becomesWriter();
  t.same(await b.names(), ['one', 'two']);
  const files = await filesIn(b, b.mounted.setAside[0]!.path);
  t.same([...files].map(([name, data]) => `${name}: ${data.toString()}`).sort(), ['mine: new work', 'one: first']);
  await b.write('three', 'third');
  await b.flush();
  await sound(t, b);
});

await t.test(
  'work in a restored folder is not taken for what was published since, however its commits are numbered',
  async (t) => {
    const volume = await world.volume();
    const a = await volume.device(t).on();
    await a.write('one', 'first');
    await a.flush();
    await a.store.commit(true);
    const copy = a.copy();
    await a.write('theirs', 'published');
    await a.store.commit();
    const published = a.store.lastCommit;
    await a.flush();
    await a.off();

    const b = volume.device(t, { copyOf: copy });
    b.wrap = away;
    await b.on();
    // as many commits as were published, and more
    for (let n = 0; b.store.lastCommit <= published; n++) {
      await b.write(`mine ${n}`, 'new work');
      await b.store.commit();
    }
    const damaged = volume.device(t, { copyOf: b.copy() });
    b.wrap = () => ({});
    await until('it is set aside', () => b.mounted.setAside.length === 1);
    await b.becomesWriter();
    t.same(await b.names(), ['one', 'theirs']);
    t.equal(await b.text('theirs'), 'published');
    const files = await filesIn(b, b.mounted.setAside[0]!.path);
    t.equal(String(files.get('mine 0')), 'new work');
    await b.write('three', 'third');
    await b.flush();
    await sound(t, b);
    await b.off();

    writeFileSync(join(damaged.dir, 'current/index/CURRENT'), 'nonsense');
    const { setAside, notCarried } = await check(damaged, true);
    t.ok(setAside, 'nor does a repair carry it over into what was published');
    t.match(notCarried, [/a copy of this folder has written the volume since/]);
    await damaged.on();
    t.same(await damaged.names(), ['one', 'theirs', 'three']);
    await damaged.off();
  },
);

await t.test('a restored folder keeps the whole of what another copy of it published with a part lost', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  a.wrap = away;
  const whole = randomBytes(60_000);
  await a.write('staged', whole);
  await a.store.commit();
  const copy = a.copy();
  const damaged = a.copy();
  await a.off();
  const cache = join(damaged, 'current/cache');
  const segment = readdirSync(cache, { recursive: true, encoding: 'utf8' })
    .map((name) => join(cache, name))
    .find((path) => statSync(path).isFile() && statSync(path).size >= whole.length)!;
  const bytes = readFileSync(segment);
  bytes[40_000]! ^= 1;
  writeFileSync(segment, bytes);
  rmSync(join(damaged, 'current/sync-journal'));

  const b = await volume.device(t, { copyOf: damaged }).on();
  await b.becomesWriter();
  await b.flush();
  const { seq } = b.tree.head;
  t.equal(seq, (await b.log()).length);
  await t.rejects(b.read('staged'), { code: 'EIO' }, 'it is lost');
  await b.off();

  const c = volume.device(t, { copyOf: copy });
  c.wrap = away;
  await c.on();
  await c.write('more', 'as many commits');
  await c.store.commit();
  c.wrap = () => ({});
  await until('it is where the log is', () => c.tree.head.seq >= seq);
  t.equal(c.mounted.setAside.length, 1, 'what is whole here is not what was published');
  const files = await filesIn(c, c.mounted.setAside[0]!.path);
  t.ok(files.get('staged')?.equals(whole));
});

await t.test('an entry whose answer was lost is published once', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  let lost = 0;
  a.wrap = (real) => ({
    append: async (entry) => {
      await real.append(entry);
      if (lost++ < 2) throw unreachable();
      return real.append(entry);
    },
  });
  await a.write('two', randomBytes(10_000));
  const before = a.tree.head.seq;
  await a.flush();
  t.ok(lost > 0);
  t.equal(a.tree.head.seq, before + 1, 'one entry');
  await a.fs.unlink(ROOT, 'one');
  await a.flush();
  a.wrap = () => ({});
  await a.write('three', 'third');
  await a.flush();
  t.same(a.mounted.setAside, []);
  t.same(await a.names(), ['three', 'two']);
  await sound(t, a);
});

await t.test('also when the device ends before it knows', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  let copy = '';
  a.wrap = (real) => ({
    append: async (entry) => {
      await real.append(entry);
      copy = a.copy();
      throw unreachable();
    },
  });
  await a.write('two', randomBytes(10_000));
  const relax = a.mounted.uploader.hurry();
  await a.mounted.volume.segments.seal();
  await until('the entry is in the log', () => copy !== '');
  relax();
  const { seq } = (await a.network.readLog(1, 1, true)).head;
  a.wrap = away;
  await a.off();
  const b = await volume.device(t, { copyOf: copy }).on();
  await until('the entry is settled', () => b.tree.head.seq >= seq);
  await b.becomesWriter();
  t.same(b.mounted.setAside, [], 'it is known as its own');
  await b.write('three', 'third');
  await b.flush();
  t.equal(b.tree.head.seq, seq + 1, 'nothing is published twice');
  t.same(await b.names(), ['one', 'three', 'two']);
  await sound(t, b);
});

await t.test('a publication of several entries that is cut short anywhere goes on where it was', async (t) => {
  for (const applied of [true, false]) {
    for (let cut = 1; cut <= 4; cut++) {
      const volume = await world.volume();
      const a = await volume.device(t).on({ maxBodyBytes: 2_000, entryTargetBytes: 1_000 });
      await a.write('one', 'first');
      await a.flush();
      let appends = 0;
      a.wrap = (real) => ({
        append: async (entry) => {
          appends++;
          if (appends === cut && !applied) throw unreachable();
          const head = await real.append(entry);
          if (appends === cut) throw unreachable();
          return head;
        },
      });
      const before = a.tree.head.seq;
      // changes of one turn are one commit
      const stamp = Buffer.alloc(100, 7);
      for (let n = 0; n < 30; n++) {
        const { ino } = a.fs.mknod(ROOT, `x${n}`, 0o100644, 0, { uid: 0, gid: 0, pid: 1 }) as { ino: number };
        void a.fs.setxattr(ino, 'user.a', stamp, 0);
      }
      await a.write('data', randomBytes(5_000));
      await a.flush();
      t.ok(
        a.tree.head.seq > before + 3,
        `${a.tree.head.seq - before} entries, cut at ${cut}, ${applied ? 'after' : 'before'}`,
      );
      t.same(a.mounted.setAside, []);
      a.wrap = () => ({});
      await a.fs.unlink(ROOT, 'data');
      await a.write('three', 'third');
      await a.flush();
      await sound(t, a);
      await a.off();
    }
  }
});

await t.test('a device that is taken over keeps its staged work whole, and follows', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('shared', 'published');
  await a.flush();
  a.wrap = noUploads;
  const big = randomBytes(3_000_000);
  await a.write('mine', big);
  await a.write('small', 'staged');
  await a.write('shared', 'changed here');
  const flushed = t.rejects(a.flush(), { code: /^LEASE_/ }, 'a flush that waits is told');
  const b = await volume.device(t).on({ takeOver: true });
  await b.becomesWriter();
  await until('the loser knows', () => !a.sync.writer && a.mounted.setAside.length === 1);
  await t.rejects(async () => a.fs.mkdir(ROOT, 'dir', 0o755, { uid: 0, gid: 0, pid: 1 }), { code: 'EROFS' });
  await flushed;
  a.wrap = () => ({});
  await b.write('winner', 'wrote this');
  await b.flush();
  await a.reaches(b);
  t.strictSame(await a.records(), await b.records(), 'it has what the winner has');
  t.same(await a.names(), ['shared', 'winner']);
  t.ok(
    ['mine', 'small'].every((lost) => a.changed.names.some(({ name }) => name === lost)),
    'the kernel forgets them',
  );
  const files = await filesIn(a, a.mounted.setAside[0]!.path);
  t.same([...files.keys()].sort(), ['mine', 'shared', 'small']);
  t.ok(files.get('mine')?.equals(big), 'what was staged is whole');
  t.equal(String(files.get('small')), 'staged');
  t.equal(String(files.get('shared')), 'changed here');
  await a.off();
  await a.on();
  t.equal(a.mounted.setAside.length, 1, 'it is still named after a restart');
  await sound(t, b);
});

await t.test('a device whose epoch is old is fenced by the bridge, not by its own good will', async (t) => {
  const volume = await world.volume();
  const a = volume.device(t);
  const refused: string[] = [];
  let deaf = false;
  a.wrap = (real) => ({
    on: (event, listener) => {
      real.on(event, ((value: never) => {
        if (!deaf) (listener as (value: never) => void)(value);
      }) as typeof listener);
    },
    renewLease: async (epoch) =>
      deaf ? { held: true, epoch, holder: a.name, expiresInMs: 60_000 } : real.renewLease(epoch),
    append: (entry) =>
      real.append(entry).catch((error: { code: string }) => {
        refused.push(error.code);
        throw error;
      }),
  });
  await a.on();
  await a.write('one', 'first');
  await a.flush();
  deaf = true;
  const b = await volume.device(t).on({ takeOver: true });
  await b.becomesWriter();
  t.ok(a.sync.writer, 'the first one does not know');
  await a.write('two', 'staged');
  await t.rejects(a.flush(), { code: /^LEASE_/ });
  t.same(refused, ['LEASE_LOST'], 'the bridge takes no entry of an old epoch');
  await until('its work is set aside', () => a.mounted.setAside.length === 1);
  const files = await filesIn(a, a.mounted.setAside[0]!.path);
  t.equal(String(files.get('two')), 'staged');
  await b.write('winner', 'x');
  await b.flush();
  t.same(await b.names(), ['one', 'winner']);
  const epochs = (await b.log()).map(({ header }) => Number(header.epoch));
  t.same(
    epochs,
    epochs.toSorted((x, y) => x - y),
    'epochs only grow',
  );
  await sound(t, b);
});

await t.test('a lease that ran out while nobody else wrote is had again, with all staged work', async (t) => {
  const volume = await short.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const { epoch } = a.tree.head;
  await short.stopBridge();
  await a.write('two', 'while away');
  t.ok(a.sync.writer, 'it writes on');
  await runsOut();
  await short.startBridge();
  await a.flush();
  t.ok(a.sync.writer);
  t.same(a.mounted.setAside, []);
  t.same(await a.names(), ['one', 'two']);
  t.ok(a.tree.head.epoch >= epoch);
  await sound(t, a);

  // another device that had the lease meanwhile and changed nothing is nobody
  a.wrap = away;
  await a.write('three', 'while another one looked');
  // what was under way is over
  await a.sync.nextStep();
  await runsOut();
  const b = volume.device(t);
  time.pass(LEASE_MS);
  await until('the lease is had by another', async () => {
    await b.off();
    await b.on();
    return b.sync.writer;
  });
  await b.off();
  a.wrap = () => ({});
  a.sync.nudge();
  await until('it writes again', () => a.sync.writer && a.sync.connected);
  await a.flush();
  t.same(await a.names(), ['one', 'three', 'two']);
  t.same(a.mounted.setAside, [], 'nothing was set aside');
  await sound(t, a);
});

await t.test(
  'a device that has lost its lease does not write after a restart, whatever was under way then',
  async (t) => {
    const volume = await world.volume();
    const a = await volume.device(t).on();
    await a.write('one', 'first');
    await a.flush();
    const b = await volume.device(t).on();
    let isLost = false;
    a.wrap = (real) => ({
      append: async (entry) => {
        await real.append(entry);
        b.sync.takeOver();
        await until('the lease is lost', () => b.sync.writer && !a.sync.writer);
        isLost = true;
        throw unreachable();
      },
    });
    await a.write('two', 'second');
    await a.mounted.volume.segments.seal();
    await until('it was published, and the lease is lost', () => isLost);
    await a.reaches(b);
    await a.off();
    a.wrap = away;
    await a.on();
    t.notOk(a.sync.writer, 'it only reads while the bridge is away');
    t.same(a.mounted.setAside, [], 'and what was published is not set aside');
    t.same(await a.names(), ['one', 'two']);
  },
);

await t.test('a lease that is taken over while its device reads the log makes no writer', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  await a.off();
  const other = await volume.device(t, { readOnly: false }).on();
  await other.becomesWriter();
  const b = volume.device(t);
  let taken = false;
  b.wrap = (real) => ({
    acquireLease: async () => real.acquireLease(true).finally(() => (taken = true)),
    readLog: async (...args) => {
      if (taken) {
        await until('the other one reads', () => !other.sync.writer);
        other.sync.takeOver();
        await until('the lease is taken over', () => other.sync.writer && b.sync.holder === other.name);
      }
      return real.readLog(...args);
    },
  });
  await b.on();
  t.notOk(b.sync.writer);
  t.ok(other.sync.writer);
});

await t.test('a lease is kept while a checkpoint is written, however long that takes', async (t) => {
  const volume = await short.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const b = await volume.device(t).on();
  await a.off();
  await b.becomesWriter();
  await b.off();
  let isRenewed = false;
  let rounds = 0;
  let isKept = false;
  a.wrap = (real) => ({
    renewLease: async (epoch) => {
      const begun = rounds;
      const lease = await real.renewLease(epoch);
      // one that the bridge granted before its time was moved says nothing of later
      if (begun === rounds) isRenewed = true;
      return lease;
    },
    upload: async (shard, signal) => {
      if (shard.path.includes('checkpoint') && !isKept) {
        while (rounds < 4) {
          isRenewed = false;
          await until('the lease has been renewed', () => isRenewed);
          // nearly all of it, which it outlives only if it was renewed
          time.pass(LEASE_MS - 100);
          rounds++;
        }
        isKept = true;
      }
      return real.upload(shard, signal);
    },
  });
  await a.on({ checkpointLogBytes: 1 });
  await a.becomesWriter();
  await b.on();
  await a.write('two', 'second');
  await a.flush();
  await a.write('three', 'third');
  await a.flush();
  await until('a checkpoint is there', () => a.tree.head.checkpointSeq > 0);
  t.ok(a.sync.writer && isKept);
  t.notOk(b.sync.writer, 'nobody else wrote meanwhile');
  t.same(a.mounted.setAside, []);
});

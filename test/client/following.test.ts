// One device writes, others follow: live, from the beginning, from a checkpoint, and after a time away.

import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { XcoreError } from '../../src/lib/errors.ts';
import { keptShards, ROOT, unreachable, until, World } from './device.ts';
import type { Device, Scope, Volume } from './device.ts';
import { check } from './run-fsck.ts';
import { CALLER } from '../support/volume.ts';

t.setTimeout(240_000);

const world = await World.start(t, 2);
/** Small enough that a handful of files makes a checkpoint due. */
const CHECKPOINTS = { checkpointLogBytes: 4_000 };

/** Writes until the log has another checkpoint. */
async function untilCheckpoint(device: Device): Promise<void> {
  const before = device.tree.head.checkpointSeq;
  for (let n = 0; device.tree.head.checkpointSeq === before; n++) {
    if (n > 50) throw new Error('no checkpoint came');
    await device.write(`filler ${n % 5}`, randomBytes(2_000));
    await device.flush();
    await device.sync.nextStep();
  }
}

async function equal(t: Test, one: Device, other: Device, message: string): Promise<void> {
  t.strictSame(await other.records(), await one.records(), message);
}

async function pair(t: Scope, volume: Volume): Promise<{ a: Device; b: Device }> {
  const a = await volume.device(t).on();
  const b = await volume.device(t).on();
  return { a, b };
}

await t.test('what one device publishes another one has, record by record, live', async (t) => {
  const { a, b } = await pair(t, await world.volume());
  t.ok(a.sync.writer);
  t.notOk(b.sync.writer, 'there is one writer');
  await a.write('one', 'first');
  const dir = await a.fs.mkdir(ROOT, 'dir', 0o755, CALLER);
  await a.fs.symlink(dir.ino, 'link', Buffer.from('../one'), CALLER);
  const big = randomBytes(3_000_000);
  await a.write('big', big);
  await a.fs.setxattr((await a.ino('one'))!, 'user.color', Buffer.from('red'), 0);
  await a.flush();
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same');
  t.equal(await b.text('one'), 'first');
  t.ok((await b.read('big'))?.equals(big), 'bytes come from hosts');
  await t.rejects(async () => b.write('mine', 'x'), { code: 'EROFS' });

  b.changed.names.length = 0;
  await a.write('one', 'second');
  await a.fs.rename(ROOT, 'big', dir.ino, 'moved', 0);
  await a.flush();
  await b.reaches(a);
  await equal(t, a, b, 'and after changes');
  t.equal(await b.text('one'), 'second');
  t.same(await b.names(), ['dir', 'one']);
  t.ok((await b.read('dir/moved'))?.equals(big));
  t.ok(
    b.changed.names.some(({ name }) => name === 'big'),
    'the kernel is told what to forget',
  );
});

await t.test('what nothing refers to any more is deleted on the hosts', async (t) => {
  const volume = await world.volume();
  const { a, b } = await pair(t, volume);
  await a.write('keep', randomBytes(100_000));
  await a.flush();
  const kept = await a.shards();
  await a.write('drop', randomBytes(100_000));
  await a.flush();
  await b.reaches(a);
  const [dropped] = (await a.shards()).filter((id) => !kept.includes(id));
  t.ok(world.shardsOn(0).includes(dropped!), 'both are on the hosts');
  await a.fs.unlink(ROOT, 'drop');
  await a.flush();
  await until(
    'the host deletes it',
    () => !world.shardsOn(0).includes(dropped!) && !world.shardsOn(1).includes(dropped!),
  );
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same');
  t.same(await b.shards(), kept);
  t.same(keptShards(await a.log()), kept, 'the log keeps what the tree does');
  t.ok(kept.every((id) => world.shardsOn(0).includes(id)));
});

await t.test('a device that sees an empty volume goes on to see it filled', async (t) => {
  const volume = await world.volume();
  const reader = await volume.device(t, { readOnly: true }).on();
  t.same(await reader.names(), [], 'an empty folder');
  await world.stopBridge();
  await world.startBridge();
  await until('the reader is connected', () => reader.sync.connected);
  await reader.sync.nextStep();
  t.same((await reader.fs.getattr(ROOT)).ino, ROOT, 'it still is one after the bridge was away');
  const a = await volume.device(t).on();
  await a.becomesWriter();
  await a.write('one', 'first');
  await a.flush();
  await until('the file is there', async () => (await reader.text('one')) === 'first');
  await equal(t, a, reader, 'all records are the same');
});

await t.test('a checkpoint replaces what was before it, and a new device starts from it', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, CHECKPOINTS).on();
  await a.write('old', 'from before the checkpoint');
  await untilCheckpoint(a);
  const { entries, head } = await a.network.readLog(1, 2 ** 20);
  t.equal(entries[0]!.body.length, 0, 'bodies are pruned');
  t.ok(head.checkpointEntrySeq > 0);
  await a.write('new', 'from after the checkpoint');
  await a.flush();
  const b = await volume.device(t).on();
  await b.reaches(a);
  await equal(t, a, b, 'the new device has all records');
  t.equal(await b.text('old'), 'from before the checkpoint');
  t.equal(await b.text('new'), 'from after the checkpoint');

  const first = a.tree.checkpointShards.map((id) => Buffer.from(id).toString('hex'));
  t.ok(first.every((id) => world.shardsOn(0).includes(id)));
  await untilCheckpoint(a);
  const second = a.tree.checkpointShards.map((id) => Buffer.from(id).toString('hex'));
  t.notSame(second, first);
  await until('the old checkpoint is gone', () => first.every((id) => !world.shardsOn(0).includes(id)));
  t.same(keptShards(await a.log()), [...(await a.shards()), ...second].sort(), 'nothing else is kept');
  await b.reaches(a);
  await equal(t, a, b, 'a follower reads on over a checkpoint');
});

await t.test('a first reading that is cut short is begun again, and leaves no stale names', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, CHECKPOINTS).on();
  await a.write('gone by then', 'x');
  // records of more than one shard
  for (let n = 0; n < 40; n++) {
    await a.write(`large ${n}`, '');
    await a.fs.setxattr((await a.ino(`large ${n}`))!, 'user.a', randomBytes(60_000), 0);
  }
  await untilCheckpoint(a);
  const { checkpointShards } = a.tree;
  t.ok(checkpointShards.length > 1);
  const b = volume.device(t);
  const last = Buffer.from(checkpointShards.at(-1)!);
  b.wrap = (real) => ({
    fetchShard: (id, ...rest) =>
      last.equals(id) ? Promise.reject(new XcoreError('NO_MIRROR')) : real.fetchShard(id, ...rest),
  });
  await t.rejects(b.on(), { code: 'NO_MIRROR' }, 'half a volume is never mounted');
  await a.fs.unlink(ROOT, 'gone by then');
  await a.flush();
  b.wrap = () => ({});
  await b.on();
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same');
  t.notOk((await b.names()).includes('gone by then'));
});

await t.test('a device that was away over a checkpoint catches up from it', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, CHECKPOINTS).on();
  await a.write('removed meanwhile', 'x');
  await a.flush();
  const b = await volume.device(t).on();
  await b.reaches(a);
  await b.off();
  await a.fs.unlink(ROOT, 'removed meanwhile');
  await untilCheckpoint(a);
  await untilCheckpoint(a);
  await b.on();
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same');
  t.ok(b.tree.head.seenSeq > 0, 'what it saw before is remembered');
  t.same(b.mounted.setAside, [], 'nothing had to be set aside');

  // and once more while it is mounted, without the head being told
  b.wrap = () => ({ readLog: () => Promise.reject(unreachable()) });
  await untilCheckpoint(a);
  await untilCheckpoint(a);
  b.wrap = () => ({});
  await b.reaches(a);
  await equal(t, a, b, 'also under a mount');
});

await t.test('a checkpoint that comes while another one is read is no forked log', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, { checkpointLogBytes: 1 }).on();
  await untilCheckpoint(a);
  const b = await volume.device(t).on();
  await b.reaches(a);
  await b.off();
  let comesAt: 'entry' | 'shard' | null = null;
  const reading = async (what: typeof comesAt): Promise<void> => {
    if (what !== comesAt) return;
    comesAt = null;
    await untilCheckpoint(a);
  };
  b.wrap = (real) => ({
    // the entry that tells of the checkpoint
    readLog: async (from, bytes, headersOnly) => {
      if (bytes === 1 && headersOnly !== true) await reading('entry');
      return real.readLog(from, bytes, headersOnly);
    },
    fetchShard: async (...args) => {
      const held = await real.fetchShard(...args);
      await reading('shard');
      return held;
    },
  });
  for (const where of ['shard', 'entry'] as const) {
    await untilCheckpoint(a);
    await untilCheckpoint(a);
    comesAt = where;
    await b.on();
    t.equal(comesAt, null);
    await b.reaches(a);
    await equal(t, a, b, `${where}: under a mount after a time away`);
    await b.off();

    writeFileSync(join(b.dir, 'current/index/CURRENT'), 'nonsense');
    comesAt = where;
    const { state, left } = await check(b, true);
    t.equal(state, 'repaired', `${where}: in a repair ${left.map(({ message }) => message).join()}`);
    t.equal(comesAt, null);
  }
  await b.on();
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same after it');
});

await t.test('staged work of a device that was away over a checkpoint is set aside whole', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, CHECKPOINTS).on();
  await a.write('shared', 'x');
  await a.flush();
  const cut = { on: false };
  const b = volume.device(t, {
    wrap: () => (cut.on ? { upload: () => new Promise(() => undefined) } : {}),
  });
  await b.on();
  await b.reaches(a);
  await a.off();
  await b.becomesWriter();
  cut.on = true;
  await b.write('mine', 'staged only');
  await b.store.commit();
  await b.sync.release();
  await b.off();
  await a.on();
  await a.becomesWriter();
  await untilCheckpoint(a);
  cut.on = false;
  await b.on();
  await b.reaches(a);
  await equal(t, a, b, 'all records are the same');
  t.equal(b.mounted.setAside.length, 1, 'its work is named');
  t.notOk((await b.names()).includes('mine'));
  t.notOk((await a.names()).includes('mine'));
});

await t.test('a replacement of the local volume that a crash cuts short leaves a whole one', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const b = await volume.device(t).on();
  await b.reaches(a);
  const records = await b.records();
  await b.off();
  const place = (name: string): string => join(b.dir, name);
  b.wrap = () => ({ readLog: () => Promise.reject(unreachable()) });

  renameSync(place('current'), place('next'));
  await b.on();
  t.strictSame(await b.records(), records, 'after the old one was moved away');
  await b.off();

  cpSync(place('current'), place('old'), { recursive: true });
  rmSync(join(place('old'), 'index'), { recursive: true });
  cpSync(place('old'), place('next'), { recursive: true });
  await b.on();
  t.strictSame(await b.records(), records, 'while the old one was removed, or the new one filled');
  t.notOk(existsSync(place('old')) || existsSync(place('next')), 'nothing is left of it');
});

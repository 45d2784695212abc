// A bridge that was restored from an older backup: devices that saw what it has lost hand it in again, and all goes on.
// Where they cannot, or it is a lie, it stays refused.

import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { systemDisk } from '../../src/lib/disk.ts';
import type { Disk, DiskFile } from '../../src/lib/disk.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { WireEntry } from '../../src/net/network.ts';
import { KIND } from '../../src/tree/keys.ts';
import type { Shard } from '../../src/tree/records.ts';
import { check } from './run-fsck.ts';
import { filesIn, keptShards, ROOT, until, World } from './device.ts';
import type { Device, Wrap } from './device.ts';

t.setTimeout(240_000);

const world = await World.start(t, 2, { repairRetryMs: 300, maxRepairRetryMs: 1_000 });

const HANDED_IN = 'STALE_HEAD';

/** A new device has the same records and reads the same bytes from hosts; the log is one chain and keeps what the tree does. */
async function sound(t: Test, device: Device, files: Readonly<Record<string, Buffer | string>>): Promise<void> {
  const log = await device.log();
  t.equal(log.at(-1)?.seq, device.tree.head.seq, 'the bridge is where the device is');
  t.same(keptShards(log), await device.shards(), 'the log keeps what the tree does');
  const fresh = await device.volume.device(t, { readOnly: true }).on();
  t.strictSame(await fresh.records(), await device.records(), 'a new device has the same records');
  t.same(await fresh.names(), Object.keys(files).sort());
  for (const [name, content] of Object.entries(files)) {
    let read: Buffer | undefined;
    await until(`${name} is found on hosts`, async () => {
      read = await fresh.read(name).catch(() => undefined);
      return read !== undefined;
    });
    t.ok(read?.equals(Buffer.from(content)), `${name} is whole`);
  }
  const { usedBytes } = await device.network.space();
  let sizeBytes = 0;
  for await (const { record } of device.store.range(KIND.shard)) sizeBytes += (record as Shard).sizeBytes;
  t.equal(usedBytes, sizeBytes, 'each shard is counted once');
  await fresh.off();
}

await t.test('the writer hands in what was lost, once, and goes on', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  const b = await volume.device(t, { readOnly: true }).on();
  await a.write('one', 'first');
  await a.write('gone', randomBytes(10_000));
  await a.flush();
  const backup = world.backUpBridge();
  const two = randomBytes(50_000);
  await a.write('two', two);
  await a.flush();
  await a.write('short', randomBytes(20_000));
  await a.flush();
  await a.fs.unlink(ROOT, 'short');
  await a.fs.unlink(ROOT, 'gone');
  await a.flush();
  await b.reaches(a);
  const { seq } = a.tree.head;
  await world.restoreBridge(backup);
  await until('the log is whole again', async () => {
    const { head } = await a.network.readLog(1, 1, true).catch(() => ({ head: { seq: 0 } }));
    return head.seq >= seq;
  });
  await a.write('three', 'third');
  await a.flush();
  t.equal(a.tree.head.seq, seq + 1, 'it goes on from where it was');
  t.same(a.mounted.setAside, []);
  await b.reaches(a);
  const told = [a, b].flatMap((device) => device.problems.list().filter(({ code }) => code === HANDED_IN));
  // both may hand in at the same time, each what the other one has not yet
  t.ok(told.length >= 1, 'whoever handed in tells it');
  for (const problem of told)
    t.match(problem, { message: /had lost entr(y|ies) \d+/, advice: /restored from a backup/ });
  t.equal(a.problem('FORKED_LOG'), undefined);
  await sound(t, a, { one: 'first', two, three: 'third' });
  t.same(await b.names(), ['one', 'three', 'two']);
});

await t.test('a device that only read them hands in the entries of another one', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  const reader = await volume.device(t, { readOnly: true }).on();
  await a.write('one', 'first');
  await a.flush();
  const backup = world.backUpBridge();
  const two = randomBytes(100_000);
  await a.write('two', two);
  await a.flush();
  await reader.reaches(a);
  const { seq } = a.tree.head;
  await a.off();
  await reader.off();
  await world.restoreBridge(backup);
  await reader.on();
  t.match(reader.problem(HANDED_IN), new RegExp(`had lost entry ${seq}`));
  await sound(t, reader, { one: 'first', two });
  await a.on();
  await a.becomesWriter();
  await a.write('three', 'third');
  await a.flush();
  t.equal(a.tree.head.seq, seq + 1, 'the writer notices nothing');
  await sound(t, a, { one: 'first', two, three: 'third' });
});

await t.test('a checkpoint that was lost comes back, and another one follows', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on({ checkpointLogBytes: 1 });
  await a.write('one', 'first');
  await a.flush();
  const backup = world.backUpBridge();
  await a.write('two', randomBytes(10_000));
  await a.flush();
  await a.write('three', 'third');
  await a.flush();
  const two = (await a.read('two'))!;
  await until('its checkpoint is there', () => a.tree.head.logBytes === 0);
  const { checkpointSeq } = a.tree.head;
  await world.restoreBridge(backup);
  await until('it is handed in', () => a.problem(HANDED_IN) !== undefined);
  await until('another checkpoint is there', () => a.tree.head.checkpointSeq > checkpointSeq);
  await a.flush();
  const fresh = await volume.device(t, { readOnly: true }).on();
  t.strictSame(await fresh.records(), await a.records(), 'a new device begins with it');
  t.ok((await fresh.read('two'))?.equals(two));
  t.equal((await a.log()).at(-1)?.seq, a.tree.head.seq);
});

await t.test('shards that hosts have, and neither the log nor this disk, are found again on the hosts', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const backup = world.backUpBridge();
  a.wrap = () => ({ append: () => Promise.reject(new XcoreError('UNREACHABLE', 'not yet')) });
  const contents = [randomBytes(50_000), randomBytes(50_000), randomBytes(50_000)] as const;
  const shards: number[] = [];
  for (const [n, content] of contents.entries()) {
    await a.write(`f${n}`, content);
    await a.mounted.volume.segments.seal();
    const ino = (await a.ino(`f${n}`))!;
    shards.push(a.tree.extents.spans(ino, 0, 1)[0]!.shard);
  }
  const upload = (shard: number): boolean => a.tree.upload(shard)?.durable === true;
  await until('hosts have them', () => shards.every(upload));
  // one was evicted, one is damaged, and one is as it was
  const { files } = a.mounted.volume;
  const [evicted, damaged] = shards as [number, number];
  await files.drop(evicted);
  await a.off();
  const path = join(a.dir, 'current', 'cache', '0', damaged.toString(16));
  writeFileSync(path, readFileSync(path).fill(0, 20_000, 30_000));
  await world.restoreBridge(backup);
  a.wrap = () => ({});
  await a.on();
  await a.flush();
  t.same(a.mounted.setAside, []);
  t.equal(a.mounted.stagedBytes, 0, 'nothing waits');
  await sound(t, a, { one: 'first', f0: contents[0], f1: contents[1], f2: contents[2] });
});

await t.test('an entry that this disk does not take is not noted as seen, and comes again', async (t) => {
  let isFull = false;
  const full = (): Promise<never> => Promise.reject(new XcoreError('ENOSPC', 'no room for entries'));
  const open: Disk['open'] = async (path, ...how) => {
    const file = await systemDisk.open(path, ...how);
    if (!path.includes('/log/')) return file;
    const write: DiskFile['write'] = file.write.bind(file);
    return Object.assign(file, { write: (...call: Parameters<typeof write>) => (isFull ? full() : write(...call)) });
  };
  const volume = await world.volume();
  const a = await volume.device(t, { watched: { disk: { ...systemDisk, open } } }).on();
  await a.write('one', 'first');
  await a.flush();
  const { seq } = a.tree.head;
  const backup = world.backUpBridge();
  isFull = true;
  const two = randomBytes(20_000);
  await a.write('two', two);
  const flushed = a.flush();
  await until('it is told', () => a.problem('ENOSPC') !== undefined);
  t.equal(a.tree.head.seq, seq);
  await world.restoreBridge(backup);
  isFull = false;
  await flushed;
  t.equal(a.problem('FORKED_LOG'), undefined);
  await sound(t, a, { one: 'first', two });
});

await t.test('what two devices wrote apart stays refused, and nothing of either is lost', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('one', 'first');
  await a.flush();
  const b = await volume.device(t, { readOnly: true }).on();
  await b.reaches(a);
  await b.off();
  const backup = world.backUpBridge();
  await a.write('mine', 'of a');
  await a.flush();
  const { seq } = a.tree.head;
  const records = await a.records();
  await a.off();
  await world.restoreBridge(backup);
  await b.on({ readOnly: false, takeOver: true });
  await b.becomesWriter();
  await b.write('other', 'of b');
  await b.flush();
  await b.write('more', 'of b');
  await b.flush();
  await t.rejects(a.on(), { code: 'FORKED_LOG' });
  await world.stopBridge();
  await a.on();
  t.strictSame(await a.records(), records, 'what was here is here');
  t.equal(await a.text('mine'), 'of a');
  await world.startBridge();
  await until('it is told', () => a.problem('FORKED_LOG') !== undefined);
  t.equal(a.tree.head.seq, seq);
  await until('the bridge is back', () => b.sync.connected);
  t.same((await b.log()).length, b.tree.head.seq, 'the log of the other one is as it was');

  await a.off();
  const reports = [await check(a, true), await check(a, true, true, {}, true)];
  t.match(
    reports,
    [
      { state: 'damaged', setAside: null },
      { state: 'repaired', setAside: String },
    ],
    'accepted when told',
  );
  await a.on({ readOnly: true });
  await a.reaches(b);
  t.strictSame(await a.records(), await b.records(), 'it goes on from the log as it is');
  t.equal((await filesIn(a, reports[1]!.setAside!)).get('mine')?.toString(), 'of a', 'and has kept what it had');
});

await t.test('a bridge that hides entries is handed them in once, and refused', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t).on();
  await a.write('secret', 'to be deleted');
  await a.flush();
  const b = await volume.device(t, { readOnly: true }).on();
  await b.reaches(a);
  const past = (await a.network.readLog(1, 1, true)).head;
  await a.fs.unlink(ROOT, 'secret');
  await a.flush();
  await b.reaches(a);
  const entries: WireEntry[] = [];
  const hiding =
    (append: (entry: WireEntry) => Promise<typeof past>): Wrap =>
    (real) => ({
      readLog: async (from, ...rest) => {
        const { entries } = await real.readLog(from, ...rest);
        return { entries: entries.slice(0, Math.max(0, past.seq + 1 - from)), head: past };
      },
      append,
    });
  const takes: Wrap = hiding((entry) => {
    entries.push(entry);
    return Promise.resolve({ ...past, seq: past.seq + 1 });
  });
  await b.off();
  b.wrap = takes;
  await t.rejects(b.on(), { code: 'FORKED_LOG' }, 'one that takes it and hides it again');
  t.equal(entries.length, 1);
  b.wrap = hiding(() => Promise.reject(new Error('no')));
  await t.rejects(b.on(), { code: 'FORKED_LOG' }, 'one that does not take it');
  b.wrap = () => ({});
  await b.on();
  t.equal(b.problem('FORKED_LOG'), undefined);
  entries.length = 0;
  b.wrap = takes;
  await a.write('next', 'makes it look');
  await a.flush();
  await until('it is refused', () => b.problem('FORKED_LOG') !== undefined);
  for (let n = 0; n < 5; n++) {
    b.sync.nudge();
    await b.sync.nextStep();
  }
  t.equal(entries.length, 1, 'it is not sent over and over');
  t.same(await b.names(), [], 'the deletion stays');
});

import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { AuditSchedule } from '../../src/bridge/audit-schedule.ts';
import { MIRROR_INDEX_KEY, mirrorKey } from '../../src/bridge/keys.ts';
import { MirrorIndex } from '../../src/bridge/mirror-index.ts';
import { RepairQueue } from '../../src/bridge/repair-queue.ts';
import { readOrder } from '../../src/net/orders.ts';
import { pickSeed, Random } from '../support/random.ts';
import { Harness, Party, signedEntry, someShard } from './harness.ts';
import type { Client, TestShard } from './harness.ts';
import { SimulatedHosts } from './simulated-hosts.ts';

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const STEP_MS = 5_000;
/** Repair after a minute of silence; audits so rare that none comes by chance. */
const OPTIONS = { repairAfterMs: MINUTE_MS, repairRetryMs: 10_000, maxRepairRetryMs: MINUTE_MS, auditsPerDay: 0.001 };
const RARE = { ...OPTIONS, auditShareADay: 0 };

interface World {
  readonly bridge: Harness;
  readonly network: SimulatedHosts;
  readonly client: Client;
  readonly shards: TestShard[];
}

async function world(
  t: { testdir(): string; teardown(action: () => Promise<void>): unknown },
  hosts: number,
  shards: number,
  options: object = RARE,
): Promise<World> {
  const dir = t.testdir();
  const teardown = (end: () => Promise<void>): unknown => t.teardown(end);
  const bridge = await Harness.start({ testdir: () => join(dir, 'bridge'), teardown }, options);
  const network = await SimulatedHosts.start({ testdir: () => dir, teardown }, bridge, hosts);
  const client = await bridge.connect(new Party());
  const stored: TestShard[] = [];
  for (let count = 0; count < shards; count += 1) stored.push(await network.upload(client));
  return { bridge, network, client, shards: stored };
}

t.test('what a lost host held is copied to others, and given up there when it is back', async (t) => {
  const { bridge, network, client, shards } = await world(t, 5, 12);
  const lost = network.hosts[0]!;
  const held = await lost.count();
  lost.away = true;
  await network.pass(11, STEP_MS);
  t.equal(network.copies.length, 0, 'nothing is copied within the grace period');
  await network.pass(6, STEP_MS);
  t.equal(network.copies.length, held, 'each of its shards is copied, once');
  for (const shard of shards) t.equal((await network.intact(shard)).length, 3);

  lost.away = false;
  await lost.register();
  await network.pass(4, STEP_MS);
  for (const shard of shards) {
    t.equal((await network.intact(shard)).length, 3, 'a mirror too many is deleted');
    t.equal((await client.locate(shard.shardId)).length, 3);
  }
  t.equal(bridge.registry.get(lost.peer)?.lostMs, 0);
});

t.test(
  'a host that is away for less than the grace period loses nothing, nor do hosts while the bridge was away',
  async (t) => {
    const { bridge, network } = await world(t, 4, 6);
    network.hosts[0]!.away = true;
    await network.pass(10, STEP_MS);
    network.hosts[0]!.away = false;
    await network.pass(4, STEP_MS);
    await bridge.reopen();
    bridge.clock.advance(DAY_MS);
    await network.pass(4, STEP_MS);
    t.equal(network.copies.length, 0);
  },
);

t.test(
  'a silently deleted and a corrupt mirror are noticed by audits, leave the locations and are made again',
  async (t) => {
    const { bridge, network, client, shards } = await world(t, 6, 30, { ...OPTIONS, auditsPerDay: DAY_MS / 10_000 });
    const [deleting, corrupting] = network.hosts;
    /** Of each: so many failures end a host, whatever it is given and shows in between. */
    const MANY = 12;
    const MOST_STEPS = 500;
    const harmed = { deleted: 0, corrupted: 0 };
    const harm = async (shard: TestShard): Promise<void> => {
      if (await deleting!.holds(shard)) {
        await deleting!.lose(shard);
        harmed.deleted += 1;
      }
      if (await corrupting!.holds(shard)) {
        await corrupting!.corrupt(shard);
        harmed.corrupted += 1;
      }
    };
    for (const shard of shards) await harm(shard);
    while (Math.min(harmed.deleted, harmed.corrupted) < MANY) {
      const shard = await network.upload(client);
      await harm(shard);
      shards.push(shard);
    }
    // when which mirror is looked at is left to chance, and that all are is not
    const isOver = async (): Promise<boolean> => {
      for (const shard of shards) if ((await network.intact(shard)).length !== 3) return false;
      return (await corrupting!.count()) === 0;
    };
    for (let steps = 0; steps < MOST_STEPS && !(await isOver()); steps += 5) await network.pass(5, STEP_MS);
    for (const shard of shards) {
      t.equal((await network.intact(shard)).length, 3);
      const told = await client.locate(shard.shardId);
      t.notOk(told.includes(deleting!.peer) || told.includes(corrupting!.peer));
    }
    t.equal(bridge.registry.get(corrupting!.peer)?.standing.state, 'disqualified');
    t.match(corrupting!.standing, { state: 'disqualified', reason: /failed \d+ audits/ });
    t.equal(await corrupting!.count(), 0, 'what is bad is deleted');
    t.equal(network.hosts[2]!.standing?.auditsFailed, 0n);
  },
);

t.test('a report has the bridge look for itself: a false one changes nothing, a true one repairs', async (t) => {
  const { network, client, shards } = await world(t, 4, 3);
  const report = (host: string): Promise<unknown> =>
    client.call({ case: 'report', value: { host, shardId: shards[0]!.shardId, code: 'CORRUPT_SHARD' } }, 'done');
  const [first, second] = await client.locate(shards[0]!.shardId);
  await report(first!);
  await network.pass(2, STEP_MS);
  t.ok((await client.locate(shards[0]!.shardId)).includes(first!));
  t.equal(network.of(first!).standing?.auditsFailed, 0n);
  await network.of(second!).corrupt(shards[0]!);
  await report(second!);
  await network.pass(2, STEP_MS);
  t.notOk((await client.locate(shards[0]!.shardId)).includes(second!));
  t.equal((await network.intact(shards[0]!)).length, 3);
});

t.test('the last mirror is never given up, and a shard waits for a host that has it', async (t) => {
  const { network, client, shards } = await world(t, 4, 1);
  const [shard] = shards;
  const holders = await network.intact(shard!);
  for (const host of holders.slice(1)) host.away = true;
  await network.pass(4, STEP_MS);
  await holders[0]!.corrupt(shard!);
  for (let round = 0; round < 3; round += 1) {
    const value = { host: holders[0]!.peer, shardId: shard!.shardId, code: 'CORRUPT_SHARD' };
    await client.call({ case: 'report', value }, 'done');
    await network.pass(14, STEP_MS);
  }
  t.ok((await client.locate(shard!.shardId)).includes(holders[0]!.peer));
  t.ok(await holders[0]!.holds(shard!), 'it is not deleted either');
  holders[1]!.away = false;
  await network.pass(8, STEP_MS);
  t.equal((await network.intact(shard!)).length, 2, 'as many as there are sound hosts');
  holders[2]!.away = false;
  await network.pass(16, STEP_MS);
  t.equal((await network.intact(shard!)).length, 3);
});

t.test('a mirror found bad while no other was there is made again, on the same host if need be', async (t) => {
  const { network, client, shards } = await world(t, 3, 1);
  const [shard] = shards;
  const [bad, ...others] = await network.intact(shard!);
  for (const host of others) host.away = true;
  await network.pass(4, STEP_MS);
  await bad!.corrupt(shard!);
  const report = { host: bad!.peer, shardId: shard!.shardId, code: 'CORRUPT_SHARD' };
  await client.call({ case: 'report', value: report }, 'done');
  await network.pass(14, STEP_MS);
  t.ok(await bad!.holds(shard!));
  for (const host of others) host.away = false;
  await client.call({ case: 'report', value: report }, 'done');
  await network.pass(16, STEP_MS);
  t.equal((await network.intact(shard!)).length, 3);
});

t.test(
  'three of ten hosts fail at once: all shards come back, the most endangered first, over restarts of the bridge',
  async (t) => {
    const { bridge, network, shards } = await world(t, 10, 60, { ...RARE, parallelRepairs: 1 });
    const failing = network.hosts.slice(0, 3);
    const left = new Map<string, number>();
    for (const shard of shards) {
      let count = 0;
      for (const host of network.hosts) if (!failing.includes(host) && (await host.holds(shard))) count += 1;
      left.set(Buffer.from(shard.shardId).toString('hex'), count);
    }
    for (const host of failing) host.away = true;
    const alive = shards.filter((shard) => left.get(Buffer.from(shard.shardId).toString('hex'))! > 0);
    await network.pass(15, STEP_MS);
    t.equal(network.copies.length, 0);
    const stopping = new AbortController();
    bridge.clock.advance(STEP_MS);
    for (const host of network.hosts) if (!host.away) await host.beat();
    await bridge.care.watch(stopping.signal);
    const copy = network.copy.bind(network);
    network.copy = async (...call) => {
      const receipt = await copy(...call);
      if (network.copies.length === 5) stopping.abort();
      return receipt;
    };
    await bridge.care.repair(stopping.signal);
    t.ok(network.copies.length < 10, 'interrupted');
    await bridge.reopen();
    for (const host of network.hosts) if (!host.away) await host.register();
    await bridge.care.repair(new AbortController().signal);
    for (const shard of alive) t.equal((await network.intact(shard)).length, 4);
    const order = network.copies.map((id) => left.get(id)!);
    t.same(
      order,
      [...order].sort((a, b) => a - b),
      'fewest mirrors first',
    );
  },
);

t.test('a copy that takes long keeps no other shard waiting, whether it was queued before or since', async (t) => {
  const { bridge, network, client, shards } = await world(t, 5, 6);
  const { signal } = new AbortController();
  const held = Promise.withResolvers<undefined>();
  const begun = Promise.withResolvers<undefined>();
  const copy = network.copy.bind(network);
  let calls = 0;
  network.copy = async (...call) => {
    if ((calls += 1) === 1) {
      begun.resolve(undefined);
      await held.promise;
    }
    return copy(...call);
  };
  const wish = async (mirrors: number): Promise<void> => {
    await client.call({ case: 'announce', value: { mirrors } }, 'policy');
    const queue = new RepairQueue(bridge, { retryMs: 1, maxRetryMs: 1 });
    await bridge.store.batch(shards.map(({ shardId }) => queue.add(shardId, mirrors - 1)));
  };
  await wish(4);
  const slow = bridge.care.repair(signal);
  await begun.promise;
  await bridge.care.repair(signal);
  t.equal(network.copies.length, shards.length - 1);
  await wish(5);
  await bridge.care.repair(signal);
  t.equal(network.copies.length, 2 * (shards.length - 1));
  held.resolve(undefined);
  await slow;
  for (const shard of shards) t.equal((await network.intact(shard)).length, 5);
});

t.test('a host that leaves keeps serving until all it holds is elsewhere, and then may go', async (t) => {
  const { network, client, shards } = await world(t, 5, 12);
  const leaving = network.hosts.find(({ store }) => store.shards > 0)!;
  leaving.exiting = true;
  await network.pass(1, STEP_MS);
  t.match(leaving.standing, { state: 'leaving', reason: /to the \d other hosts that take shards now; one that has/ });
  await network.pass(5, STEP_MS);
  t.match(leaving.standing, { mayLeave: true, shards: 0n });
  t.equal(await leaving.count(), 0);
  for (const shard of shards) t.equal((await network.intact(shard)).length, 3);
  const next = await network.upload(client);
  t.notOk((await client.locate(next.shardId)).includes(leaving.peer), 'it gets nothing new');
});

t.test('a shard that is freed while it is copied is deleted again', async (t) => {
  const { bridge, network, client, shards } = await world(t, 4, 1);
  const [shard] = shards;
  const { epoch } = await client.lease();
  const head = await client.append({ seq: 1n, epoch, shardsAdded: [shard!], shardsFreed: [] });
  const [lost] = await network.intact(shard!);
  lost!.away = true;
  const copy = network.copy.bind(network);
  network.copy = async (...call) => {
    const receipt = await copy(...call);
    const { epoch: now } = await client.lease();
    await client.append({ seq: 2n, epoch: now, prevHash: head.hash, shardsAdded: [], shardsFreed: [shard!.shardId] });
    return receipt;
  };
  await network.pass(19, STEP_MS);
  t.equal(network.copies.length, 1);
  t.equal((await network.intact(shard!)).length, 0);
  lost!.away = false;
  await lost!.register();
  await lost!.beat();
  t.notOk(await lost!.holds(shard!), 'also on the host that was away');
  await lost!.beat();
  t.equal(bridge.registry.get(lost!.peer)?.shards, 0);
});

t.test('inventories find what is missing at once, and delete what nobody knows only after a week', async (t) => {
  const inventoryMs = 10 * MINUTE_MS;
  const { bridge, network, client, shards } = await world(t, 5, 12, { ...RARE, inventoryMs });
  const [forgetful] = network.hosts;
  const stray = someShard(1_000);
  await forgetful!.plant(stray);
  const lost = [];
  for (const shard of shards) if ((await forgetful!.holds(shard)) && lost.push(shard) < 4) await forgetful!.lose(shard);
  await network.pass(6, (2 * MINUTE_MS) / 8);
  await network.pass(40, 14_000);
  for (const shard of shards) {
    t.equal((await network.intact(shard)).length, 3);
    const told = await client.locate(shard.shardId);
    if (lost.slice(0, 3).includes(shard)) t.notOk(told.includes(forgetful!.peer) && !(await forgetful!.holds(shard)));
  }
  t.equal(bridge.registry.get(forgetful!.peer)?.shards, (await forgetful!.count()) - 1, 'the stray does not count');

  for (let day = 0; day < 6; day += 1) {
    bridge.clock.advance(DAY_MS - MINUTE_MS);
    await network.pass(3, STEP_MS);
  }
  t.ok(await forgetful!.holds(stray));
  bridge.clock.advance(1.5 * DAY_MS);
  await network.pass(4, STEP_MS);
  t.notOk(await forgetful!.holds(stray));
  for (const shard of shards) t.equal((await network.intact(shard)).length, 3);
});

t.test(
  'a bridge that was restored from a backup finds the mirrors that have moved since, and deletes none',
  async (t) => {
    const { bridge, network, client, shards } = await world(t, 24, 4, { ...RARE, inventoryMs: 2 * MINUTE_MS });
    const backup = join(network.hosts[0]!.dir, '..', 'backup');
    await bridge.reopen((dir) => cp(dir, backup, { recursive: true }));
    const [shard] = shards;
    const before = await network.intact(shard!);
    for (const host of before) host.exiting = true;
    for (const host of network.hosts) await host.register();
    await network.pass(10, STEP_MS);
    const after = await network.intact(shard!);
    t.notOk(after.some((host) => before.includes(host)));

    await bridge.reopen(async (dir) => {
      await rm(dir, { recursive: true });
      await cp(backup, dir, { recursive: true });
    });
    const asked: string[] = [];
    const copy = network.copy.bind(network);
    network.copy = (host, order, ...rest) => {
      if (readOrder(order).shardId.every((byte, at) => byte === shard!.shardId[at])) asked.push(host);
      return copy(host, order, ...rest);
    };
    for (const host of network.hosts) host.exiting = false;
    for (const host of network.hosts) await host.register();
    await network.pass(40, STEP_MS);
    t.ok(
      after.some(({ peer }) => peer === asked[0]),
      'first it asks one that has the shard',
    );
    const again = await bridge.connect(client.owner, client.device);
    for (const days of [0, 8, 1]) {
      bridge.clock.advance(days * DAY_MS);
      for (const host of network.hosts) await host.register();
      await network.pass(40, STEP_MS);
      for (const each of shards) {
        const intact = (await network.intact(each)).map(({ peer }) => peer);
        const told = await again.locate(each.shardId);
        t.ok(told.length >= 3 && told.every((peer) => intact.includes(peer)));
      }
    }
  },
);

t.test('shards that a restored bridge has forgotten are found by the entries that come again', async (t) => {
  const { bridge, network, client } = await world(t, 6, 0);
  const { epoch } = await client.lease();
  const backup = await bridge.backUp();
  for (const host of network.hosts) await host.register();
  const before = await bridge.connect(client.owner, client.device);
  const shards: TestShard[] = [];
  for (let count = 0; count < 4; count += 1) shards.push(await network.upload(before));
  const [brief, ...kept] = shards;
  const { usedBytes } = await before.space();
  const one = signedEntry(client, { seq: 1n, epoch, shardsAdded: shards });
  const { hash } = await before.call({ case: 'append', value: { entry: one } }, 'head');
  const two = signedEntry(client, { seq: 2n, epoch, prevHash: hash, shardsFreed: [brief!.shardId] });
  await before.call({ case: 'append', value: { entry: two } }, 'head');

  await bridge.restore(backup);
  for (const host of network.hosts) await host.register();
  const after = await bridge.connect(client.owner, client.device);
  await t.rejects(after.call({ case: 'append', value: { entry: one } }, 'head'), { code: 'NOT_FOUND' });
  await after.appendAgain(one);
  await after.appendAgain(two);
  t.equal((await after.space()).usedBytes, usedBytes - BigInt(brief!.sizeBytes), 'its bytes are counted');
  await network.pass(20, STEP_MS);
  for (const shard of kept) {
    const holders = (await network.intact(shard)).map(({ peer }) => peer);
    t.equal(holders.length, 3, 'nothing was copied');
    t.same((await after.locate(shard.shardId)).sort(), holders.sort(), 'and all mirrors are known again');
  }
  t.ok((await network.intact(brief!)).length > 0, 'what was freed is left to its hosts');
  for (let days = 0; days < 9; days += 1) {
    bridge.clock.advance(DAY_MS);
    for (const host of network.hosts) await host.register();
    await network.pass(4, STEP_MS);
  }
  t.equal((await network.intact(brief!)).length, 0, 'until it was unknown for long');
  for (const shard of kept) t.equal((await network.intact(shard)).length, 3);
});

t.test('whoever claims shards of another owner cannot have them deleted', async (t) => {
  const { bridge, network, client } = await world(t, 4, 0);
  const backup = await bridge.backUp();
  for (const host of network.hosts) await host.register();
  const before = await bridge.connect(client.owner, client.device);
  const shard = await network.upload(before);
  await bridge.restore(backup);
  for (const host of network.hosts) await host.register();
  const thief = await bridge.connect(new Party());
  const added = signedEntry(thief, { seq: 1n, epoch: 1n, shardsAdded: [shard] });
  const { hash } = await thief.appendAgain(added);
  await network.pass(20, STEP_MS);
  t.equal((await thief.locate(shard.shardId)).length, 3);
  await thief.appendAgain(signedEntry(thief, { seq: 2n, epoch: 1n, prevHash: hash, shardsFreed: [shard.shardId] }));
  await network.pass(20, STEP_MS);
  t.equal((await network.intact(shard)).length, 3, 'no host deletes them');
  t.same(await thief.locate(shard.shardId), []);
  const after = await bridge.connect(client.owner, client.device);
  await after.lease();
  await after.appendAgain(signedEntry(client, { seq: 1n, epoch: 1n, shardsAdded: [shard] }));
  await network.pass(40, MINUTE_MS);
  t.equal((await after.locate(shard.shardId)).length, 3, 'their owner has them again');
});

t.test('a store without an index of mirrors gets one', async (t) => {
  const { bridge, network, shards } = await world(t, 4, 6);
  const host = network.hosts[0]!;
  const held = await host.count();
  const index = (): MirrorIndex => new MirrorIndex({ store: bridge.store, registry: bridge.registry });
  const before = await index().list(host.peer, new Uint8Array(), 100);
  t.equal(before.length, held);
  const keys = [MIRROR_INDEX_KEY];
  for (const { peer } of network.hosts) {
    for (const shardId of await index().list(peer, new Uint8Array(), 100)) keys.push(mirrorKey(peer, shardId));
  }
  await bridge.store.batch(keys.map((key) => ({ key })));
  t.same(await index().list(host.peer, new Uint8Array(), 100), []);
  await bridge.reopen();
  t.same(await index().list(host.peer, new Uint8Array(), 100), before);
  host.away = true;
  for (const other of network.hosts) if (!other.away) await other.register();
  await network.pass(20, STEP_MS);
  for (const shard of shards) t.equal((await network.intact(shard)).length, 3);
});

t.test('a shard that no entry names is freed long after another device took over, and only then', async (t) => {
  const { bridge, network, client, shards } = await world(t, 3, 2);
  const [orphan, published] = shards;
  let device = client;
  let seq = 0n;
  let prevHash = new Uint8Array(32);
  const write = async (count: number, added: TestShard[] = []): Promise<void> => {
    const { epoch } = await device.lease(true);
    for (let entry = 0; entry < count; entry += 1) {
      seq += 1n;
      const shardsAdded = entry === 0 ? added : [];
      const head = await device.append({ seq, epoch, prevHash, shardsAdded, shardsFreed: [] });
      prevHash = new Uint8Array(head.hash);
    }
  };
  await write(1, [published!]);
  bridge.clock.advance(400 * DAY_MS);
  await write(40);
  await network.pass(1, STEP_MS);
  t.equal((await client.locate(orphan!.shardId)).length, 3, 'its own device may name it yet, however late');
  device = await bridge.connect(client.owner);
  await write(20);
  bridge.clock.advance(89 * DAY_MS);
  await write(20);
  t.equal((await device.locate(orphan!.shardId)).length, 3);
  bridge.clock.advance(2 * DAY_MS);
  await write(20);
  t.equal((await device.locate(orphan!.shardId)).length, 0);
  t.equal((await device.space()).usedBytes, BigInt(published!.sizeBytes));
  await network.pass(3, STEP_MS);
  t.equal((await network.intact(orphan!)).length, 0);
  t.equal((await network.intact(published!)).length, 3);
});

t.test('audits', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const source = new Random(seed);
  const random = (): number => source.below(2 ** 30) / 2 ** 30;

  t.test(
    'come as often as they are to, more often for hosts that hold more, none for those that hold nothing',
    async (t) => {
      const schedule = new AuditSchedule({ auditsPerDay: 500, auditShareADay: 0.002 }, random);
      const counts = { small: 0, large: 0, empty: 0 };
      const hosts = [
        { host: 'small', shards: 10 },
        { host: 'large', shards: 1_000_000 },
        { host: 'empty', shards: 0 },
      ];
      for (let now = 0; now < DAY_MS; now += 1_000) {
        for (const host of schedule.due(hosts, now)) counts[host as keyof typeof counts] += 1;
      }
      t.ok(Math.abs(counts.small - 500) < 50, `${counts.small}`);
      t.ok(Math.abs(counts.large - 2_000) < 100, `${counts.large}`);
      t.equal(counts.empty, 0);
      t.ok(schedule.due(hosts, 30 * DAY_MS).length <= 128, 'what was missed is not made up for');
    },
  );

  t.test('draw each shard of a host about as often as any other, from as few reads as there are draws', async (t) => {
    const bridge = await Harness.start(t);
    const [host] = await bridge.join(1);
    const index = new MirrorIndex({ store: bridge.store, registry: bridge.registry });
    const DRAWS = 1_000;
    const ids = Array.from({ length: 2_000 }, () => source.bytes(32));
    await bridge.store.batch(ids.map((id) => index.added(host!.peer, id, 1)));
    // Those in the narrowest gaps would be found least often.
    const sorted = ids.map((id) => Buffer.from(id)).sort((a, b) => Buffer.compare(a, b));
    const gaps = sorted.map((id, at) => ({
      id: id.toString('hex'),
      gap: at === 0 ? 2 ** 48 : id.readUIntBE(0, 6) - sorted[at - 1]!.readUIntBE(0, 6),
    }));
    const missing = new Set(
      gaps
        .sort((a, b) => a.gap - b.gap)
        .slice(0, 200)
        .map(({ id }) => id),
    );
    let found = 0;
    // Spread evenly over all that may be drawn, so that only how often, and not luck, decides.
    let asked = 0;
    const spread = (): number => {
      const draw = asked >> 1;
      return asked++ % 2 === 0 ? (draw + 0.5) / DRAWS : (draw * 0.618_033_988_75) % 1;
    };
    for (let draw = 0; draw < DRAWS; draw += 1) {
      const id = await index.draw(host!.peer, spread);
      if (missing.has(Buffer.from(id!).toString('hex'))) found += 1;
    }
    t.ok(found > 55 && found < 150, `10 % that were chosen to be missed were drawn ${found} times of 1,000`);
    t.equal(await index.draw('nobody', random), undefined);
  });
});

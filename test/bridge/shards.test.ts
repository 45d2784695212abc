import { randomBytes } from 'node:crypto';
import t from 'tap';
import { create, toBinary } from '@bufbuild/protobuf';
import { hostKey, shardKey } from '../../src/bridge/keys.ts';
import { FORMAT_VERSION } from '../../src/bridge/level-store.ts';
import { hostRecord, mirrorRecord, shardRecord } from '../../src/bridge/records.ts';
import { unpackShard } from '../../src/bridge/shard-packing.ts';
import { openLevel } from '../../src/lib/open-level.ts';
import { readOrder, signReceipt, verifyOrder, verifyReceipt } from '../../src/net/orders.ts';
import { ReceiptSchema, SignedSchema } from '../../src/net/proto/wire_pb.ts';
import type { ResponseValue } from '../../src/net/rpc.ts';
import { Harness, MIB, Party, someShard } from './harness.ts';
import type { Host, TestShard } from './harness.ts';

const HOUR_MS = 3_600_000;

const targetsOf = (placed: ResponseValue<'placements'>): string[] =>
  placed.placements[0]!.targets.map(({ host }) => host);
const hostOf = (hosts: Host[], peer: string): Host => hosts.find((host) => host.peer === peer)!;

t.test('a shard is placed on distinct hosts with a signed order for each', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(5);
  const client = await bridge.connect(new Party());
  const shard = someShard();
  const placed = await client.place([shard]);
  t.match(placed.policy, { mirrors: 3, minReceipts: 3, hosts: 5, shardSizeBytes: 2 * MIB });
  t.equal(new Set(targetsOf(placed)).size, 3);
  for (const target of placed.placements[0]!.targets) {
    const order = verifyOrder(target.order, bridge.identity.peer);
    t.match(order, { operation: 'store', client: client.device.peer, host: target.host, sizeBytes: MIB });
    t.same(target.addresses, ['/ip4/127.0.0.1/tcp/4001']);
    t.equal(Number(order.expiresMs), bridge.clock.now() + HOUR_MS);
  }
  const [first] = placed.placements[0]!.targets;
  const { shards } = await client.confirm([hostOf(hosts, first!.host).receipt(first!)]);
  t.match(shards, [{ mirrors: 1, durable: false }]);
  const again = await client.place([shard]);
  t.equal(again.placements[0]!.receipts, 1);
  t.same(new Set(targetsOf(again)), new Set(targetsOf(placed).slice(1)), 'hosts that may hold it already come first');
  await client.confirm(again.placements[0]!.targets.map((target) => hostOf(hosts, target.host).receipt(target)));
  const complete = await client.place([shard]);
  t.match(complete.placements, [{ receipts: 3, targets: [] }]);
});

t.test('receipts count only for what the bridge ordered', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const other = await bridge.connect(new Party());
  const shard = someShard();
  const [target] = (await client.place([shard])).placements[0]!.targets;
  const host = hostOf(hosts, target!.host);
  const order = readOrder(target!.order);
  const genuine = { serial: order.serial, ...shard, host: host.peer, client: client.device.peer, timeMs: 1n };

  const standing = async (fields: object, from = client): Promise<number> =>
    (await from.confirm([signReceipt(host.seed, { ...genuine, ...fields })])).shards[0]!.mirrors;
  t.equal(await standing({ serial: randomBytes(16) }), 0, 'made-up serial');
  t.equal(await standing({ shardId: randomBytes(32) }), 0, 'another shard');
  t.equal(await standing({ sizeBytes: 1 }), 0, 'another size');
  t.equal(await standing({ client: other.device.peer }), 0, 'another client');
  t.equal(await standing({}, other), 0, 'another volume');
  const forged = signReceipt(randomBytes(32), genuine);
  await t.rejects(client.confirm([forged]), { code: 'REFUSED' });
  const stranger = hosts.find((candidate) => candidate !== host)!;
  await t.rejects(client.confirm([signReceipt(host.seed, { ...genuine, host: stranger.peer })]), { code: 'REFUSED' });
  t.equal((await client.space()).usedBytes, 0n);

  await bridge.reopen();
  const back = await bridge.connect(client.owner, client.device);
  t.equal((await back.confirm([host.receipt(target!)])).shards[0]!.mirrors, 1, 'orders outlive a restart');
  t.equal((await back.confirm([host.receipt(target!)])).shards[0]!.mirrors, 1, 'a receipt counts once');
  t.equal((await back.space()).usedBytes, BigInt(MIB));
});

t.test('a receipt that comes long after its order has expired does not count', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(1);
  const client = await bridge.connect(new Party());
  const shard = someShard();
  const [target] = (await client.place([shard])).placements[0]!.targets;
  bridge.clock.advance(3 * HOUR_MS);
  t.match((await client.confirm([hosts[0]!.receipt(target!)])).shards, [{ mirrors: 0, durable: false }]);
});

t.test('offline, excluded and full hosts get no shard; no host at all is NO_HOSTS', async (t) => {
  const bridge = await Harness.start(t, { maxOrdersPerVolume: 100 });
  const client = await bridge.connect(new Party());
  await t.rejects(client.place([someShard()]), { code: 'NO_HOSTS' });
  const hosts = await bridge.join(3);
  t.same(targetsOf(await client.place([someShard()], [hosts[0]!.peer])).includes(hosts[0]!.peer), false);
  bridge.clock.advance(15_001);
  await t.rejects(client.place([someShard()]), { code: 'NO_HOSTS' });
  await hosts[1]!.beat(2 * MIB);
  t.same(targetsOf(await client.place([someShard()])), [hosts[1]!.peer], 'only one is online');
  await t.rejects(client.place([someShard()]), { code: 'NO_HOSTS' }, 'bytes promised elsewhere are not promised twice');
});

t.test('a volume has only so many orders out, and only so much quota', async (t) => {
  const bridge = await Harness.start(t, { maxOrdersPerVolume: 6, quotaBytes: 3 * MIB });
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const first = someShard();
  await client.place([first]);
  await client.place([first]);
  await client.place([someShard()]);
  await t.rejects(client.place([someShard()]), { code: 'REFUSED' });
  await client.store(hosts, first);
  t.equal((await client.space()).usedBytes, BigInt(MIB), 'one mirror counts');
  await client.place([someShard()]);
  await t.rejects(client.place([someShard(1)]), { code: 'QUOTA' }, 'what is on its way counts too');
  await client.place([first]);

  const { epoch } = await client.lease();
  await client.append({ seq: 1n, epoch, shardsAdded: [first], shardsFreed: [] });
  await client.call({ case: 'readLog', value: { fromSeq: 1n, maxBytes: 1 } }, 'logEntries');
  const head = await client.call({ case: 'readLog', value: { fromSeq: 2n, maxBytes: 1 } }, 'logEntries');
  await client.append({ seq: 2n, epoch, prevHash: head.head!.hash, shardsFreed: [first.shardId] });
  t.equal((await client.space()).usedBytes, 0n, 'freed bytes come back');
});

t.test('a shard that many hosts failed to take goes on to others, within bounds', async (t) => {
  const bridge = await Harness.start(t);
  await bridge.join(30);
  const client = await bridge.connect(new Party());
  const shard = someShard();
  const failed: string[] = [];
  for (let round = 0; round < 8; round += 1) {
    const targets = targetsOf(await client.place([shard], failed));
    t.equal(targets.length, 4);
    t.notOk(targets.some((host) => failed.includes(host)));
    failed.push(...targets.slice(0, 3));
  }
  await client.place([shard]);
  const promised = 30 * 1_000 * MIB - Number((await client.space()).networkFreeBytes);
  t.ok(promised <= 12 * MIB, `${promised} bytes are promised`);
});

t.test('a shard id belongs to the volume that placed it first, and mirrors are told only to that one', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const other = await bridge.connect(new Party());
  const shard = someShard();
  await client.place([shard]);
  await t.rejects(other.place([shard]), { code: 'REFUSED' }, 'ordered');
  await client.store(hosts, shard);
  await t.rejects(other.place([shard]), { code: 'REFUSED' }, 'stored');
  await t.rejects(client.place([{ ...shard, sizeBytes: 1 }]), { code: 'REFUSED' }, 'another size');
  t.equal((await client.locate(shard.shardId)).length, 3);
  t.same(await other.locate(shard.shardId), []);
  t.same(await client.locate(randomBytes(32)), []);
  const device = await bridge.connect(client.owner);
  t.equal((await device.locate(shard.shardId)).length, 3, 'another device of the owner');
});

t.test('reports lower a mirror and its host, and delete nothing', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const shard = await client.store(hosts);
  const [best] = await client.locate(shard.shardId);
  const before = bridge.registry.get(best!)!.reliability;
  const report = (code: string, from = client): Promise<unknown> =>
    from.call({ case: 'report', value: { host: best!, shardId: shard.shardId, code } }, 'done');
  await report('CORRUPT_SHARD', await bridge.connect(new Party()));
  t.equal(bridge.registry.get(best!)!.reliability, before, "a stranger's word does not count");
  await report('HOST_FULL');
  t.equal(bridge.registry.get(best!)!.reliability, before, 'being full is no fault');
  await report('CORRUPT_SHARD');
  const after = bridge.registry.get(best!)!.reliability;
  t.ok(after < before);
  await report('CORRUPT_SHARD');
  t.equal(bridge.registry.get(best!)!.reliability, after, 'repeating it at once does not count');
  const order = await client.locate(shard.shardId);
  t.equal(order.length, 3);
  t.equal(order[2], best, 'the reported mirror is last');
  bridge.clock.advance(60_000);
  await hosts.find((host) => host.peer === best)!.beat(MIB);
  t.equal((await client.locate(shard.shardId))[2], best, 'also when it is the only one online');
});

t.test('freed shards are deleted by their hosts, however long these are away', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const shard = await client.store(hosts);
  const unconfirmed = someShard();
  await client.place([unconfirmed]);
  const { epoch } = await client.lease();
  await client.append({ seq: 1n, epoch, shardsAdded: [shard], shardsFreed: [unconfirmed.shardId, randomBytes(32)] });
  const deletesOf = async (host: Host, done: Uint8Array[] = []): Promise<[Uint8Array, Uint8Array][]> =>
    (await host.beat(MIB, done)).deletes.map((signed) => {
      const order = verifyOrder(signed, bridge.identity.peer);
      t.match(order, { operation: 'delete', client: bridge.identity.peer, host: host.peer });
      return [order.serial, order.shardId];
    });
  const [pending] = await deletesOf(hosts[0]!);
  t.same(pending![1], unconfirmed.shardId, 'a host whose receipt never came may hold it');
  t.same(await deletesOf(hosts[0]!, [pending![0]]), []);
  t.equal((await client.locate(shard.shardId)).length, 3, 'what is in use stays');

  const { head } = await client.call({ case: 'readLog', value: { fromSeq: 1n, maxBytes: 1 } }, 'logEntries');
  await client.append({ seq: 2n, epoch, prevHash: head!.hash, shardsFreed: [shard.shardId] });
  t.same(await client.locate(shard.shardId), []);
  await t.rejects(client.place([shard]), { code: 'REFUSED' }, 'an id is never used again');
  const [order] = await deletesOf(hosts[0]!);
  t.same(order![1], shard.shardId);
  await bridge.reopen();
  t.same(await deletesOf(hosts[0]!), [order], 'again until reported, also after a restart');
  t.same(await deletesOf(hosts[0]!, [randomBytes(16), randomBytes(3)]), [order], 'unknown serials change nothing');
  t.same(await deletesOf(hosts[1]!, [order![0]]).then((list) => list.length), 2, "another host's serial neither");
  for (const host of hosts) {
    const serials = (await deletesOf(host)).map(([serial]) => serial);
    t.same(await deletesOf(host, serials), []);
  }
  const client2 = await bridge.connect(client.owner, client.device);
  t.match(await client2.space(), { usedBytes: 0n });
});

t.test('space tells quota, room and hosts, those of the volume first', async (t) => {
  const bridge = await Harness.start(t, { quotaBytes: 7 * MIB });
  const hosts = await bridge.join(1);
  const client = await bridge.connect(new Party());
  await client.store(hosts);
  await bridge.join(40);
  const space = await client.space();
  t.equal(space.quotaBytes, BigInt(7 * MIB));
  t.equal(space.mirrors, 4);
  t.equal(space.hosts.length, 32);
  t.equal(space.hosts[0]!.host, hosts[0]!.peer);
  t.equal(space.networkFreeBytes, BigInt(41 * 1_000 * MIB - MIB));
});

t.test('nothing but hosts is served before the owner has proved itself', async (t) => {
  const bridge = await Harness.start(t);
  const { session } = (await bridge.join(1))[0]!;
  await t.rejects(bridge.call(session, { case: 'space', value: {} }, 'spaceInfo'), { code: 'REFUSED' });
  const owner = new Party();
  const client = await bridge.connect(owner);
  await t.rejects(
    bridge.connect(owner, client.device).then((second) => second.call({ case: 'authenticate', value: {} }, 'done')),
    { code: 'REFUSED' },
  );
  const stranger = new Party();
  await t.rejects(
    bridge.call(
      session,
      {
        case: 'authenticate',
        value: { volume: randomBytes(32), expiresMs: BigInt(bridge.clock.now() + 1_000), signature: randomBytes(64) },
      },
      'done',
    ),
    { code: 'REFUSED' },
  );
  await t.rejects(bridge.connect(owner, stranger, -2 * HOUR_MS), { code: 'REFUSED' }, 'an expired proof');
  await t.rejects(
    bridge.connect(owner, stranger, 3 * HOUR_MS + 1),
    { code: 'REFUSED' },
    'a proof that is good for too long',
  );
});

t.test('malformed and oversized requests are refused', async (t) => {
  const bridge = await Harness.start(t);
  await bridge.join(1);
  const client = await bridge.connect(new Party());
  const many = (count: number): TestShard[] => Array.from({ length: count }, () => someShard(1));
  await t.rejects(client.place([]), { code: 'PROTOCOL' });
  await t.rejects(client.place(many(65)), { code: 'PROTOCOL' });
  await t.rejects(client.place([{ shardId: randomBytes(31), sizeBytes: 1 }]), { code: 'PROTOCOL' });
  await t.rejects(client.place([someShard(0)]), { code: 'PROTOCOL' });
  await t.rejects(client.place([someShard(2 * MIB + 1)]), { code: 'TOO_LARGE' });
  const twice = someShard();
  await t.rejects(client.place([twice, twice]), { code: 'PROTOCOL' });
  await t.rejects(client.locate(Buffer.from('../../etc/passwd')), { code: 'PROTOCOL' });
  await t.rejects(client.call({ case: 'announce', value: { sizeBytes: 2n ** 60n } }, 'policy'), { code: 'PROTOCOL' });
  const bad = { addresses: ['no multiaddr'], capacityBytes: 1n, usedBytes: 0n };
  await t.rejects(bridge.call(client.session, { case: 'registerHost', value: bad }, 'done'), { code: 'PROTOCOL' });
  const unknown = { capacityBytes: 1n, usedBytes: 0n, freeBytes: 0n };
  await t.rejects(bridge.call(client.session, { case: 'heartbeat', value: unknown }, 'heartbeatReply'), {
    code: 'NOT_FOUND',
  });
});

t.test('a mirror is stored with what makes the receipt of its host again', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const { shardId, sizeBytes } = await client.store(hosts);
  const packed = await bridge.store.get(shardKey(shardId));
  const record = unpackShard(packed!, bridge.registry);
  t.same(new Set(record.mirrors.map(({ host }) => host)), new Set(hosts.map(({ peer }) => peer)));
  for (const { host, serial, receiptMs, signature, client: other } of record.mirrors) {
    const fields = { serial, shardId, sizeBytes, host, client: other || record.device, timeMs: receiptMs };
    const body = toBinary(ReceiptSchema, create(ReceiptSchema, fields));
    t.match(verifyReceipt(create(SignedSchema, { body, signature })), { host, client: client.device.peer });
  }
  t.notOk(
    hosts.some(({ peer }) => Buffer.from(packed!).includes(peer)),
    'hosts are stored by their numbers',
  );
});

t.test('a store of the first version, whose mirrors name their hosts, is read and goes on', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const shard = await client.store(hosts);
  const before = unpackShard((await bridge.store.get(shardKey(shard.shardId)))!, bridge.registry);
  await bridge.reopen(async (dir) => {
    const db = await openLevel(dir, { formatVersion: FORMAT_VERSION, user: 'bridge' });
    const mirrors = before.mirrors.map(({ host, countedMs }) => mirrorRecord.make({ host, countedMs }));
    await db.put(shardKey(shard.shardId), shardRecord.encode(shardRecord.make({ ...before, mirrors })));
    for (const { peer } of hosts) {
      const record = hostRecord.decode(await db.get(hostKey(peer)));
      await db.put(hostKey(peer), hostRecord.encode({ ...record, number: 0 }));
    }
    await db.put(Buffer.from('!format'), Uint8Array.of(1));
    await db.close();
  });
  const again = await bridge.connect(client.owner, client.device);
  const all = new Set(hosts.map(({ peer }) => peer));
  t.same(new Set(await again.locate(shard.shardId)), all);
  t.equal(new Set(hosts.map(({ peer }) => bridge.registry.numberOf(peer))).size, 3, 'each host has got a number');
  const numbers = hosts.map(({ peer }) => bridge.registry.numberOf(peer));
  const host = hosts[0]!.peer;
  await again.call({ case: 'report', value: { host, shardId: shard.shardId, code: 'NOT_FOUND' } }, 'done');
  const changed = await bridge.store.get(shardKey(shard.shardId));
  t.notOk(Buffer.from(changed!).includes(host), 'what changes is written in the new way');
  await bridge.reopen();
  t.same(
    hosts.map(({ peer }) => bridge.registry.numberOf(peer)),
    numbers,
    'and they keep their numbers',
  );
  t.same(new Set(await (await bridge.connect(client.owner, client.device)).locate(shard.shardId)), all);
});

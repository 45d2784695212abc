import { createHash, randomBytes } from 'node:crypto';
import t from 'tap';
import type { ResponseValue } from '../../src/net/rpc.ts';
import { Leases } from '../../src/bridge/lease.ts';
import { Volumes } from '../../src/bridge/volumes.ts';
import { KeyedQueue } from '../../src/lib/keyed-queue.ts';
import { Harness, MIB, Party, signedEntry, someShard } from './harness.ts';
import type { Client } from './harness.ts';

const DAY_MS = 24 * 60 * 60 * 1_000;

const read = (
  client: Client,
  fromSeq: bigint,
  maxBytes = 1_000_000,
  headersOnly = false,
): Promise<ResponseValue<'logEntries'>> =>
  client.call({ case: 'readLog', value: { fromSeq, maxBytes, headersOnly } }, 'logEntries');

/** Appends entries one after another, from an empty log. */
async function write(client: Client, count: number, fields: object = {}): Promise<Uint8Array[]> {
  const { epoch } = await client.lease();
  const hashes: Uint8Array[] = [new Uint8Array(32)];
  for (let seq = 1n; seq <= count; seq += 1n) {
    const head = await client.append({
      seq,
      epoch,
      prevHash: hashes.at(-1)!,
      body: Buffer.from(`body ${seq}`),
      ...fields,
    });
    hashes.push(head.hash);
  }
  return hashes;
}

t.test('entries are appended by compare-and-swap and read back', async (t) => {
  const bridge = await Harness.start(t);
  const client = await bridge.connect(new Party());
  t.match((await read(client, 1n)).head, { seq: 0n, hash: Buffer.alloc(32), checkpointEntrySeq: 0n });
  const hashes = await write(client, 5);
  const entry = signedEntry(client, { seq: 1n, epoch: 1n, body: Buffer.from('body 1') });
  const expected = createHash('sha256').update('xcore/entry/1\0').update(entry.header).digest();
  t.same(Buffer.from(hashes[1]!), expected, 'the hash is that of the signed bytes');

  await t.rejects(
    client.append({ seq: 5n, epoch: 1n, prevHash: hashes[4]! }),
    { code: 'STALE_HEAD' },
    'a seq that is taken',
  );
  await t.rejects(client.append({ seq: 7n, epoch: 1n, prevHash: hashes[5]! }), { code: 'STALE_HEAD' }, 'a gap');
  await t.rejects(
    client.append({ seq: 6n, epoch: 1n, prevHash: hashes[4]! }),
    { code: 'STALE_HEAD' },
    'another history',
  );
  const stale = await client.append({ seq: 9n, epoch: 1n }).catch((error: Error) => error.message);
  t.match(stale, new RegExp(`5 ${Buffer.from(hashes[5]!).toString('hex')}`), 'the message names the head');
  const again = await client.append({ seq: 5n, epoch: 1n, prevHash: hashes[4]!, body: Buffer.from('body 5') });
  t.same(again.hash, hashes[5], 'the newest entry may be sent again');

  await bridge.reopen();
  const reader = await bridge.connect(client.owner);
  const all = await read(reader, 1n);
  t.same(
    all.entries.map(({ body }) => Buffer.from(body).toString()),
    ['body 1', 'body 2', 'body 3', 'body 4', 'body 5'],
  );
  t.match(all.head, { seq: 5n, hash: hashes[5]! });
  t.same((await read(reader, 4n)).entries.length, 2);
  t.same((await read(reader, 6n)).entries.length, 0);
  t.same((await read(reader, 1n, 1)).entries.length, 1, 'at least one');
  t.same((await read(reader, 1n, 2 * (all.entries[0]!.header.length + 102))).entries.length, 2, 'a limit in bytes');
  const headers = await read(reader, 1n, 1_000_000, true);
  t.same(
    headers.entries.map(({ body, header }) => [body.length, header.length > 0]),
    Array(5).fill([0, true]),
  );
  t.same((await read(await bridge.connect(new Party()), 1n)).entries.length, 0, 'another volume has a log of its own');
});

t.test('of many appends at once exactly one wins', async (t) => {
  const bridge = await Harness.start(t);
  const client = await bridge.connect(new Party());
  const { epoch } = await client.lease();
  const tries = await Promise.allSettled(
    Array.from({ length: 20 }, (_, at) => client.append({ seq: 1n, epoch, body: Buffer.from([at]) })),
  );
  t.equal(tries.filter(({ status }) => status === 'fulfilled').length, 1);
  t.equal((await read(client, 1n)).entries.length, 1);
});

t.test('an entry must be whole, signed by the owner, and by the device that sends it', async (t) => {
  const bridge = await Harness.start(t);
  const client = await bridge.connect(new Party());
  const { epoch } = await client.lease();
  const right = { seq: 1n, epoch };
  const refused: [string, object, string][] = [
    ['unknown version', { version: 2 }, 'BAD_FORMAT'],
    ['another volume', { volume: randomBytes(32) }, 'REFUSED'],
    ['another device', { device: new Party().peer }, 'REFUSED'],
    ['signature of somebody else', { signWith: new Party() }, 'REFUSED'],
    ['another body', { bodyHash: randomBytes(32) }, 'PROTOCOL'],
    ['another body size', { bodySizeBytes: 2 }, 'PROTOCOL'],
    ['a body too large', { body: Buffer.alloc(3 * MIB + 1) }, 'TOO_LARGE'],
    ['a checkpoint of the future', { checkpointSeq: 2n }, 'PROTOCOL'],
    ['a malformed shard id', { shardsFreed: [randomBytes(31)] }, 'PROTOCOL'],
    ['an unknown shard', { shardsAdded: [someShard()] }, 'NOT_FOUND'],
  ];
  for (const [what, fields, code] of refused) await t.rejects(client.append({ ...right, ...fields }), { code }, what);
  await t.rejects(client.call({ case: 'append', value: {} }, 'head'), { code: 'PROTOCOL' });
  const bent = signedEntry(client, right);
  await t.rejects(
    client.call({ case: 'append', value: { entry: { ...bent, header: Buffer.from('no header') } } }, 'head'),
    { code: 'PROTOCOL' },
  );
  t.equal((await read(client, 1n)).entries.length, 0);
  await client.append(right);
});

t.test('an entry is published only when its shards are durable, and names each shard once', async (t) => {
  const bridge = await Harness.start(t);
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const { epoch } = await client.lease();
  const shard = someShard();
  const { placements } = await client.place([shard]);
  const receipts = placements[0]!.targets.map((target) =>
    hosts.find(({ peer }) => peer === target.host)!.receipt(target),
  );
  await client.confirm(receipts.slice(0, 2));
  await t.rejects(client.append({ seq: 1n, epoch, shardsAdded: [shard] }), { code: 'NO_MIRROR' });
  t.match((await client.confirm(receipts.slice(2))).shards, [{ mirrors: 3, durable: true }]);
  await t.rejects(client.append({ seq: 1n, epoch, shardsAdded: [{ ...shard, sizeBytes: 1 }] }), { code: 'REFUSED' });
  await t.rejects(client.append({ seq: 1n, epoch, shardsAdded: [shard, shard] }), { code: 'PROTOCOL' });
  const { hash } = await client.append({ seq: 1n, epoch, shardsAdded: [shard] });
  await t.rejects(client.append({ seq: 2n, epoch, prevHash: hash, shardsAdded: [shard] }), { code: 'REFUSED' });
  const thief = await bridge.connect(new Party());
  const lease = await thief.lease();
  await t.rejects(thief.append({ seq: 1n, epoch: lease.epoch, shardsFreed: [shard.shardId] }), { code: 'REFUSED' });
  t.equal((await client.locate(shard.shardId)).length, 3);
});

t.test('what made a shard durable when it was placed keeps it durable when hosts join', async (t) => {
  const bridge = await Harness.start(t);
  const [host] = await bridge.join(1);
  const client = await bridge.connect(new Party());
  const shard = await client.store([host!]);
  await bridge.join(5);
  const { epoch } = await client.lease();
  await client.append({ seq: 1n, epoch, shardsAdded: [shard] });
  t.match(
    (await client.place([shard])).placements,
    [{ receipts: 1, targets: [{}, {}] }],
    'more mirrors are wanted all the same',
  );
});

t.test('a checkpoint prunes the bodies that it replaces; headers stay', async (t) => {
  const bridge = await Harness.start(t);
  const client = await bridge.connect(new Party());
  const hashes = await write(client, 4);
  const append = async (seq: bigint, checkpointSeq: bigint): Promise<void> => {
    const head = await client.append({
      seq,
      epoch: 1n,
      prevHash: hashes.at(-1)!,
      body: Buffer.from(`body ${seq}`),
      checkpointSeq,
    });
    t.equal(head.checkpointEntrySeq, checkpointSeq > 0n ? seq : 5n);
    hashes.push(head.hash);
  };
  const bodies = async (): Promise<number[]> => (await read(client, 1n)).entries.map(({ body }) => body.length);
  await append(5n, 3n);
  t.same(await bodies(), [0, 0, 0, 6, 6]);
  await append(6n, 0n);
  await t.rejects(client.append({ seq: 7n, epoch: 1n, prevHash: hashes.at(-1)!, checkpointSeq: 2n }), {
    code: 'REFUSED',
  });
  await append(7n, 7n);
  t.same(await bodies(), [0, 0, 0, 0, 0, 0, 6], 'never its own');
  const { entries } = await read(client, 1n);
  t.ok(entries.every(({ header, signature }) => header.length > 0 && signature.length === 64));
});

t.test('entries that a restored bridge has lost come again from any device, and the lease with them', async (t) => {
  const bridge = await Harness.start(t);
  const owner = new Party();
  const a = await bridge.connect(owner);
  const hashes = await write(a, 2);
  const backup = await bridge.backUp();
  const [a2, b] = [await bridge.connect(owner, a.device), await bridge.connect(owner)];
  const lost = [signedEntry(a, { seq: 3n, epoch: 1n, prevHash: hashes[2]! })];
  const three = await a2.call({ case: 'append', value: { entry: lost[0]! } }, 'head');
  const { epoch } = await b.lease(true);
  lost.push(signedEntry(b, { seq: 4n, epoch, prevHash: three.hash }));
  const four = await b.call({ case: 'append', value: { entry: lost[1]! } }, 'head');
  await bridge.restore(backup);

  const reader = await bridge.connect(owner);
  const own = signedEntry(reader, { seq: 3n, epoch: 1n, prevHash: hashes[2]! });
  await t.rejects(reader.call({ case: 'append', value: { entry: own } }, 'head'), { code: 'LEASE_LOST' });
  await t.rejects(reader.call({ case: 'append', value: { entry: lost[0]! } }, 'head'), { code: 'REFUSED' });
  await t.rejects(reader.appendAgain(lost[1]!), { code: 'STALE_HEAD' }, 'one after another');
  const forged = signedEntry(a, { seq: 3n, epoch: 1n, prevHash: hashes[2]!, signWith: new Party() });
  await t.rejects(reader.appendAgain(forged), { code: 'REFUSED' }, 'as the owner signed it');
  const stranger = await bridge.connect(new Party());
  await t.rejects(stranger.appendAgain(lost[0]!), { code: 'REFUSED' }, 'by the owner');
  for (const entry of lost) await reader.appendAgain(entry);
  t.match(await reader.appendAgain(lost[1]!), { seq: 4n, hash: four.hash }, 'the newest may come twice');
  const { entries } = await read(reader, 3n);
  t.same(
    entries.map(({ header, signature, body }) => [header, signature, body].map((part) => Buffer.from(part))),
    lost.map(({ header, signature, body }) => [header, signature, body].map((part) => Buffer.from(part))),
    'byte for byte',
  );
  const [fenced, writer] = [await bridge.connect(owner, a.device), await bridge.connect(owner, b.device)];
  await t.rejects(fenced.append({ seq: 5n, epoch: 1n, prevHash: four.hash }), { code: 'LEASE_LOST' });
  await writer.append({ seq: 5n, epoch, prevHash: four.hash });
});

t.test('watchers hear of appends and of the lease, until they leave', async (t) => {
  const bridge = await Harness.start(t, { maxWatchersPerVolume: 2 });
  const owner = new Party();
  const client = await bridge.connect(owner);
  const follower = await bridge.connect(owner);
  const stranger = await bridge.connect(new Party());
  for (const watcher of [client, follower, stranger]) await watcher.call({ case: 'watch', value: {} }, 'done');
  const third = await bridge.connect(owner);
  await t.rejects(third.call({ case: 'watch', value: {} }, 'done'), { code: 'REFUSED' });
  await write(client, 1);
  t.match(follower.session.events, [
    { case: 'lease', value: { held: false, holder: client.device.peer, epoch: 1n } },
    { case: 'head', value: { seq: 1n } },
  ]);
  t.match(client.session.events, [{ case: 'lease', value: { held: true } }, { case: 'head' }]);
  t.same(stranger.session.events, []);
  follower.session.end();
  await third.call({ case: 'watch', value: {} }, 'done');
  await client.call({ case: 'releaseLease', value: { epoch: 1n } }, 'lease');
  t.match(third.session.events, [{ case: 'lease', value: { holder: '' } }]);
  t.equal(follower.session.events.length, 2);
});

t.test('only the holder of the lease writes', async (t) => {
  const bridge = await Harness.start(t);
  const owner = new Party();
  const first = await bridge.connect(owner);
  const second = await bridge.connect(owner);
  await t.rejects(first.append({ seq: 1n, epoch: 0n }), { code: 'LEASE_LOST' }, 'without a lease');
  t.match(await first.lease(), { held: true, epoch: 1n, holder: first.device.peer, expiresInMs: 30_000n });
  t.match(await second.lease(), { held: false, epoch: 1n, holder: first.device.peer });
  t.match(await first.lease(), { held: true, epoch: 1n }, 'asking again keeps the epoch');
  await t.rejects(second.append({ seq: 1n, epoch: 1n }), { code: 'LEASE_LOST' });
  await t.rejects(first.append({ seq: 1n, epoch: 2n }), { code: 'LEASE_LOST' });
  const { hash } = await first.append({ seq: 1n, epoch: 1n });

  t.match(await second.lease(true), { held: true, epoch: 2n }, 'taken over');
  await t.rejects(first.append({ seq: 2n, epoch: 1n, prevHash: hash }), { code: 'LEASE_LOST' }, 'fenced');
  t.match(await first.call({ case: 'renewLease', value: { epoch: 1n } }, 'lease'), {
    held: false,
    holder: second.device.peer,
  });
  t.match(await first.call({ case: 'releaseLease', value: { epoch: 1n } }, 'lease'), {
    held: false,
    holder: second.device.peer,
  });
  await second.append({ seq: 2n, epoch: 2n, prevHash: hash });

  await bridge.reopen();
  const back = await bridge.connect(owner, first.device);
  t.match(await back.lease(), { held: false, epoch: 2n }, 'a restart keeps the lease');
  bridge.clock.advance(30_000);
  t.match(await back.lease(), { held: true, epoch: 3n }, 'and its end');
  const late = await bridge.connect(owner, second.device);
  await t.rejects(late.append({ seq: 3n, epoch: 2n }), { code: 'LEASE_LOST' }, 'fenced after a restart');
});

t.test('a lease ends when it is not renewed, and stays renewable until somebody else has it', async (t) => {
  const bridge = await Harness.start(t);
  const owner = new Party();
  const first = await bridge.connect(owner);
  const second = await bridge.connect(owner);
  const renew = (): Promise<ResponseValue<'lease'>> =>
    first.call({ case: 'renewLease', value: { epoch: 1n } }, 'lease');
  await first.lease();
  bridge.clock.advance(20_000);
  t.match(await renew(), { held: true, epoch: 1n, expiresInMs: 30_000n });
  bridge.clock.advance(29_999);
  t.match(await second.lease(), { held: false, expiresInMs: 1n });
  bridge.clock.advance(1);
  t.match(await renew(), { held: true, epoch: 1n }, 'nobody took it');
  bridge.clock.advance(30_000);
  const { hash } = await first.append({ seq: 1n, epoch: 1n });
  t.match(await second.lease(), { held: true, epoch: 2n });
  t.match(await renew(), { held: false, holder: second.device.peer });
  await t.rejects(first.append({ seq: 2n, epoch: 1n, prevHash: hash }), { code: 'LEASE_LOST' });
  await second.call({ case: 'releaseLease', value: { epoch: 2n } }, 'lease');
  t.match(await first.lease(), { held: true, epoch: 3n }, 'each grant has an epoch of its own');
});

t.test('the end of a lease is told to nobody once another one is granted', async (t) => {
  const bridge = await Harness.start(t);
  const owner = new Party();
  const [a, b] = [await bridge.connect(owner), await bridge.connect(owner)];
  const clock = bridge.clock;
  const volumeQueue = new KeyedQueue(16);
  /** While one looks at a lease that ends, another device asks for it. */
  class SlowVolumes extends Volumes {
    granting: (() => Promise<unknown>) | null = null;
    granted: Promise<unknown> | null = null;

    override async get(volume: Uint8Array): ReturnType<Volumes['get']> {
      const record = await super.get(volume);
      if (this.granting === null) return record;
      this.granted = this.granting();
      this.granting = null;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return record;
    }
  }
  const volumes = new SlowVolumes({ store: bridge.store, clock, volumeQueue }, bridge.options);
  const told: string[] = [];
  const leases = new Leases(
    {
      ...{ store: bridge.store, volumes, volumeQueue, clock },
      onChange: (_volume, viewOf) => told.push(viewOf(b.device.peer).holder),
    },
    { ttlMs: 1_000 },
  );
  await leases.acquire({ volume: a.volume, peer: a.device.peer }, false);
  clock.advance(1_001);
  volumes.granting = () => leases.acquire({ volume: b.volume, peer: b.device.peer }, false);
  await leases.expire();
  await volumes.granted;
  t.same(told.slice(-1), [b.device.peer], 'what is told last is who has it');
  t.notOk(told.slice(1).includes(a.device.peer), 'and nobody is told of the one that has ended');
});

t.test('a folder that is not ours, or of an unknown version, is refused', async (t) => {
  const { openLevel } = await import('../../src/lib/open-level.ts');
  const { FORMAT_VERSION, openLevelStore } = await import('../../src/bridge/level-store.ts');
  const dir = t.testdir();
  const newer = await openLevel(`${dir}/newer`, { formatVersion: FORMAT_VERSION + 1, user: 'bridge' });
  await newer.close();
  await t.rejects(openLevelStore(`${dir}/newer`), { code: 'BAD_FORMAT' });
  const { Level } = await import('level');
  const foreign = new Level(`${dir}/foreign`);
  await foreign.put('something', 'else');
  await foreign.close();
  await t.rejects(openLevelStore(`${dir}/foreign`), { code: 'BAD_FORMAT' });
  const store = await openLevelStore(`${dir}/ours`);
  t.teardown(() => store.close());
  await t.rejects(openLevelStore(`${dir}/ours`), { code: 'HOME_LOCKED' });
});

t.test('a bridge that is full of volumes forgets those in which nothing is and nobody is', async (t) => {
  const bridge = await Harness.start(t, { maxVolumes: 4 });
  const hosts = await bridge.join(3);
  const [written, stored, empty] = [
    await bridge.connect(new Party()),
    await bridge.connect(new Party()),
    await bridge.connect(new Party()),
  ];
  await written.lease();
  await written.append({ seq: 1n, epoch: 1n });
  await stored.store(hosts);
  await empty.lease();
  bridge.clock.advance(8 * DAY_MS);
  const young = await bridge.connect(new Party());
  await young.lease();
  for (const host of hosts) await host.beat(1_000 * MIB);
  const late = await bridge.connect(new Party());
  t.match(await late.lease(), { held: true, epoch: 1n }, 'the empty one gave way');
  const later = await bridge.connect(new Party());
  await t.rejects(later.lease(), { code: 'REFUSED' });
  t.match(await (await bridge.connect(written.owner, written.device)).lease(), { epoch: 2n }, 'what has a log stays');
  t.match(await (await bridge.connect(stored.owner)).space(), { usedBytes: BigInt(MIB) });
  bridge.clock.advance(8 * DAY_MS);
  t.match(await (await bridge.connect(later.owner)).lease(), { held: true }, 'others give way in time');
  t.match(
    await (await bridge.connect(empty.owner)).lease(),
    { held: true, epoch: 1n },
    'the forgotten owner begins anew',
  );
});

// What audits prove, and what they do not: hashed keys of whole shards, hosts that cannot look, shards that the bridge itself
// had deleted.

import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { STOCK_KEYS } from '../../src/bridge/hashed-keys.ts';
import { MAX_UNANSWERED } from '../../src/bridge/host-standing.ts';
import type { HostPlace } from '../../src/bridge/host-view.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { MAX_STOCK_KEYS, mintStock } from '../../src/net/key-stock.ts';
import type { Signed } from '../../src/net/proto/wire_pb.ts';
import { Harness, Party } from './harness.ts';
import type { Client, Scope, TestShard } from './harness.ts';
import { SimulatedHosts } from './simulated-hosts.ts';
import type { SimulatedHost } from './simulated-hosts.ts';

t.setTimeout(300_000);

const STEP_MS = 5_000;
const MINUTE_MS = 60_000;
const RARE = {
  ...{ repairAfterMs: MINUTE_MS, repairRetryMs: 10_000, maxRepairRetryMs: MINUTE_MS },
  ...{ auditsPerDay: 0.001, auditShareADay: 0 },
};
const { signal } = new AbortController();

interface World {
  readonly bridge: Harness;
  readonly network: SimulatedHosts;
  readonly client: Client;
  /** How often hosts were asked: for the answer to a challenge, for a whole shard. */
  readonly asked: { proofs: number; wholes: number };
  /** Restarts the bridge. */
  readonly restart: () => Promise<void>;
  readonly mint: (shard: TestShard, count?: number, bytes?: Buffer) => Signed;
  readonly handOver: (...stocks: Signed[]) => Promise<unknown>;
  readonly keysWanted: (shard: TestShard) => Promise<number>;
  readonly audit: (host: SimulatedHost, shard: TestShard, what?: 'hashed' | 'leaf') => Promise<string>;
}

async function world(t: Scope, hosts: number): Promise<World> {
  const dir = t.testdir();
  const teardown = (end: () => Promise<void>): unknown => t.teardown(end);
  const bridge = await Harness.start({ testdir: () => join(dir, 'bridge'), teardown }, RARE);
  const network = await SimulatedHosts.start({ testdir: () => dir, teardown }, bridge, hosts);
  const client = await bridge.connect(new Party());
  let stream = client;
  const asked = { proofs: 0, wholes: 0 };
  const prove = network.prove.bind(network);
  const retrieve = network.retrieve.bind(network);
  network.prove = (...call) => {
    asked.proofs += 1;
    return prove(...call);
  };
  network.retrieve = (...call) => {
    if (call[2].leafCount === 0) asked.wholes += 1;
    return retrieve(...call);
  };
  return {
    ...{ bridge, network, client, asked },
    restart: async () => {
      await bridge.reopen();
      for (const host of network.hosts) await host.register();
      stream = await bridge.connect(client.owner, client.device);
    },
    mint: (shard, count = STOCK_KEYS, bytes = network.bytesOf(shard)) =>
      mintStock(client.device.seed, shard.shardId, bytes, count),
    handOver: (...stocks) => stream.call({ case: 'handOver', value: { stocks } }, 'done'),
    keysWanted: async ({ shardId }) => {
      const { locations } = await stream.call({ case: 'locate', value: { shardIds: [shardId] } }, 'locations');
      return locations[0]!.keysWanted;
    },
    audit: (host, { shardId }, what = 'hashed') => bridge.care.auditor.audit(host.peer, shardId, what, signal),
  };
}

t.test(
  'a hashed key is good once, also over a restart, and the next holder of the shard renews the stock',
  async (t) => {
    const { network, client, asked, restart, mint, handOver, keysWanted, audit } = await world(t, 3);
    const shard = await network.upload(client);
    const [host] = network.hosts;
    t.equal(await keysWanted(shard), STOCK_KEYS);
    t.equal(await audit(host!, shard), 'passed');
    t.same(asked, { proofs: 0, wholes: 0 }, 'without a key it is a leaf');

    const first = mint(shard);
    await handOver(first);
    t.equal(await keysWanted(shard), 0);
    const challenges = new Set<string>();
    const prove = network.prove.bind(network);
    network.prove = (...call) => {
      challenges.add(Buffer.from(call[2]).toString('hex'));
      return prove(...call);
    };
    for (const at of Array.from({ length: STOCK_KEYS }).keys()) {
      t.equal(await audit(network.hosts[at % 3]!, shard), 'passed');
      if (at === 1) await restart();
    }
    t.equal(challenges.size, STOCK_KEYS, 'no challenge comes twice');
    t.same(asked, { proofs: STOCK_KEYS, wholes: 0 }, 'and the bridge read no shard');
    await audit(host!, shard);
    t.equal(challenges.size, STOCK_KEYS, 'all are used up');
    t.equal(await keysWanted(shard), STOCK_KEYS);
    await handOver(mint(shard, MAX_STOCK_KEYS));
    t.equal(await keysWanted(shard), 0);
    await handOver(mint(shard, 1));
    for (let count = 0; count < STOCK_KEYS; count += 1) await audit(host!, shard);
    t.equal(challenges.size, 2 * STOCK_KEYS, 'a stock that is not low is not replaced, and none is larger than wanted');
  },
);

t.test('a key is used up before it is sent', async (t) => {
  const { network, client, mint, handOver, keysWanted, audit } = await world(t, 3);
  const shard = await network.upload(client);
  await handOver(mint(shard, 2));
  network.prove = () => Promise.reject(new XcoreError('UNREACHABLE'));
  t.equal(await audit(network.hosts[0]!, shard), 'unanswered');
  t.equal(await keysWanted(shard), STOCK_KEYS, 'one is left, which is few');
});

t.test('a host that changed one byte anywhere does not find the answer', async (t) => {
  const { bridge, network, client, mint, handOver, audit } = await world(t, 4);
  const shard = await network.upload(client, 300_000);
  const [host] = await network.intact(shard);
  await handOver(mint(shard));
  const bytes = Buffer.from(network.bytesOf(shard));
  bytes[290_000]! ^= 1;
  await host!.replace(shard, bytes);
  t.equal(await audit(host!, shard), 'failed');
  t.equal(bridge.registry.standing(host!.peer).auditsFailed, 1n);
  await network.pass(2, STEP_MS);
  t.equal((await network.intact(shard)).length, 3, 'and the mirror is made again');
});

t.test('a false commitment costs a host a look at the whole shard, never its standing', async (t) => {
  const { bridge, network, client, asked, mint, handOver, keysWanted, audit } = await world(t, 3);
  const shard = await network.upload(client);
  await handOver(mint(shard, STOCK_KEYS, Buffer.alloc(shard.sizeBytes)));
  const [host] = network.hosts;
  t.equal(await audit(host!, shard), 'passed');
  t.same(asked, { proofs: 1, wholes: 1 });
  t.match(bridge.registry.standing(host!.peer), { auditsFailed: 0n, auditsPassed: 1n });
  t.equal(await keysWanted(shard), STOCK_KEYS, 'the stock is thrown away');
  await audit(host!, shard);
  t.same(asked, { proofs: 1, wholes: 1 }, 'so it costs no second look');
});

t.test('only an owner’s device may hand over keys of its shard, signed, and freeing the shard ends them', async (t) => {
  const { bridge, network, client, mint, handOver, keysWanted } = await world(t, 3);
  const shard = await network.upload(client);
  const stranger = await bridge.connect(new Party());
  const stock = mint(shard);
  await t.rejects(stranger.call({ case: 'handOver', value: { stocks: [stock] } }, 'done'), { code: 'REFUSED' });
  const own = mintStock(stranger.device.seed, shard.shardId, network.bytesOf(shard), 4);
  await stranger.call({ case: 'handOver', value: { stocks: [own] } }, 'done');
  t.equal(await keysWanted(shard), STOCK_KEYS, 'what a stranger mints changes nothing');
  await t.rejects(handOver({ ...stock, signature: new Uint8Array(64) }), { code: 'REFUSED' }, 'forged');
  await t.rejects(handOver({ ...stock, body: stock.body.slice(0, 70) }), { code: 'PROTOCOL' }, 'cut short');
  await t.rejects(handOver({ ...stock, body: new Uint8Array() }), { code: 'PROTOCOL' }, 'empty');
  await t.rejects(handOver(...Array.from({ length: 65 }, () => stock)), { code: 'PROTOCOL' }, 'too many');
  await handOver(mint(shard, STOCK_KEYS, network.bytesOf(shard).subarray(1)));
  t.equal(await keysWanted(shard), STOCK_KEYS, 'a shard of another size');
  await handOver(stock);
  t.equal(await keysWanted(shard), 0);
  const { epoch } = await client.lease();
  const head = await client.append({ seq: 1n, epoch, shardsAdded: [shard], shardsFreed: [] });
  await client.append({ seq: 2n, epoch, prevHash: head.hash, shardsAdded: [], shardsFreed: [shard.shardId] });
  t.equal(await bridge.store.get(Buffer.concat([Buffer.from('k'), shard.shardId])), undefined);
});

t.test('a host that repairs a shard mints its next keys, and is never asked one of its own', async (t) => {
  const { bridge, network, client, asked, keysWanted, audit } = await world(t, 4);
  const shard = await network.upload(client);
  const before = await network.intact(shard);
  before[0]!.away = true;
  await network.pass(18, STEP_MS);
  const after = await network.intact(shard);
  const minter = after.find((host) => !before.includes(host))!;
  t.equal(after.length, 3);
  t.equal(await keysWanted(shard), 0);
  t.equal(await audit(minter, shard), 'passed');
  t.equal(asked.proofs, 0);
  const move = async ({ peer }: SimulatedHost, place: HostPlace): Promise<void> =>
    bridge.registry.register(peer, [], { capacityBytes: 1e9, usedBytes: 0 }, place);
  for (const place of [{ operator: 'one' }, { network: '192.0.2' }]) {
    for (const host of [minter, before[1]!]) await move(host, place);
    t.equal(await audit(before[1]!, shard), 'passed');
    t.equal(asked.proofs, 0, 'nor is another host at its place');
  }
  await move(minter, { network: '198.51.100' });
  t.equal(await audit(before[1]!, shard), 'passed');
  t.same(asked, { proofs: 1, wholes: 0 });
});

t.test('a host that cannot look is suspended after some times, never disqualified, and good once it can', async (t) => {
  const { bridge, network, client, audit } = await world(t, 3);
  const shard = await network.upload(client);
  const [host] = network.hosts;
  const retrieve = network.retrieve.bind(network);
  // What any failure of a host's own arrives as, also too many open files.
  network.retrieve = () => Promise.reject(new XcoreError('INTERNAL'));
  for (let count = 1; count <= 50; count += 1) {
    t.equal(await audit(host!, shard, 'leaf'), 'unanswered');
    const { state } = bridge.registry.get(host!.peer)!.standing;
    t.equal(state, count < MAX_UNANSWERED ? 'vetting' : 'suspended');
  }
  network.retrieve = retrieve;
  t.equal(await audit(host!, shard, 'leaf'), 'passed');
  t.match(bridge.registry.standing(host!.peer), { state: 'vetting', auditsFailed: 0n, auditScore: 1 });
  t.equal((await client.locate(shard.shardId)).length, 3, 'and its mirrors stay');
});

t.test('a bridge that was restored from a backup holds what it had deleted since against nobody', async (t) => {
  const { bridge, network, client, audit } = await world(t, 4);
  const shards: TestShard[] = [];
  for (let count = 0; count < 20; count += 1) shards.push(await network.upload(client));
  const { epoch } = await client.lease();
  const head = await client.append({ seq: 1n, epoch, shardsAdded: shards, shardsFreed: [] });
  const backup = join(network.hosts[0]!.dir, '..', 'backup');
  await bridge.reopen((dir) => cp(dir, backup, { recursive: true }));
  for (const host of network.hosts) await host.register();
  const again = await bridge.connect(client.owner, client.device);
  const freed = shards.slice(1);
  await again.lease();
  await again.append({ seq: 2n, epoch, prevHash: head.hash, shardsFreed: freed.map(({ shardId }) => shardId) });
  await network.pass(3, STEP_MS);
  for (const shard of freed) t.equal((await network.intact(shard)).length, 0);

  await bridge.reopen(async (dir) => {
    await rm(dir, { recursive: true });
    await cp(backup, dir, { recursive: true });
  });
  for (const host of network.hosts) await host.register();
  for (const shard of freed) {
    for (const host of network.hosts) t.match(await audit(host, shard, 'leaf'), /excused|skipped/);
  }
  await network.pass(5, STEP_MS);
  for (const host of network.hosts) {
    t.match(bridge.registry.standing(host.peer), { state: 'vetting', auditsFailed: 0n, auditScore: 1 });
  }
  const [forgetful] = await network.intact(shards[0]!);
  await forgetful!.lose(shards[0]!);
  t.equal(await audit(forgetful!, shards[0]!, 'leaf'), 'failed', 'what nobody ordered is held against it');
});

t.test(
  'an order to delete excuses the host that it names, for its shard, and for what was stored before it',
  async (t) => {
    const { bridge, network, client, audit } = await world(t, 3);
    const [shard, other] = [await network.upload(client), await network.upload(client)];
    const { epoch } = await client.lease();
    const free = async (
      seq: bigint,
      prevHash: Uint8Array,
      freed: TestShard,
      added: TestShard[],
    ): Promise<Uint8Array> => {
      const shardsFreed = [freed.shardId];
      return (await client.append({ seq, epoch, prevHash, shardsAdded: added, shardsFreed })).hash;
    };
    const head = await client.append({ seq: 1n, epoch, shardsAdded: [shard], shardsFreed: [] });
    await free(2n, head.hash, shard, [other]);
    await network.pass(3, STEP_MS);
    bridge.clock.advance(MINUTE_MS);
    for (const host of network.hosts) await host.beat();
    await network.store(client, shard);
    t.equal((await network.intact(shard)).length, 3);
    const [host, second] = network.hosts;
    await host!.lose(shard);
    t.equal(await audit(host!, shard, 'leaf'), 'failed', 'the order is older than the mirror');

    const findDeletion = network.findDeletion.bind(network);
    network.findDeletion = (_host, _shardId, ...rest) => findDeletion(host!.peer, shard.shardId, ...rest);
    await second!.lose(other);
    t.equal(await audit(second!, other, 'leaf'), 'failed', 'the order is for another shard and host');
  },
);

// Hosts that rest: by the hour or when their month is used up. On a clock that the test moves.

import { join } from 'node:path';
import t from 'tap';
import { MAX_EXCUSED_MS } from '../../src/bridge/host-rest.ts';
import { Harness, Party, someShard } from './harness.ts';
import { SimulatedHosts } from './simulated-hosts.ts';

t.setTimeout(300_000);

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const OPTIONS = {
  repairAfterMs: 10 * MINUTE_MS,
  repairRetryMs: MINUTE_MS,
  maxRepairRetryMs: 5 * MINUTE_MS,
  auditsPerDay: 0.001,
  auditShareADay: 0,
};

/** A bridge and its hosts, of which the first one keeps hours. */
async function world(
  t: { testdir(): string; teardown(action: () => Promise<void>): unknown },
  hosts: number,
  options: object = {},
): Promise<{ bridge: Harness; network: SimulatedHosts }> {
  const dir = t.testdir();
  const teardown = (end: () => Promise<void>): unknown => t.teardown(end);
  const bridge = await Harness.start({ testdir: () => join(dir, 'bridge'), teardown }, { ...OPTIONS, ...options });
  return { bridge, network: await SimulatedHosts.start({ testdir: () => dir, teardown }, bridge, hosts) };
}

t.test('a resting host is asked last and not copied from, and what it holds counts', async (t) => {
  const { bridge, network } = await world(t, 3);
  const client = await bridge.connect(new Party());
  const shard = await network.upload(client);
  const [resting] = network.hosts;
  const now = BigInt(bridge.clock.now());
  resting!.rest = { restFromMs: now, restUntilMs: now + BigInt(HOUR_MS), partTime: true };
  await resting!.beat();
  t.match(bridge.registry.get(resting!.peer), { resting: true, excused: true, dependable: true, online: true });
  for (let round = 0; round < 20; round += 1) t.equal((await client.locate(shard.shardId)).at(-1), resting!.peer);
  await network.pass(10, MINUTE_MS);
  t.equal(network.copies.length, 0);
  t.equal((await client.locate(shard.shardId)).length, 3);

  bridge.clock.advance(HOUR_MS);
  for (const host of network.hosts) await host.beat();
  t.match(bridge.registry.get(resting!.peer), { resting: false, excused: false });
});

t.test('one that said beforehand that it would be silent is missed only when it should be back', async (t) => {
  const { bridge, network } = await world(t, 4);
  const client = await bridge.connect(new Party());
  for (let count = 0; count < 6; count += 1) await network.upload(client);
  const away = network.hosts.find(({ store }) => store.shards > 0);
  const now = bridge.clock.now();
  away!.rest = {
    restFromMs: BigInt(now + 5 * MINUTE_MS),
    restUntilMs: BigInt(now + 65 * MINUTE_MS),
    partTime: true,
  };
  await network.pass(60, 5_000);
  away!.away = true;
  await network.pass(59, MINUTE_MS);
  t.equal(network.copies.length, 0, 'nothing is repaired in its rest');
  const held = await away!.count();
  t.ok(held > 0);
  away!.away = false;
  await away!.beat();
  const standing = bridge.registry.standing(away!.peer);
  t.ok(standing.uptime > 0.95, `the rest is held against nobody: ${standing.uptime}`);

  away!.away = true;
  await network.pass(9, MINUTE_MS);
  t.equal(network.copies.length, 0);
  await network.pass(5, MINUTE_MS);
  t.equal(network.copies.length, held, 'after it, its silence counts as any other');
});

t.test('a rest excuses silence, not audits without an answer', async (t) => {
  const { bridge, network } = await world(t, 4, { auditsPerDay: 8_640 });
  const client = await bridge.connect(new Party());
  const shards = [await network.upload(client), await network.upload(client)];
  const mute = network.hosts.find((host) => host.store.shards === shards.length)!;
  mute.mute = true;
  await network.pass(30, MINUTE_MS);
  t.equal(network.copies.length, shards.length, 'without a rest');
  const other = network.hosts.find((host) => host !== mute && host.store.shards === shards.length)!;
  mute.mute = false;
  await network.pass(5, MINUTE_MS);
  other.mute = true;
  const held = other.store.shards;
  const before = network.copies.length;
  for (let minute = 0; minute < 30; minute += 1) {
    const now = BigInt(bridge.clock.now());
    other.rest = { restFromMs: now, restUntilMs: now + BigInt(HOUR_MS), partTime: true };
    await network.pass(1, MINUTE_MS);
  }
  t.equal(network.copies.length - before, held, 'nor in one');
});

t.test('no rest excuses for ever', async (t) => {
  const { bridge, network } = await world(t, 4);
  const client = await bridge.connect(new Party());
  const [away] = await network.intact(await network.upload(client));
  const now = bridge.clock.now();
  away!.rest = { restFromMs: BigInt(now), restUntilMs: BigInt(now + 30 * 24 * HOUR_MS), partTime: true };
  await away!.beat();
  away!.away = true;
  const held = await away!.count();
  await network.pass(MAX_EXCUSED_MS / HOUR_MS - 1, HOUR_MS);
  t.equal(network.copies.length, 0);
  await network.pass(3, HOUR_MS);
  t.equal(network.copies.length, held);
  t.ok(bridge.registry.standing(away!.peer).uptime < 1);
});

t.test('a shard goes to at most one host that rests, as far as there are others', async (t) => {
  const { bridge, network } = await world(t, 6);
  for (const host of network.hosts.slice(0, 4)) {
    host.rest = { restFromMs: 0n, restUntilMs: 0n, partTime: true };
    await host.beat();
  }
  const partTime = new Set(network.hosts.slice(0, 4).map(({ peer }) => peer));
  const client = await bridge.connect(new Party());
  for (let count = 0; count < 10; count += 1) {
    const { placements } = await client.place([someShard()]);
    t.equal(placements[0]!.targets.filter(({ host }) => partTime.has(host)).length, 1);
  }
});

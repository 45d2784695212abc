// How many mirrors a shard gets: what its owner says, else what the bridge was told, else what the network allows.

import { join } from 'node:path';
import t from 'tap';
import { policyFor } from '../../src/bridge/policy.ts';
import type { Policy } from '../../src/net/proto/wire_pb.ts';
import { Harness, Party, someShard } from './harness.ts';
import type { Client } from './harness.ts';
import { SimulatedHosts } from './simulated-hosts.ts';

t.setTimeout(300_000);

const STEP_MS = 5_000;
const OPTIONS = { repairAfterMs: 60_000, repairRetryMs: 10_000, maxRepairRetryMs: 60_000, auditsPerDay: 0.001 };

function announce(client: Client, mirrors: number): Promise<Policy> {
  return client.call({ case: 'announce', value: { mirrors } }, 'policy');
}

t.test('a wish counts as far as there are hosts, and needs no more receipts than mirrors', async (t) => {
  const decided = [
    [1, 0],
    [5, 0],
    [10, 0],
    [10, 1],
    [10, 2],
    [10, 6],
    [4, 6],
    [0, 2],
  ].map(([hosts, wished]) => {
    const { mirrors, minReceipts } = policyFor(0, hosts!, wished);
    return [hosts, wished, mirrors, minReceipts];
  });
  t.same(decided, [
    [1, 0, 1, 1],
    [5, 0, 3, 3],
    [10, 0, 4, 3],
    [10, 1, 1, 1],
    [10, 2, 2, 2],
    [10, 6, 6, 3],
    [4, 6, 4, 3],
    [0, 2, 1, 1],
  ]);
});

t.test('an owner’s wish holds for placement and repair, over restarts, and for nobody else', async (t) => {
  const dir = t.testdir();
  const teardown = (end: () => Promise<void>): unknown => t.teardown(end);
  const bridge = await Harness.start(
    { testdir: () => join(dir, 'bridge'), teardown },
    { ...OPTIONS, auditShareADay: 0 },
  );
  const network = await SimulatedHosts.start({ testdir: () => dir, teardown }, bridge, 6);
  const [few, many, usual] = await Promise.all([0, 1, 2].map(() => bridge.connect(new Party())));
  t.match(await announce(few!, 2), { mirrors: 2, minReceipts: 2 });
  t.match(await announce(many!, 5), { mirrors: 5, minReceipts: 3 });
  t.match(await announce(usual!, 0), { mirrors: 3 });
  await t.rejects(announce(usual!, 7), { code: 'PROTOCOL' });
  const shards = [await network.upload(few!), await network.upload(many!), await network.upload(usual!)];
  const counts = async (): Promise<number[]> =>
    Promise.all(shards.map(async (shard) => (await network.intact(shard)).length));
  t.same(await counts(), [2, 5, 3]);

  await bridge.reopen();
  const again = await bridge.connect(few!.owner);
  const { policy, placements } = await again.place([someShard()]);
  t.match(policy, { mirrors: 2 });
  t.equal(placements[0]!.targets.length, 2);
  const [lost] = await network.intact(shards[0]!);
  lost!.away = true;
  await network.pass(20, STEP_MS);
  t.same(await counts(), [2, 5, 3], 'repair knows it too');
  lost!.away = false;
  await lost!.register();
  await network.pass(6, STEP_MS);
  t.same(await counts(), [2, 5, 3], 'what is too much then is given up');
});

t.test('an operator is told that shards wait for more hosts to join', async (t) => {
  const bridge = await Harness.start(t, { ...OPTIONS, auditShareADay: 0 });
  const network = await SimulatedHosts.start(t, bridge, 3);
  const owner = await bridge.connect(new Party());
  const shard = await network.upload(owner);
  const waits = /shards wait for more hosts to join: they are to have 3 mirrors, .+ are 2$/;
  t.notMatch((await bridge.status()).advice, [waits]);
  const [lost] = await network.intact(shard);
  lost!.away = true;
  await network.pass(20, STEP_MS);
  const { toRepair, advice } = await bridge.status();
  t.equal(toRepair, 1);
  t.match(advice, [waits], 'and not that the hosts which are there make them');
  lost!.away = false;
  await lost!.register();
  await network.pass(6, STEP_MS);
  t.same((await bridge.status()).advice, []);
});

t.test('a bridge may be told another number for all', async (t) => {
  const bridge = await Harness.start(t, { ...OPTIONS, mirrors: 2 });
  await bridge.join(5);
  const client = await bridge.connect(new Party());
  t.match(await announce(client, 0), { mirrors: 2 });
  t.match(await announce(client, 4), { mirrors: 4 });
});

// Which mirror is asked first, and when another one is asked as well, by what the client has seen itself.

import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { startHost } from '../../src/host/start-host.ts';
import { Transfers } from '../../src/host/transfers.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { FailingHosts } from '../../src/net/failing-hosts.ts';
import { HostFigures } from '../../src/net/host-figures.ts';
import type { ShardHandlers } from '../../src/net/shard-protocol.ts';
import { MirrorRanking } from '../../src/net/mirror-ranking.ts';
import { Random, pickSeed } from '../support/random.ts';

t.setTimeout(300_000);

const READERS = 12;
const KIB = 1024;
const MIB = 1024 * KIB;
const hosts = ['a', 'b', 'c'].map((host) => ({ host }));

t.test('what is usual and what is slow is known after some reads, by size', async (t) => {
  const figures = new HostFigures();
  for (const time of [10, 30]) figures.took('a', 16 * KIB, time);
  t.equal(figures.usualMs('a', 16 * KIB), undefined);
  figures.took('a', 16 * KIB, 20);
  t.equal(figures.usualMs('a', 16 * KIB), 20);
  t.equal(figures.usualMs('a', 2 * MIB), undefined, 'small reads say nothing of large ones');
  t.equal(figures.slowMs('a', 16 * KIB), undefined);
  for (let count = 0; count < 3; count += 1) figures.took('b', MIB, 500);
  t.equal(figures.usualMs('b', 2 * MIB), 1_000, 'large ones are compared by speed');
  for (let time = 100; time < 200; time += 1) figures.took('c', 16 * KIB, time);
  t.ok(figures.slowMs('c', 16 * KIB)! >= 190, 'only the newest count');
  for (let count = 0; count < 64; count += 1) figures.took('c', 16 * KIB, 1);
  t.equal(figures.slowMs('c', 16 * KIB), 50, 'nothing is slow that takes so little');
});

t.test('the nearest comes first, similar ones share, and failing or bad ones come last', async (t) => {
  const figures = new HostFigures();
  const failing = new FailingHosts(() => 0);
  let luck = 0.5;
  const ranking = new MirrorRanking({ figures, failing, random: () => luck });
  const rank = (size = 16 * KIB): string =>
    ranking
      .rank(hosts, 's', size)
      .map(({ host }) => host)
      .join('');
  t.equal(rank(), 'abc', 'as the bridge says, while nothing is known');
  for (const [host, time] of [
    ['b', 100],
    ['c', 10],
  ] as const) {
    for (let count = 0; count < 5; count += 1) figures.took(host, 16 * KIB, time);
  }
  t.equal(rank(), 'acb', 'a stranger that the bridge names first is tried');
  for (let count = 0; count < 5; count += 1) figures.took('a', 16 * KIB, 11);
  t.equal(rank(), 'acb', 'hosts that hardly differ stay in the order of the bridge');
  for (let count = 0; count < 64; count += 1) figures.took('a', 16 * KIB, 1_000);
  t.equal(rank(), 'cba');
  t.equal(rank(2 * MIB), 'abc');
  luck = 0;
  t.equal(rank(), 'abc', 'now and then the order of the bridge is tried');
  luck = 0.5;
  ranking.bad('c', 's');
  t.equal(rank(), 'bac');
  t.equal(ranking.rank(hosts, 'other', 16 * KIB)[0]!.host, 'c', 'a bad mirror says nothing of others');
  failing.failed('b');
  t.equal(rank(), 'abc');
  ranking.good('c', 's');
  t.equal(rank(), 'cab');
});

t.test('reads leave a slow host alone once it is known, and wait for no turn', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const luck = new Random(seed);
  const dir = t.testdir();
  const log = silentLogger;
  const listen = ['/ip4/127.0.0.1/tcp/0'];
  const bridge = await startBridge({ dir: join(dir, 'b'), listen }, { log });
  t.teardown(() => bridge.stop());
  const [slow] = await Promise.all(
    [64_000, 0, 0].map(async (upBytesPerSecond, number) => {
      const options = { floorBytes: 0, upBytesPerSecond };
      const settings = {
        dir: join(dir, `h${number}`),
        bridge: bridge.address,
        capacityBytes: 100 * MIB,
        listen,
        options,
      };
      const host = await startHost(settings, { log });
      t.teardown(() => host.stop());
      return host;
    }),
  );
  let explores = true;
  const client = new ClientNetwork(
    { bridge: bridge.address, deviceSeed: randomBytes(32), ownerSeed: randomBytes(32), hedgeAfterMs: 100 },
    { random: () => (explores ? luck.below(2 ** 30) / 2 ** 30 : 0.5) },
  );
  await client.start();
  t.teardown(() => client.stop());
  const data = randomBytes(512 * KIB);
  const path = join(dir, 'shard');
  writeFileSync(path, data);
  const shard = { id: shardIdOf(leafHashes(data), data.length), sizeBytes: data.length, path };
  await client.upload(shard);
  const sentBySlow = async (): Promise<number> =>
    Number(/host_bytes_total\{direction="out"\} (\d+)/.exec(await slow!.metrics.text())?.[1] ?? 0);
  const read = async (): Promise<void> => {
    const back = join(dir, 'back');
    await client.fetchShard(shard.id, shard.sizeBytes, back);
    t.ok(readFileSync(back).subarray(0, data.length).equals(data));
  };
  for (let count = 0; count < 20; count += 1) await read();
  const before = await sentBySlow();
  // which it also does by chance, however slow a host is
  explores = false;
  for (let count = 0; count < 20; count += 1) await read();
  t.ok((await sentBySlow()) - before <= 3 * shard.sizeBytes, 'hardly a read begins there');

  // hosts answer once all are there
  type Retrieve = (
    this: Transfers,
    ...args: Parameters<ShardHandlers['retrieve']>
  ) => ReturnType<ShardHandlers['retrieve']>;
  const handlers = Transfers.prototype as { retrieve: Retrieve };
  const retrieve = handlers.retrieve;
  t.teardown(() => (handlers.retrieve = retrieve));
  const all = Promise.withResolvers<void>();
  const asked = new Set<number>();
  handlers.retrieve = async function (order, firstLeaf, ...rest) {
    if (asked.add(firstLeaf).size === READERS) all.resolve();
    await all.promise;
    return retrieve.call(this, order, firstLeaf, ...rest);
  };
  const leaves = Array.from({ length: READERS }, (_, leaf) => client.fetchLeaves(shard.id, shard.sizeBytes, leaf, 1));
  const [first] = await Promise.all(leaves);
  t.same(Buffer.from(first!), data.subarray(0, first!.length), 'no random reader waits for its turn');
});

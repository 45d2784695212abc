import t from 'tap';
import { chooseHosts } from '../../src/bridge/placement.ts';
import type { Candidate } from '../../src/bridge/placement.ts';
import { policyFor } from '../../src/bridge/policy.ts';
import { RateLimit } from '../../src/bridge/rate-limit.ts';
import { pickSeed, Random } from '../support/random.ts';

const MIB = 1024 * 1024;

t.test('the policy asks for a mirror on each host up to three, and four from ten hosts on', async (t) => {
  const decided = [0, 1, 2, 3, 4, 9, 10, 100].map((hosts) => {
    const { mirrors, minReceipts } = policyFor(0, hosts);
    return [hosts, mirrors, minReceipts];
  });
  t.same(decided, [
    [0, 1, 1],
    [1, 1, 1],
    [2, 2, 2],
    [3, 3, 3],
    [4, 3, 3],
    [9, 3, 3],
    [10, 4, 3],
    [100, 4, 3],
  ]);
});

t.test('the shard size is a power of two between 256 KiB and 2 MiB', async (t) => {
  t.equal(policyFor(0, 3).shardSizeBytes, 2 * MIB, 'unknown');
  t.equal(policyFor(1, 3).shardSizeBytes, MIB / 4);
  t.equal(policyFor((3 * MIB) / 4, 3).shardSizeBytes, MIB / 4);
  t.equal(policyFor((3 * MIB) / 4 + 1, 3).shardSizeBytes, MIB / 2);
  t.equal(policyFor(3 * MIB, 3).shardSizeBytes, MIB);
  t.equal(policyFor(1e15, 3).shardSizeBytes, 2 * MIB);
  t.equal(policyFor(4 * MIB, 0).shardSizeBytes, 2 * MIB);
});

t.test('placement', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const source = new Random(seed);
  const random = (): number => source.below(2 ** 30) / 2 ** 30;
  const host = (name: string, fields: Partial<Candidate> = {}): Candidate => ({
    host: name,
    online: true,
    freeBytes: 100 * MIB,
    bytesPerSecond: 0,
    reliability: 1,
    uptime: 1,
    takesShards: true,
    vetted: true,
    network: '',
    ...fields,
  });
  const choose = (hosts: Candidate[], count: number, exclude: string[] = [], prefer: string[] = []): string[] =>
    chooseHosts(hosts, { sizeBytes: MIB, count, exclude: new Set(exclude), prefer: new Set(prefer) }, random).map(
      (chosen) => chosen.host,
    );
  const shareOf = (name: string, hosts: Candidate[]): number => {
    let hits = 0;
    for (let round = 0; round < 2_000; round += 1) hits += choose(hosts, 1)[0] === name ? 1 : 0;
    return hits / 2_000;
  };

  t.test('never takes a host that is offline, full or excluded, nor one twice', async (t) => {
    const hosts = [
      host('good1'),
      host('good2'),
      host('exact', { freeBytes: MIB }),
      host('offline', { online: false }),
      host('full', { freeBytes: MIB - 1 }),
      host('excluded'),
    ];
    for (let round = 0; round < 100; round += 1) {
      t.same(choose(hosts, 9, ['excluded']).sort(), ['exact', 'good1', 'good2']);
    }
    t.same(choose(hosts, 0), []);
    t.same(choose(hosts, -1), []);
    t.same(choose([], 3), []);
  });

  t.test('takes preferred hosts first', async (t) => {
    const hosts = ['a', 'b', 'c', 'd', 'e'].map((name) => host(name));
    for (let round = 0; round < 50; round += 1) t.equal(choose(hosts, 2, [], ['d'])[0], 'd');
  });

  t.test('leans to free, fast and reliable hosts without leaving the others out', async (t) => {
    const leaning: [string, Partial<Candidate>][] = [
      ['free space', { freeBytes: 10 * MIB }],
      ['speed', { bytesPerSecond: 100_000 }],
      ['reliability', { reliability: 0.4 }],
    ];
    for (const [what, worse] of leaning) {
      const share = shareOf('worse', [
        host('better', { bytesPerSecond: 10_000_000 }),
        host('worse', { bytesPerSecond: 10_000_000, ...worse }),
      ]);
      t.ok(share > 0.005 && share < 0.35, `${what}: the worse host gets ${share}`);
    }
    const even = shareOf('a', [host('a'), host('b')]);
    t.ok(even > 0.4 && even < 0.6, `equal hosts share: ${even}`);
  });
});

t.test('a stream that asks too much is slowed down to its rate', async (t) => {
  const limit = new RateLimit(10, 0);
  for (let request = 0; request < 10; request += 1) t.equal(limit.take(0), 0);
  t.equal(limit.take(0), 100);
  t.equal(limit.take(0), 200);
  t.equal(limit.take(10_000), 0);
});

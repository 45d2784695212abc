import t from 'tap';
import { chooseHosts } from '../../src/bridge/placement.ts';
import type { Candidate } from '../../src/bridge/placement.ts';
import { isDependable, noteAudit, standingOf, takesShards } from '../../src/bridge/host-standing.ts';
import { policyFor } from '../../src/bridge/policy.ts';
import { RateLimit } from '../../src/lib/rate-limit.ts';
import { hostRecord } from '../../src/bridge/records.ts';
import { networkPrefix } from '../../src/net/network-prefix.ts';
import { pickSeed, Random } from '../support/random.ts';
import { Harness, Party, someShard } from './harness.ts';
import type { Client, Host } from './harness.ts';

const MIB = 1024 * 1024;
const DAY_MS = 24 * 60 * 60 * 1_000;

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
    operator: '',
    region: '',
    partTime: false,
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
      host('suspended', { takesShards: false }),
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

  t.test('keeps mirrors in different networks as far as there are some', async (t) => {
    const hosts = ['a', 'b', 'c', 'd'].map((name) => host(name, { network: '192.0.2', freeBytes: 1_000 * MIB }));
    hosts.push(host('e', { network: '198.51.100' }), host('f', { network: '203.0.113' }));
    for (let round = 0; round < 100; round += 1) {
      const chosen = choose(hosts, 3);
      t.ok(chosen.includes('e') && chosen.includes('f') && new Set(chosen).size === 3, chosen.join());
      t.equal(choose(hosts, 5).length, 5, 'networks are shared when there are too few');
    }
    const holders = [host('g', { network: '198.51.100' }), host('h', { network: '192.0.2' })];
    const request = { sizeBytes: MIB, count: 2, exclude: new Set(['e']), holders };
    t.equal(chooseHosts(hosts, request, random)[0]?.host, 'f', 'those that hold a mirror already count');
    const unknown = ['a', 'b', 'c'].map((name) => host(name));
    t.equal(choose(unknown, 3).length, 3);
  });

  t.test(
    'keeps mirrors with different operators, then networks, then regions, and one that rests is enough',
    async (t) => {
      const many = { freeBytes: 1_000 * MIB };
      const hosts = [
        ...['a', 'b', 'c'].map((name) => host(name, { ...many, operator: 'one', network: name, region: name })),
        ...['d', 'e'].map((name) => host(name, { operator: name, network: '192.0.2', region: name })),
        ...['f', 'g'].map((name) =>
          host(name, { ...many, operator: name, network: name, partTime: true, region: 'eu' }),
        ),
      ];
      for (let round = 0; round < 100; round += 1) {
        const three = choose(hosts, 3);
        const named = (names: string[]): number => three.filter((name) => names.includes(name)).length;
        t.ok(named(['a', 'b', 'c']) === 1 && named(['d', 'e']) === 1 && named(['f', 'g']) === 1, three.join());
        t.equal(choose(hosts, 7).length, 7, 'places are shared when there are too few');
      }
      const regions = ['a', 'b', 'c'].map((name) => host(name, { ...many, region: 'eu' }));
      for (let round = 0; round < 20; round += 1) {
        t.ok(choose([...regions, host('far', { region: 'us' })], 2).includes('far'));
      }
    },
  );

  t.test('leans to free, fast and reliable hosts without leaving the others out', async (t) => {
    const leaning: [string, Partial<Candidate>][] = [
      ['free space', { freeBytes: 10 * MIB }],
      ['speed', { bytesPerSecond: 100_000 }],
      ['reliability', { reliability: 0.4 }],
      ['uptime', { uptime: 0.4 }],
      ['vetting', { vetted: false }],
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

t.test('networks are told apart by /24 and /64, and this machine is none', async (t) => {
  const prefixes = [
    ['/ip4/192.0.2.7/tcp/1', '192.0.2'],
    ['/ip4/127.0.0.1/tcp/1', ''],
    ['/ip6/2001:db8:0:1::7/tcp/1', '2001:db8:0:1'],
    ['/ip6/2001:0db8::1:2:3:4:5/tcp/1', '2001:db8:0:1'],
    ['/ip6/::1/tcp/1', ''],
    ['/ip6/::ffff:192.0.2.7/tcp/1', '192.0.2'],
    ['/ip6/::ffff:127.0.0.1/tcp/1', ''],
    ['/dns4/example.org/tcp/1', ''],
    ['', ''],
  ] as const;
  for (const [address, prefix] of prefixes) t.equal(networkPrefix(address), prefix, address);
});

t.test('the standing of a host follows from its audits', async (t) => {
  const record = hostRecord.make({ reliability: 0.01, shards: 10n });
  const audits = (count: number, passed: boolean): string => {
    for (let audit = 0; audit < count; audit += 1) noteAudit(record, passed, 1);
    return standingOf(record).state;
  };
  t.equal(standingOf(record).state, 'vetting', 'what clients say of it does not count');
  t.equal(audits(99, true), 'vetting');
  t.equal(audits(1, true), 'good');
  t.equal(audits(1, false), 'good', 'one failure ends nothing');
  t.equal(audits(5, false), 'suspended');
  t.notOk(takesShards(record));
  t.ok(isDependable(record), 'what it holds counts all the same');
  t.equal(standingOf({ ...record, shards: 0n }).state, 'vetting', 'with nothing left to show it begins anew');
  t.equal(audits(40, true), 'good', 'it recovers');
  record.unanswered = 5;
  t.equal(standingOf(record).state, 'suspended');
  t.equal(audits(1, true), 'good');
  t.equal(audits(40, false), 'disqualified');
  t.equal(audits(1_000, true), 'disqualified', 'for good');
  t.notOk(isDependable(record));
  t.match(standingOf(record).reason, /failed \d+ audits/);
  const fresh = hostRecord.make({ exiting: true });
  t.equal(standingOf(fresh).state, 'leaving');
  t.notOk(isDependable(fresh));
});

t.test('a stream that asks too much is slowed down to its rate', async (t) => {
  const limit = new RateLimit(10, 0);
  for (let request = 0; request < 10; request += 1) t.equal(limit.take(0), 0);
  t.equal(limit.take(0), 100);
  t.equal(limit.take(0), 200);
  t.equal(limit.take(10_000), 0);
  t.ok(limit.takeNow(10_000));
  for (let request = 0; request < 8; request += 1) limit.takeNow(10_000);
  t.notOk(limit.takeNow(10_000), 'or turned away');
  t.ok(limit.takeNow(10_100), 'which does not count');
});

t.test('a peer has one rate over all its streams, others have theirs', async (t) => {
  const bridge = await Harness.start(t, { maxRequestsPerSecond: 5 });
  const [owner, device] = [new Party(), new Party()];
  const clients = [await bridge.connect(owner, device), await bridge.connect(owner, device)] as const;
  const announce = (client: Client): Promise<unknown> => client.call({ case: 'announce', value: {} }, 'policy');
  await announce(clients[0]);
  await announce(clients[1]);
  await announce(clients[0]);
  let done = 0;
  const waiting = clients.map(async (client) => {
    await announce(client);
    done += 1;
  });
  await announce(await bridge.connect(owner));
  t.equal(done, 0);
  bridge.clock.advance(400);
  await Promise.all(waiting);
});

t.test('where there are many hosts, placements are shared out over all of them by their merits', async (t) => {
  const bridge = await Harness.start(t, { maxHosts: 2_000 });
  const hosts = await bridge.join(600, 100 * MIB);
  const client = await bridge.connect(new Party());
  const [poor, full, gone] = [hosts.slice(0, 20), hosts.slice(20, 40), hosts.slice(40, 60)];
  for (const { peer } of poor) for (let n = 0; n < 40; n += 1) bridge.registry.failed(peer);
  for (const host of full) await host.beat(MIB / 2);
  const got = new Map<string, number>();
  const place = async (): Promise<string[]> => {
    const shards = Array.from({ length: 64 }, () => someShard());
    const { placements } = await client.place(shards);
    t.ok(
      placements.every(({ targets }) => new Set(targets.map(({ host }) => host)).size === 4),
      'four different hosts each',
    );
    for (const { targets } of placements) {
      for (const { host } of targets) got.set(host, (got.get(host) ?? 0) + 1);
    }
    return placements.flatMap(({ targets }) => targets.map(({ host }) => host));
  };
  const shareOf = (some: Host[]): number => some.reduce((sum, { peer }) => sum + (got.get(peer) ?? 0), 0) / some.length;
  await place();
  bridge.clock.advance(11_000);
  for (const host of hosts) if (!gone.includes(host)) await host.beat(full.includes(host) ? MIB / 2 : 100 * MIB);
  bridge.clock.advance(5_000);
  got.clear();
  for (let round = 0; round < 10; round += 1) await place();
  t.equal(shareOf(full), 0, 'full ones get nothing');
  t.equal(shareOf(gone), 0, 'nor do those that are away');
  t.ok(shareOf(poor) < shareOf(hosts.slice(60)) / 4, `poor ones ${shareOf(poor)}, others ${shareOf(hosts.slice(60))}`);
  t.ok(got.size > 450, `${got.size} of 560`);

  bridge.clock.advance(14_000);
  const few = hosts.slice(100, 110);
  for (const host of few) await host.beat(100 * MIB);
  const names = new Set(few.map(({ peer }) => peer));
  t.ok(
    (await place()).every((host) => names.has(host)),
    'the few that are there are all found, whatever the table said',
  );
});

t.test('a bridge that is full of hosts forgets those that hold nothing and are long gone', async (t) => {
  const bridge = await Harness.start(t, { maxHosts: 5 });
  const holders = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const shard = await client.store(holders);
  const [gone] = await bridge.join(1);
  bridge.clock.advance(6 * DAY_MS);
  const [young] = await bridge.join(1);
  await t.rejects(bridge.join(1), { code: 'REFUSED' }, 'nobody is gone for long');
  bridge.clock.advance(2 * DAY_MS);
  const [fresh] = await bridge.join(1);
  await t.rejects(gone!.beat(MIB), { code: 'NOT_FOUND' });
  await young!.beat(MIB);
  await t.rejects(bridge.join(1), { code: 'REFUSED' }, 'those that hold a mirror stay');
  await bridge.reopen();
  t.same(
    bridge.registry
      .all()
      .map(({ host }) => host)
      .sort(),
    [...holders, young!, fresh!].map(({ peer }) => peer).sort(),
  );
  for (const host of holders) await host.beat(MIB);
  const again = await bridge.connect(client.owner);
  t.same((await again.locate(shard.shardId)).sort(), holders.map(({ peer }) => peer).sort());
  t.not(bridge.registry.numberOf(fresh!.peer), bridge.registry.numberOf(young!.peer));
});

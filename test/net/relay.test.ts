// Hosts that nobody can dial, and what the bridge does for them and about them. Real nodes on loopback.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Reachability } from '../../src/bridge/reachability.ts';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { BridgeAgent } from '../../src/host/bridge-agent.ts';
import { callHost } from '../../src/host/control.ts';
import type { HostStatus } from '../../src/host/control-api.ts';
import { Intent } from '../../src/host/intent.ts';
import { SpaceBudget } from '../../src/host/space-budget.ts';
import { startHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import type { ShardSource } from '../../src/net/network.ts';
import { addressesOf, createNode, dialAddresses, peerNameIn } from '../../src/net/node.ts';
import { BRIDGE_PROTOCOL } from '../../src/net/protocols.ts';
import { RelayTransport } from '../../src/net/relay.ts';
import { serveRpc } from '../../src/net/rpc.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { intactShards } from '../support/hosts.ts';
import { until } from '../support/run.ts';

t.setTimeout(300_000);

const log = silentLogger;
const MIB = 1024 * 1024;
// Short paths: testdir can be too long for a socket.
const dir = mkdtempSync(join(tmpdir(), 'xr-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

const bridge = await startBridge(
  { dir: join(dir, 'b'), listen: ['/ip4/127.0.0.1/tcp/0'], options: { heartbeatMs: 1_000, upkeepMs: 50 } },
  { log },
);
t.teardown(() => bridge.stop());

/** Starts a host and gives its folder. */
async function start(name: string, listen: string[]): Promise<string> {
  const folder = join(dir, name);
  const settings = {
    dir: folder,
    bridge: bridge.address,
    capacityBytes: 200 * MIB,
    listen,
    options: { floorBytes: 0 },
  };
  const host = await startHost(settings, { log });
  t.teardown(() => host.stop());
  return folder;
}

/** Waits until the bridge has told a host how it can be reached. */
function reached(folder: string, state: string): Promise<HostStatus> {
  return until(`${folder} to be ${state}`, async () => {
    const status = await callHost(folder, 'status', {});
    return status.reachability.state === state && status;
  });
}

function someShard(): { source: ShardSource; data: Buffer; name: string } {
  const data = randomBytes(2 * MIB);
  const path = join(dir, randomBytes(4).toString('hex'));
  writeFileSync(path, data);
  const id = shardIdOf(leafHashes(data), data.length);
  return { source: { id, sizeBytes: data.length, path }, data, name: id.toString('hex') };
}

await t.test('shards reach hosts that can only dial out, and come back, through the bridge', async (t) => {
  // One listens nowhere; the others where nobody looks for them, as behind a router.
  const folders = [
    await start('h1', []),
    await start('h2', ['/ip4/127.0.0.2/tcp/0']),
    await start('h3', ['/ip4/127.0.0.3/tcp/0']),
  ];
  const [none, hidden] = await Promise.all(folders.map((folder) => reached(folder, 'relayed')));
  t.match(none!.advice, [/listens on no TCP port/]);
  t.match(hidden!.reachability.address, /^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/, 'it was tried where the host came from');
  t.ok(hidden!.advice.some((advice) => /could not connect back at .*let TCP port \d+ through/.test(advice)));

  const client = new ClientNetwork({ bridge: bridge.address, deviceSeed: randomBytes(32), ownerSeed: randomBytes(32) });
  await client.start();
  t.teardown(() => client.stop());
  const shards = Array.from({ length: 8 }, someShard);
  const standings = await Promise.all(shards.map(({ source }) => client.upload(source)));
  t.ok(standings.every(({ durable }) => durable));
  // On a machine that is starved, a host may have been too late.
  const { problems } = await client.status();
  t.same(
    problems.filter(({ code }) => code !== 'TIMEOUT' && code !== 'NO_HOSTS'),
    [],
  );
  for (const { name } of shards) {
    const holders = folders.filter((folder) => intactShards(folder).includes(name));
    t.equal(holders.length, 3);
  }
  for (const { source, data } of shards) {
    const path = join(dir, 'back');
    await client.fetchShard(source.id, source.sizeBytes, path);
    t.ok(readFileSync(path).subarray(0, data.length).equals(data));
  }
  const leaves = await client.fetchLeaves(shards[0]!.source.id, 2 * MIB, 3, 2);
  t.ok(Buffer.from(leaves).equals(shards[0]!.data.subarray(3 * 16_384, 5 * 16_384)));

  const fourth = await start('h4', []);
  await reached(fourth, 'relayed');
  await callHost(folders[0]!, 'exit', { wait: true }, { timeoutMs: 60_000 });
  for (const { name } of shards) t.ok(intactShards(fourth).includes(name), 'hosts copy from each other that way too');
});

await t.test('a host that the bridge can dial is told so, and dialled directly', async (t) => {
  const folder = await start('h5', ['/ip4/127.0.0.1/tcp/0']);
  const { advice, addresses } = await reached(folder, 'direct');
  t.notOk(advice.some((line) => /connect back/.test(line)));
  t.notMatch(addresses.join(), /p2p-circuit/);
});

await t.test('nobody else gets a place on the relay', async (t) => {
  const relayed = new RelayTransport();
  const node = await createNode({ seed: randomBytes(32), listen: [], relayed });
  t.teardown(() => node.stop());
  const name = peerNameIn(bridge.address);
  await node.dial(dialAddresses(name, [bridge.address]));
  await t.rejects(relayed.reserve(name));
});

await t.test('only the address from which a host came is tried, whatever it announces', async (t) => {
  const tried: string[] = [];
  let mayReserve: (host: string) => boolean = () => true;
  const outside = {
    dial: async (host: string, address: string): Promise<void> => {
      tried.push(address);
      if (host === 'far') throw new Error('no answer');
    },
    relays: () => false,
    letReserve: (may: (host: string) => boolean) => (mayReserve = may),
  };
  const clock = new FakeClock();
  const reachability = new Reachability({ clock, bridge: 'bridge', outside });
  const announced = ['/ip4/10.0.0.1/tcp/4001', '/ip4/198.51.100.1/tcp/4002', '/dns4/example.org/tcp/4003'];
  reachability.registered('near', '/ip4/203.0.113.7/tcp/50000', announced);
  reachability.registered('far', '/ip6/::ffff:203.0.113.8/tcp/50000', [...announced, '/ip4/203.0.113.8/tcp/4009']);
  reachability.registered('odd', '/p2p/x/p2p-circuit', announced);
  t.equal(reachability.of('near').state, '');
  t.notOk(mayReserve('far'), 'not before it was tried');
  const { signal } = new AbortController();
  await reachability.round((host) => host !== 'away', signal);
  t.same(tried.toSorted(), [
    '/ip4/203.0.113.7/tcp/4001',
    '/ip4/203.0.113.8/tcp/4001',
    '/ip4/203.0.113.8/tcp/4002',
    '/ip4/203.0.113.8/tcp/4009',
  ]);
  t.match(reachability.of('near'), { state: 'direct', address: '/ip4/203.0.113.7/tcp/4001' });
  t.match(reachability.of('far'), { state: 'none', reason: 'no answer' });
  t.ok(mayReserve('far') && !mayReserve('near') && !mayReserve('unknown'));
  t.same(reachability.addressesOf('near', announced), ['/ip4/203.0.113.7/tcp/4001', ...announced]);
  t.same(reachability.addressesOf('far', announced), announced);
  await reachability.round(() => true, signal);
  t.equal(tried.length, 4, 'not again so soon');
  reachability.registered('near', '/ip4/203.0.113.7/tcp/50001', announced);
  await reachability.round(() => true, signal);
  t.equal(tried.length, 4, 'nothing has changed');

  const afterMs = async (ms: number): Promise<number> => {
    const before = tried.length;
    clock.advance(ms);
    await reachability.round((host) => host === 'far', signal);
    return tried.length - before;
  };
  t.equal(await afterMs(10_000), 3, 'in vain: again soon, a router may have opened the port');
  t.equal(await afterMs(19_000), 0);
  t.equal(await afterMs(1_000), 3, 'and less and less often');
  t.equal(await afterMs(39_000), 0);
  reachability.registered('far', '/ip6/::ffff:203.0.113.8/tcp/50000', [...announced, '/ip4/203.0.113.8/tcp/4009']);
  t.equal(await afterMs(0), 3, 'soon again when it registers anew');
});

await t.test('an owner who asks has the bridge look again, now and then', async (t) => {
  const server = await createNode({ seed: randomBytes(32), listen: ['/ip4/127.0.0.1/tcp/0'] });
  const node = await createNode({ seed: randomBytes(32), listen: [] });
  let [registrations, heartbeats] = [0, 0];
  await server.handle(
    BRIDGE_PROTOCOL,
    (stream, connection) =>
      void serveRpc(stream, connection.remotePeer.toString(), (body) => {
        if (body.case === 'registerHost') registrations += 1;
        else heartbeats += 1;
        if (body.case === 'registerHost') return Promise.resolve({ case: 'done', value: {} });
        const reachability = { state: 'none', address: '/ip4/127.0.0.1/tcp/9', reason: 'no answer' };
        return Promise.resolve({ case: 'heartbeatReply', value: { intervalMs: 60_000, reachability } });
      }),
  );
  let nowMs = 0;
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const space = { limitBytes: MIB, floorBytes: 0 };
  const agent = new BridgeAgent(
    {
      ...{ node, clock, log, random: Math.random, transfers: () => 0 },
      budget: new SpaceBudget({ diskFreeBytes: () => Promise.resolve(MIB) }, 0, space),
      freeBytes: () => Promise.resolve(MIB),
      deletions: { carryOut: () => Promise.resolve([]) },
      intent: await Intent.open(dir),
    },
    addressesOf(server)[0]!,
  );
  t.teardown(async () => {
    await agent.stop();
    await node.stop();
    await server.stop();
  });
  t.ok(await agent.start(10_000));
  const beat = async (): Promise<void> => {
    const before = heartbeats;
    agent.hurry();
    await until('a heartbeat', () => heartbeats > before);
  };
  const asks = async (): Promise<number> => {
    agent.lookAgain();
    // the first one may have been under way
    await beat();
    await beat();
    return registrations;
  };
  t.equal(registrations, 1);
  nowMs = 20_000;
  t.equal(await asks(), 2);
  t.equal(await asks(), 2, 'not again so soon');
  nowMs = 40_000;
  t.equal(await asks(), 3);
});

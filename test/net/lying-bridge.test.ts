// A bridge that lies about shards, orders and places, to clients and through them to hosts: real hosts and clients, a real
// bridge whose answers are changed on their way out. What it says of the log is in test/client/lying-bridge.test.ts.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import t from 'tap';
import type { Test } from 'tap';
import { assembleBridge } from '../../src/bridge/assemble.ts';
import { openLevelStore } from '../../src/bridge/level-store.ts';
import { BRIDGE_DEFAULTS } from '../../src/bridge/options.ts';
import { startHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { ConnectedHosts } from '../../src/net/connected-hosts.ts';
import { DialGate } from '../../src/net/dial-gate.ts';
import type { ShardSource } from '../../src/net/network.ts';
import { addressesOf, createNode, peerNameIn } from '../../src/net/node.ts';
import { MAX_CLOCK_SKEW_MS, readOrder, signOrder } from '../../src/net/orders.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { BRIDGE_PROTOCOL } from '../../src/net/protocols.ts';
import { LocationsSchema, PlacementsSchema, PolicySchema } from '../../src/net/proto/wire_pb.ts';
import type { Location, Locations, Placements, Target } from '../../src/net/proto/wire_pb.ts';
import { serveRpc } from '../../src/net/rpc.ts';
import type { ResponseInit } from '../../src/net/rpc.ts';
import { shardFiles } from '../support/hosts.ts';
import { until } from '../support/run.ts';
import { makeShard } from './local-network.ts';

t.setTimeout(300_000);

const LISTEN = ['/ip4/127.0.0.1/tcp/0'];
const HOSTS = 4;
const log = silentLogger;

type OrderTerms = Parameters<typeof signOrder>[1];

/** Changes what the bridge answers, in place. */
let lieAboutMirrors: ((locations: Location[]) => void) | undefined;
let lieAboutPlaces: ((placements: Placements) => void) | undefined;

let policy: { readonly shardSizeBytes?: number; readonly minReceipts?: number } | undefined;

function told(answer: ResponseInit): ResponseInit {
  if (answer.case === 'policy' && policy) {
    return { case: 'policy', value: Object.assign(create(PolicySchema, answer.value), policy) };
  }
  if (answer.case === 'locations' && lieAboutMirrors) {
    const locations: Locations = create(LocationsSchema, answer.value);
    lieAboutMirrors(locations.locations);
    return { case: 'locations', value: locations };
  }
  if (answer.case === 'placements' && lieAboutPlaces) {
    const placements: Placements = create(PlacementsSchema, answer.value);
    lieAboutPlaces(placements);
    return { case: 'placements', value: placements };
  }
  return answer;
}

const dir = t.testdir();
const seed = randomBytes(32);
const store = await openLevelStore(join(dir, 'bridge'));
t.teardown(() => store.close());
const node = await createNode({ seed, listen: LISTEN, gate: new DialGate() });
t.teardown(() => Promise.resolve(node.stop()));
const calls = new ConnectedHosts(node);
t.teardown(() => calls.stop());
const { service } = await assembleBridge(
  {
    ...{ store, seed, calls, randomBytes, log, clock: systemClock, random: Math.random },
    ...{ metrics: createMetrics(), bridge: node.peerId.toString() },
  },
  BRIDGE_DEFAULTS,
);
const streams: Promise<void>[] = [];
await node.handle(BRIDGE_PROTOCOL, (stream, connection) => {
  const answer: Parameters<typeof serveRpc>[2] = async (body, context) => told(await service.handle(body, context));
  streams.push(serveRpc(stream, connection.remotePeer.toString(), answer));
});
const bridge = addressesOf(node)[0]!;
const hosts: string[] = [];
for (let number = 0; number < HOSTS; number += 1) {
  const settings = { dir: join(dir, `host${number}`), bridge, capacityBytes: 100_000_000, listen: LISTEN };
  const host = await startHost({ ...settings, options: { floorBytes: 0 } }, { log });
  t.teardown(() => host.stop());
  hosts.push(host.address);
}
/** One device is told the truth only; the other one is lied to. */
const ownerSeed = randomBytes(32);
const [client, victim] = [{}, { hedgeAfterMs: 100 }].map(
  (times) => new ClientNetwork({ ...{ bridge, deviceSeed: randomBytes(32), ownerSeed }, ...times }),
) as [ClientNetwork, ClientNetwork];
for (const network of [client, victim]) {
  await network.start();
  t.teardown(() => network.stop());
  await until('it is connected', () => network.status().then(({ connected }) => connected || undefined));
}

/** What the victim cannot get, and what it says of that; the lie must last. */
async function isLiedTo(t: Test, { id, sizeBytes }: ShardSource, reason: string, what = reason): Promise<void> {
  await failsFor(t, (signal) => victim.fetchLeaves(id, sizeBytes, 0, 1, signal), reason, what);
}

/** A transfer of the victim's that never comes to its end, and why. */
async function failsFor(
  t: Test,
  begin: (signal: AbortSignal) => Promise<unknown>,
  reason: string,
  what: string,
): Promise<void> {
  const [waiting, sinceMs] = [new AbortController(), Date.now()];
  const transfer = begin(waiting.signal);
  transfer.catch(() => {});
  await until(`${reason} is told`, async () => (await problemsSince(sinceMs)).includes(reason) || undefined);
  waiting.abort();
  await t.rejects(transfer, { code: 'ABORTED' }, what);
}

async function problemsSince(sinceMs: number): Promise<string[]> {
  return (await victim.status()).problems.filter(({ timeMs }) => timeMs >= sinceMs).map(({ code }) => code);
}

async function uploaded(): Promise<{ shard: ShardSource; path: string; data: Buffer }> {
  const data = randomBytes(50_000);
  const shard = makeShard(dir, data);
  t.match(await client.upload(shard), { durable: true });
  return { shard, path: join(dir, `${Buffer.from(shard.id).toString('hex')}.fetched`), data };
}

/** The mirrors of a shard as the bridge tells them. */
async function mirrorsOf(shard: ShardSource): Promise<Target[]> {
  const found: Target[] = [];
  lieAboutMirrors = ([location]) => found.push(...location!.mirrors);
  await victim.mirrors(shard.id);
  lieAboutMirrors = undefined;
  return found;
}

t.test('a bridge that swaps shard ids: what comes for another shard is nobody’s', async (t) => {
  const [one, other] = [await uploaded(), await uploaded()];
  const mirrors = await mirrorsOf(other.shard);
  lieAboutMirrors = (locations) => {
    for (const location of locations) location.mirrors = mirrors;
  };
  await isLiedTo(t, one.shard, 'CORRUPT_SHARD');
  const { id, sizeBytes } = one.shard;
  await failsFor(t, (signal) => victim.fetchShard(id, sizeBytes, one.path, signal), 'CORRUPT_SHARD', 'nor as a whole');
  t.notOk(existsSync(one.path), 'and nothing is kept of it');
  lieAboutMirrors = undefined;
  await client.fetchShard(one.shard.id, one.shard.sizeBytes, one.path);
  t.ok((await readFile(one.path)).subarray(0, one.data.length).equals(one.data), 'the truth is taken');
});

t.test('a bridge that tells wrong places: one right mirror is enough, and none is no mirror', async (t) => {
  const { shard, path, data } = await uploaded();
  const mirrors = await mirrorsOf(shard);
  const holders = new Set(mirrors.map(({ host }) => host));
  const empty = hosts.find((address) => !holders.has(peerNameIn(address)))!;
  const name = peerNameIn(empty);
  const address = empty.split('/p2p/')[0]!;
  const order = signOrder(seed, { ...readOrder(mirrors[0]!.order), host: name });
  const stranger = peerNameOf(randomBytes(32));
  // one after another fails for another reason
  const wrong: [string, string, Target][] = [
    ['UNREACHABLE', 'a name at the address of another host', { ...mirrors[0]!, host: stranger, addresses: [address] }],
    ['NOT_FOUND', 'a host that does not have it', { ...mirrors[0]!, host: name, addresses: [address], order }],
    [
      'UNREACHABLE',
      'no address',
      { ...mirrors[0]!, host: stranger, addresses: ['/ip4/127.0.0.1/tcp/1', 'nonsense', ''] },
    ],
  ];
  for (const [reason, what, target] of wrong) {
    lieAboutMirrors = ([location]) => (location!.mirrors = [target]);
    await isLiedTo(t, shard, reason, what);
  }
  lieAboutMirrors = ([location]) => (location!.mirrors = [...wrong.map(([, , target]) => target), mirrors[1]!]);
  await victim.fetchShard(shard.id, shard.sizeBytes, path);
  t.ok((await readFile(path)).subarray(0, data.length).equals(data));
  lieAboutMirrors = undefined;
});

t.test('a bridge that hands out orders it did not sign: no host honours them, and nothing is stored', async (t) => {
  const lies: Record<string, (target: Target) => void> = {
    'no signature': (target) => (target.order!.signature = new Uint8Array()),
    'a wrong signature': (target) => (target.order!.signature = new Uint8Array(64)),
    'one by somebody else': (target) => (target.order = signOrder(randomBytes(32), readOrder(target.order))),
  };
  for (const [what, lie] of Object.entries(lies)) {
    const { shard } = await uploaded();
    lieAboutMirrors = (locations) => locations.forEach(({ mirrors }) => mirrors.forEach(lie));
    lieAboutPlaces = ({ placements }) => placements.forEach(({ targets }) => targets.forEach(lie));
    await isLiedTo(t, shard, 'REFUSED', what);
    const before = shardFiles(dir).length;
    const staged = makeShard(dir, randomBytes(10_000));
    await failsFor(t, (signal) => victim.upload(staged, signal), 'REFUSED', `${what}, to store`);
    t.equal(shardFiles(dir).length, before);
    lieAboutMirrors = undefined;
    lieAboutPlaces = undefined;
  }
});

t.test('a bridge that signs another order than is needed: it permits what it says, or nothing', async (t) => {
  const victimName = (await victim.status()).device;
  const wrong: [string, string, (right: OrderTerms, mirror: Target) => Partial<OrderTerms>][] = [
    ['REFUSED', 'another operation', () => ({ operation: 'store' })],
    ['REFUSED', 'another client', () => ({ client: peerNameIn(hosts[0]!) })],
    ['REFUSED', 'another host', (_, { host }) => ({ host: hosts.map(peerNameIn).find((other) => other !== host)! })],
    ['CORRUPT_SHARD', 'another size', ({ sizeBytes }) => ({ sizeBytes: sizeBytes! - 1 })],
    ['NOT_FOUND', 'another shard', () => ({ shardId: randomBytes(32) })],
    ['REFUSED', 'a time that is over', () => ({ expiresMs: BigInt(Date.now() - MAX_CLOCK_SKEW_MS) })],
  ];
  for (const [reason, what, change] of wrong) {
    const { shard } = await uploaded();
    const [mirror] = await mirrorsOf(shard);
    const right = { ...readOrder(mirror!.order), client: victimName };
    const says = (order: OrderTerms) => (locations: Location[]) =>
      void (locations[0]!.mirrors = [{ ...mirror!, order: signOrder(seed, order) }]);
    lieAboutMirrors = says({ ...right, ...change(right, mirror!) });
    await isLiedTo(t, shard, reason, what);
    lieAboutMirrors = says(right);
    await victim.fetchLeaves(shard.id, shard.sizeBytes, 0, 1);
    lieAboutMirrors = undefined;
  }
});

t.test('a bridge that asks for senseless shards is not obeyed', async (t) => {
  for (const lie of [{ shardSizeBytes: 0 }, { shardSizeBytes: 1 }, { shardSizeBytes: 2 ** 22 }, { minReceipts: 0 }]) {
    policy = lie;
    await t.rejects(victim.announce(1_000_000), { code: 'PROTOCOL' }, JSON.stringify(lie));
  }
  policy = undefined;
  t.ok((await victim.announce(1_000_000)).shardSizeBytes >= 256 * 1024);
});

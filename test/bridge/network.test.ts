import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import t from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import type { RunningBridge } from '../../src/bridge/start-bridge.ts';
import { startLocalNetwork } from '../../src/cli/local-network.ts';
import { leafHashes, LEAF_SIZE_BYTES, shardIdOf, verifyRange } from '../../src/crypto/merkle.ts';
import { publicKeyOf } from '../../src/crypto/sign.ts';
import { startHost } from '../../src/host/start-host.ts';
import type { RunningHost } from '../../src/host/start-host.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { signAuthentication } from '../../src/net/authentication.ts';
import { HostClient } from '../../src/net/host-client.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { createNode, dialAddresses, peerNameIn } from '../../src/net/node.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { BRIDGE_PROTOCOL } from '../../src/net/protocols.ts';
import type { Target } from '../../src/net/proto/wire_pb.ts';
import { RpcClient } from '../../src/net/rpc.ts';
import type { ResponseBody } from '../../src/net/rpc.ts';
import { corruptShards, shardFiles } from '../support/hosts.ts';
import { reservePort } from '../support/ports.ts';
import { until } from '../support/run.ts';
import { makeShard, REGISTER_WAIT_MS } from '../net/local-network.ts';
import { signedEntry } from './harness.ts';

const LISTEN = ['/ip4/127.0.0.1/tcp/0'];
const log = silentLogger;

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

interface Scope {
  teardown(action: () => Promise<void>): unknown;
}

/** A device on a node of its own, without any of the client's comfort. */
async function device(
  t: Scope,
  bridge: string,
  seeds: { device?: Uint8Array; owner?: Uint8Array } = {},
): Promise<{ rpc: RpcClient; hosts: HostClient; events: ResponseBody[]; volume: Uint8Array; peer: string }> {
  const seed = seeds.device ?? randomBytes(32);
  const owner = seeds.owner ?? randomBytes(32);
  const node = await createNode({ seed, listen: [] });
  t.teardown(() => Promise.resolve(node.stop()));
  const name = peerNameIn(bridge);
  const events: ResponseBody[] = [];
  const stream = await node.dialProtocol(dialAddresses(name, [bridge]), BRIDGE_PROTOCOL);
  const rpc = new RpcClient(stream, (event) => events.push(event));
  const expiresMs = BigInt(Date.now() + 60_000);
  const peer = peerNameOf(seed);
  const signature = signAuthentication(owner, name, peer, expiresMs);
  const volume = publicKeyOf(owner);
  await rpc.call({ case: 'authenticate', value: { volume, expiresMs, signature } }, 'done');
  const hosts = new HostClient(node);
  t.teardown(() => hosts.stop());
  return { rpc, hosts, events, volume, peer };
}

/** Stops a part at the end of the test, whether it was started again or not. */
class Part<P extends { stop(): Promise<void> }> {
  running: P;
  readonly #start: () => Promise<P>;

  constructor(t: Scope, running: P, start: () => Promise<P>) {
    this.running = running;
    this.#start = start;
    t.teardown(() => this.running.stop());
  }

  async restart(): Promise<void> {
    await this.running.stop();
    this.running = await this.#start();
  }
}

t.test('shards travel to hosts and back, are located, reported, freed and deleted', async (t) => {
  const dir = t.testdir();
  // No round of upkeep comes in between: the bridge would look at a harmed mirror itself, and drop it.
  const options = { heartbeatMs: 1_000, upkeepMs: 3_600_000 };
  const listen = [`/ip4/127.0.0.1/tcp/${reservePort()}`];
  const startB = (): Promise<RunningBridge> => startBridge({ dir: join(dir, 'bridge'), listen, options }, { log });
  const bridge = new Part(t, await startB(), startB);
  const { address } = bridge.running;
  const parts: Part<RunningHost>[] = [];
  for (let number = 1; number <= 3; number += 1) {
    const start = (): Promise<RunningHost> =>
      startHost(
        {
          dir: join(dir, `host${number}`),
          bridge: address,
          capacityBytes: 50_000_000,
          listen: LISTEN,
          options: { floorBytes: 0, registerWaitMs: REGISTER_WAIT_MS },
        },
        { log },
      );
    parts.push(new Part(t, await start(), start));
  }
  t.ok(parts.every((part) => part.running.registered));

  const seeds = { device: randomBytes(32), owner: randomBytes(32) };
  let client = await device(t, address, seeds);
  const data = randomBytes(1_500_000);
  const shardId = shardIdOf(leafHashes(data), data.length);
  const shard = { shardId, sizeBytes: data.length };
  const placed = await client.rpc.call({ case: 'place', value: { shards: [shard] } }, 'placements');
  t.match(placed.policy, { hosts: 3, mirrors: 3, minReceipts: 3 });
  const { targets } = placed.placements[0]!;
  const receipts = await Promise.all(targets.map((target) => client.hosts.store(target, data)));
  const confirmed = await client.rpc.call({ case: 'confirm', value: { receipts } }, 'confirmed');
  t.match(confirmed.shards, [{ mirrors: 3, durable: true }]);
  t.equal(shardFiles(dir).length, 3);
  await t.rejects(client.hosts.store(targets[0]!, data), { code: 'REFUSED' }, 'an order is used once');
  const stranger = await device(t, address);
  await t.rejects(stranger.hosts.retrieve(targets[0]!, { firstLeaf: 0, leafCount: 0 }, data.length), {
    code: 'REFUSED',
  });

  const locate = async (): Promise<Target[]> =>
    (await client.rpc.call({ case: 'locate', value: { shardIds: [shardId] } }, 'locations')).locations[0]!.mirrors;
  for (const mirror of await locate()) {
    const whole = await client.hosts.retrieve(mirror, { firstLeaf: 0, leafCount: 0 }, data.length);
    t.ok(whole.data.equals(data));
    const some = await client.hosts.retrieve(mirror, { firstLeaf: 2, leafCount: 3 }, 3 * LEAF_SIZE_BYTES);
    t.ok(verifyRange(shardId, data.length, 2, some.data, some.proof));
  }

  t.comment('a harmed mirror');
  const harmed = (await locate())[0]!;
  const at = parts.findIndex((part) => part.running.address.includes(harmed.host));
  corruptShards(join(dir, `host${at + 1}`));
  await parts[at]!.restart();
  await until('the host is known at its new address', async () =>
    (await locate()).some(
      ({ host, addresses }) => host === harmed.host && parts[at]!.running.address.startsWith(`${addresses[0]}/`),
    ),
  );
  const bad = (await locate()).find(({ host }) => host === harmed.host)!;
  await t.rejects(client.hosts.retrieve(bad, { firstLeaf: 0, leafCount: 1 }, LEAF_SIZE_BYTES), {
    code: 'CORRUPT_SHARD',
  });
  await client.rpc.call({ case: 'report', value: { host: harmed.host, shardId, code: 'CORRUPT_SHARD' } }, 'done');
  t.equal((await locate())[2]!.host, harmed.host);

  t.comment('the bridge goes away and comes back');
  await bridge.restart();
  t.equal(bridge.running.address, address);
  client = await device(t, address, seeds);
  await until('all hosts are back', async () => {
    const { hosts } = await client.rpc.call({ case: 'space', value: {} }, 'spaceInfo');
    return hosts.filter(({ online }) => online).length === 3;
  });
  t.equal((await locate()).length, 3);

  t.comment('a host is away while its mirror is freed');
  await parts[1]!.running.stop();
  const writer = { owner: { seed: seeds.owner }, device: { peer: client.peer } };
  await client.rpc.call({ case: 'watch', value: {} }, 'done');
  const { epoch } = await client.rpc.call({ case: 'acquireLease', value: {} }, 'lease');
  const first = await client.rpc.call(
    { case: 'append', value: { entry: signedEntry(writer, { seq: 1n, epoch, shardsAdded: [shard] }) } },
    'head',
  );
  const freeing = signedEntry(writer, { seq: 2n, epoch, prevHash: first.hash, shardsFreed: [shardId] });
  await client.rpc.call({ case: 'append', value: { entry: freeing } }, 'head');
  await until('two mirrors are deleted', () => shardFiles(dir).length === 1);
  await parts[1]!.restart();
  await until('the third is deleted too', () => shardFiles(dir).length === 0);
  t.match(client.events, [
    { case: 'lease', value: { held: true, epoch } },
    { case: 'head', value: { seq: 1n } },
    { case: 'head', value: { seq: 2n } },
  ]);
  await until('used space is back to nothing', async () => {
    const space = await client.rpc.call({ case: 'space', value: {} }, 'spaceInfo');
    return space.usedBytes === 0n && space.hosts.every(({ usedBytes }) => usedBytes === 0n);
  });
});

t.test('a host whose bridge is away starts all the same, and registers when it comes', async (t) => {
  const dir = t.testdir();
  const listen = [`/ip4/127.0.0.1/tcp/${reservePort()}`];
  const first = await startBridge({ dir: join(dir, 'bridge'), listen }, { log });
  await first.stop();
  const host = await startHost(
    { dir: join(dir, 'host'), bridge: first.address, capacityBytes: 1_000_000, listen: LISTEN },
    { log },
  );
  t.teardown(() => host.stop());
  t.equal(host.registered, false);
  const second = await startBridge({ dir: join(dir, 'bridge'), listen }, { log });
  t.teardown(() => second.stop());
  const client = await device(t, second.address);
  await until('the host has registered', async () => {
    const { hosts } = await client.rpc.call({ case: 'space', value: {} }, 'spaceInfo');
    return hosts.length === 1 && hosts[0]!.online;
  });
});

t.test('clients mint hashed keys as they store and fetch, and hosts are audited by them', async (t) => {
  const dir = t.testdir();
  const options = { upkeepMs: 50, auditsPerDay: 86_400, hashedAuditShare: 1 };
  const bridge = await startBridge({ dir: join(dir, 'bridge'), listen: LISTEN, options }, { log });
  t.teardown(() => bridge.stop());
  for (let number = 1; number <= 3; number += 1) {
    const settings = { dir: join(dir, `host${number}`), bridge: bridge.address, capacityBytes: 50_000_000 };
    const options = { floorBytes: 0, registerWaitMs: REGISTER_WAIT_MS };
    const host = await startHost({ ...settings, listen: LISTEN, options }, { log });
    t.teardown(() => host.stop());
  }
  const seeds = { deviceSeed: randomBytes(32), ownerSeed: randomBytes(32) };
  const client = new ClientNetwork({ bridge: bridge.address, ...seeds });
  await client.start();
  t.teardown(() => client.stop());
  await until('it is connected', async () => (await client.status()).connected);
  const shard = makeShard(dir, randomBytes(300_000));
  await client.upload(shard);
  const answers = async (): Promise<number> => {
    const text = await bridge.metrics.text();
    t.notMatch(text, /bridge_answers_total\{outcome="(failed|excused)"\}/);
    return Number(/bridge_answers_total\{outcome="passed"\} (\d+)/.exec(text)?.[1] ?? 0);
  };
  await until('the keys of the upload are used up', async () => (await answers()) === 2);
  await client.fetchShard(shard.id, shard.sizeBytes, join(dir, 'fetched'));
  await until('those of the fetch are in use', async () => (await answers()) > 2);
});

t.test('malformed streams end, and the servers go on', async (t) => {
  const dir = t.testdir();
  const network = await startLocalNetwork({ dir, hosts: 1, capacityBytes: 10_000_000 }, { log });
  t.teardown(() => network.stop());
  const node = await createNode({ seed: randomBytes(32), listen: [] });
  t.teardown(() => Promise.resolve(node.stop()));
  const addresses = dialAddresses(peerNameIn(network.bridge), [network.bridge]);
  for (const garbage of [
    Buffer.from([0]),
    Buffer.from('ffffffffffff', 'hex'),
    Buffer.from('04deadbeef', 'hex'),
    // a length that has come in full, then a message that is none
    Buffer.concat([Buffer.from([100]), Buffer.alloc(5_000, 0xff)]),
  ]) {
    const stream = await node.dialProtocol(addresses, BRIDGE_PROTOCOL);
    stream.send(garbage);
    await until('the bridge ends the stream', () => stream.status !== 'open');
  }
  const client = await device(t, network.bridge);
  await client.rpc.call({ case: 'space', value: {} }, 'spaceInfo');
});

t.test('the embedded network keeps its identities over a restart, and its folder to itself', async (t) => {
  const dir = t.testdir();
  const settings = { dir, hosts: 3, capacityBytes: 10_000_000 };
  const first = await startLocalNetwork(settings, { log });
  await t.rejects(startLocalNetwork(settings, { log }), { code: 'HOME_LOCKED' });
  const hostsOf = async (bridge: string): Promise<string[]> => {
    const { rpc } = await device(t, bridge);
    const { hosts } = await rpc.call({ case: 'space', value: {} }, 'spaceInfo');
    return hosts.filter(({ online }) => online).map(({ host }) => host);
  };
  const allOf = (bridge: string): Promise<string[]> =>
    until('all hosts to be there', async () => {
      const found = await hostsOf(bridge);
      return found.length === settings.hosts && found;
    });
  const before = await allOf(first.bridge);
  await first.stop();
  const second = await startLocalNetwork(settings, { log });
  t.teardown(() => second.stop());
  t.equal(peerNameIn(second.bridge), peerNameIn(first.bridge));
  t.same((await allOf(second.bridge)).sort(), before.sort());
});

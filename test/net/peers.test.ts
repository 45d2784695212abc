// What peers may do to a server and what they may not, whoever they are: clocks that differ, connections, memory, time.

import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Libp2p } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import t from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import { startHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { Clock } from '../../src/lib/clock.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { announceable } from '../../src/net/address-scope.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { encodeFrame, encodePrefix } from '../../src/net/frame-codec.ts';
import { addressesOf, createNode, MAX_CONNECTIONS_PER_PEER } from '../../src/net/node.ts';
import { MAX_CLOCK_SKEW_MS } from '../../src/net/orders.ts';
import { FRAME_TIMEOUT_MS, GREETING_FRAME_BYTES } from '../../src/net/protocols.ts';
import { BridgeRequestSchema, HostRequestSchema, HostResponseSchema } from '../../src/net/proto/wire_pb.ts';
import { serveRpc } from '../../src/net/rpc.ts';
import type { RequestInit } from '../../src/net/rpc.ts';
import { serveShardStream, STALL_TIMEOUT_MS } from '../../src/net/shard-protocol.ts';
import { Harness as Bridge } from '../bridge/harness.ts';
import { MemoryStream } from '../fuzz/memory-stream.ts';
import { Harness as Host, randomShard } from '../host/harness.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/run.ts';
import { makeShard, REGISTER_WAIT_MS } from './local-network.ts';

t.setTimeout(300_000);

const LISTEN = ['/ip4/127.0.0.1/tcp/0'];
const log = silentLogger;

function skewed(byMs: number): Clock {
  return {
    ...systemClock,
    now: () => systemClock.now() + byMs,
    nowNs: () => systemClock.nowNs() + BigInt(byMs) * 1_000_000n,
  };
}

function request(body: RequestInit, id = 1): Buffer {
  return encodeFrame(toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id, body })));
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('clocks that are two hours off, either way, stop nothing', async (t) => {
  const dir = t.testdir();
  const skews = [-MAX_CLOCK_SKEW_MS, 0, MAX_CLOCK_SKEW_MS].map((skew) => Math.sign(skew) * (Math.abs(skew) - 60_000));
  const bridge = await startBridge({ dir: join(dir, 'bridge'), listen: LISTEN }, { log });
  t.teardown(() => bridge.stop());
  for (const [number, skew] of skews.entries()) {
    const host = await startHost(
      {
        ...{ dir: join(dir, `host${number}`), bridge: bridge.address, listen: LISTEN },
        ...{ capacityBytes: 10_000_000, options: { floorBytes: 0, registerWaitMs: REGISTER_WAIT_MS } },
      },
      { log, clock: skewed(skew) },
    );
    t.teardown(() => host.stop());
    t.ok(host.registered, `a host that is ${skew} ms off`);
  }
  for (const skew of skews) {
    const seeds = { deviceSeed: randomBytes(32), ownerSeed: randomBytes(32) };
    const client = new ClientNetwork({ bridge: bridge.address, ...seeds }, { clock: skewed(skew) });
    await client.start();
    t.teardown(() => client.stop());
    await until('it is connected', () => client.status().then(({ connected }) => connected || undefined));
    const shard = makeShard(dir, randomBytes(40_000));
    t.match(await client.upload(shard), { mirrors: 3, durable: true }, `a client that is ${skew} ms off`);
    await client.fetchShard(shard.id, shard.sizeBytes, join(dir, 'fetched'));
    // On a machine that is starved, a host may have been too late.
    const { problems } = await client.status();
    t.same(
      problems.filter(({ code }) => code !== 'TIMEOUT' && code !== 'NO_HOSTS'),
      [],
    );
  }
});

t.test('addresses in private networks are taken only from hosts that are in one', async (t) => {
  const all = [
    ...['/ip4/127.0.0.1/tcp/1', '/ip6/::1/tcp/1', '/ip4/0.0.0.0/tcp/1', '/ip6/::ffff:127.0.0.1/tcp/1'],
    ...['/ip4/10.1.2.3/tcp/1', '/ip4/172.16.0.1/tcp/1', '/ip4/172.31.0.1/tcp/1', '/ip4/192.168.0.1/tcp/1'],
    ...['/ip4/169.254.1.1/tcp/1', '/ip4/100.64.0.1/tcp/1', '/ip6/fd00::1/tcp/1', '/ip6/fe80::1/tcp/1'],
    ...['/ip4/8.8.8.8/tcp/1', '/ip4/172.32.0.1/tcp/1', '/ip6/2001:db8::1/tcp/1', '/dns4/example.org/tcp/1'],
  ];
  t.same(announceable(all, '/ip4/8.8.4.4/tcp/5'), all.slice(12), 'from the internet');
  t.same(announceable(all, '/ip6/2001:db8::2/tcp/5'), all.slice(12));
  t.same(announceable(all, '/ip4/192.168.0.7/tcp/5'), all.slice(4), 'from a private network');
  t.same(announceable(all, '/ip6/::ffff:10.0.0.1/tcp/5'), all.slice(4));
  t.same(announceable(all, '/ip4/127.0.0.1/tcp/5'), all, 'from this machine');
  const bridge = await Bridge.start(t);
  const [host] = await bridge.join(1);
  const value = { addresses: all, capacityBytes: 5n, version: '1' };
  const { body } = fromBinary(
    BridgeRequestSchema,
    toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id: 1, body: { case: 'registerHost', value } })),
  );
  const { rpc, peer: remotePeer } = host!.session;
  const context = { remotePeer, session: rpc, signal: rpc.signal };
  await bridge.handle(body as Parameters<Bridge['handle']>[0], context, '/ip4/8.8.4.4/tcp/5');
  t.same(bridge.registry.get(remotePeer)?.addresses, all.slice(12), 'nobody is told the others');
});

t.test('a peer has only so many connections: its oldest go, those of others stay', async (t) => {
  const server = await createNode({ seed: randomBytes(32), listen: LISTEN });
  t.teardown(() => Promise.resolve(server.stop()));
  const addresses = addressesOf(server).map((address) => multiaddr(address));
  const dial = async (seed: Uint8Array): Promise<Libp2p> => {
    const node = await createNode({ seed, listen: [] });
    t.teardown(() => Promise.resolve(node.stop()));
    await node.dial(addresses);
    return node;
  };
  const other = await dial(randomBytes(32));
  const seed = randomBytes(32);
  const nodes: Libp2p[] = [];
  for (let count = 0; count < MAX_CONNECTIONS_PER_PEER + 3; count += 1) nodes.push(await dial(seed));
  const { peerId } = nodes[0]!;
  await until('the oldest are gone', () => server.getConnections(peerId).length === MAX_CONNECTIONS_PER_PEER);
  await until('they know', () => nodes.slice(0, 3).every((node) => node.getConnections().length === 0));
  t.equal(nodes.at(-1)!.getConnections().length, 1, 'the newest is served');
  t.equal(server.getConnections(other.peerId).length, 1);
});

t.test('a stream that has not said who it is for may send little, and a message that has begun must end', async (t) => {
  const clock = new FakeClock();
  const serve = (stream: MemoryStream): Promise<void> =>
    serveRpc(
      stream.served,
      'peer',
      async (body, { session }) => {
        if (body.case === 'authenticate') session.widen();
        return { case: 'done', value: {} };
      },
      { clock, greetingBytes: GREETING_FRAME_BYTES, frameTimeoutMs: FRAME_TIMEOUT_MS },
    );
  const large = encodePrefix(GREETING_FRAME_BYTES + 1);
  const [unknown, known] = [new MemoryStream(), new MemoryStream()];
  const both = [serve(unknown), serve(known)];
  unknown.deliver(large);
  await both[0];
  t.equal(unknown.status, 'aborted', 'one byte over the limit');
  known.deliver(request({ case: 'authenticate', value: {} }));
  await settled();
  known.deliver(large);
  await settled();
  t.equal(known.status, 'open');
  for (const _step of Array.from({ length: 5 })) {
    clock.advance(FRAME_TIMEOUT_MS / 5);
    known.deliver(Buffer.of(0));
    await settled();
  }
  await both[1];
  t.equal(known.status, 'aborted', 'a byte now and then does not keep it');
  const idle = new MemoryStream();
  const served = serve(idle);
  idle.deliver(request({ case: 'space', value: {} }));
  await settled();
  clock.advance(100 * FRAME_TIMEOUT_MS);
  await settled();
  t.equal(idle.status, 'open', 'between messages it may wait');
  idle.end();
  await served;
});

/** Bytes of the one upload that a host is taking. */
function incomingBytes(hostDir: string): number {
  const dir = join(hostDir, 'incoming');
  // a file may be gone by the time that it is looked at
  const sizeOf = (name: string): number => statSync(join(dir, name), { throwIfNoEntry: false })?.size ?? 0;
  return readdirSync(dir).reduce((sum, name) => sum + sizeOf(name), 0);
}

t.test('an upload that stalls or drips ends, and leaves its place to others', async (t) => {
  const host = await Host.start(t, { maxStores: 1, storeDeadlineMs: 10 * 60_000 });
  const shard = randomShard(50_000);
  const begin = async (): Promise<{ stream: MemoryStream; served: Promise<void> }> => {
    const stream = new MemoryStream();
    const served = serveShardStream(stream.served, host.client, host.transfers, () => {}, host.clock);
    const body = { case: 'store', value: { order: host.order(shard) } } as const;
    stream.deliver(encodeFrame(toBinary(HostRequestSchema, create(HostRequestSchema, { body }))));
    await until('it is asked for bytes', () => stream.received.length === 1);
    stream.deliver(encodeFrame(shard.data.subarray(0, 10)));
    return { stream, served };
  };
  const stalled = await begin();
  await t.rejects(host.store1(shard), { code: 'EAGAIN' }, 'its place is taken');
  host.clock.advance(STALL_TIMEOUT_MS);
  await stalled.served;
  t.equal(stalled.stream.status, 'aborted');

  const dripping = await begin();
  for (let at = 0; dripping.stream.received.length === 1 && at < 100; at += 1) {
    host.clock.advance(STALL_TIMEOUT_MS - 1);
    dripping.stream.deliver(encodeFrame(shard.data.subarray(10 + at, 11 + at)));
    // the clock goes on only when the byte is seen to have moved
    await until('the byte is taken', () => dripping.stream.received.length > 1 || incomingBytes(host.dir) === 11 + at);
  }
  await dripping.served;
  const { body } = fromBinary(HostResponseSchema, dripping.stream.received[1]!.subarray(1));
  t.match(body, { case: 'failure', value: { code: 'TIMEOUT' } });
  t.equal(host.store.budget.reservedBytes, 0);
  t.equal(host.transfers.active, 0);
  await host.store1(shard);
});

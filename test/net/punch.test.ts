// Towards direct connections between relayed peers: what the bridge says of them, and whom nobody makes dial what. Real nodes
// on loopback, where no direct connection comes of it; test/e2e/hole-punching.test.ts has real routers.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Libp2p } from '@libp2p/interface';
import t from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import { callHost } from '../../src/host/control.ts';
import { startHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { FrameStream } from '../../src/net/frames.ts';
import { createNode, dialAddresses, peerNameIn } from '../../src/net/node.ts';
import { relayedAddress } from '../../src/net/peer-name.ts';
import { PunchSchema } from '../../src/net/proto/wire_pb.ts';
import type { Punch, Signed } from '../../src/net/proto/wire_pb.ts';
import { BRIDGE_PROTOCOL, PUNCH_FRAME_BYTES, PUNCH_PROTOCOL, SHARD_PROTOCOL } from '../../src/net/protocols.ts';
import { PunchTransport } from '../../src/net/punch-transport.ts';
import { RelayTransport } from '../../src/net/relay.ts';
import { RpcClient } from '../../src/net/rpc.ts';
import { signSighting, verifySighting } from '../../src/net/sightings.ts';
import { until } from '../support/run.ts';

t.setTimeout(300_000);

const log = silentLogger;
// Short paths: testdir can be too long for a socket.
const dir = mkdtempSync(join(tmpdir(), 'xp-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

const bridge = await startBridge(
  { dir: join(dir, 'b'), listen: ['/ip4/127.0.0.1/tcp/0'], options: { heartbeatMs: 200, upkeepMs: 50 } },
  { log },
);
t.teardown(() => bridge.stop());
const bridgeName = peerNameIn(bridge.address);
const bridgeSeed = readFileSync(join(dir, 'b', 'identity.seed'));

// Where nobody looks for it, as behind a router.
const hostDir = join(dir, 'h');
const host = await startHost(
  {
    ...{ dir: hostDir, bridge: bridge.address, capacityBytes: 200 * 1024 * 1024, listen: ['/ip4/127.0.0.2/tcp/0'] },
    options: { floorBytes: 0 },
  },
  { log },
);
t.teardown(() => host.stop());
const hostName = peerNameIn(host.address);
await until(
  'the host to be relayed',
  async () => (await callHost(hostDir, 'status', {})).reachability.state === 'relayed',
);

/** A peer of the bridge that does as it likes. */
async function somebody(punching = new PunchTransport({ clock: systemClock })): Promise<Libp2p> {
  const node = await createNode({ seed: randomBytes(32), listen: [], relayed: new RelayTransport(), punching });
  t.teardown(() => node.stop());
  await node.dial(dialAddresses(bridgeName, [bridge.address]));
  return node;
}

interface Talk {
  readonly send: (message: MessageInitShape<typeof PunchSchema>) => Promise<void>;
  /** Null where the stream has ended. */
  readonly receive: () => Promise<Punch | null>;
}

/** What it says to the host on one stream, and hears. */
async function talkOf(node: Libp2p): Promise<Talk> {
  const signal = AbortSignal.timeout(10_000);
  const options = { signal, runOnLimitedConnection: true };
  const addresses = dialAddresses(hostName, [relayedAddress(bridgeName, hostName)]);
  const relayed = await node.dial(addresses, { signal });
  const frames = new FrameStream(await relayed.newStream(PUNCH_PROTOCOL, options), PUNCH_FRAME_BYTES);
  return {
    send: (message) => frames.write(toBinary(PunchSchema, create(PunchSchema, message))),
    receive: async () => {
      const frame = await frames.read().catch(() => null);
      return frame && fromBinary(PunchSchema, frame);
    },
  };
}

await t.test('the bridge says from where a peer is connected, to whom it may concern', async (t) => {
  const node = await somebody();
  const [connection] = node.getConnections();
  const rpc = new RpcClient(await connection!.newStream(BRIDGE_PROTOCOL));
  t.teardown(() => rpc.close());
  const nonce = randomBytes(16);
  const signed = await rpc.call({ case: 'sight', value: { nonce } }, 'sighting');
  const peer = node.peerId.toString();
  t.match(verifySighting(signed, { bridge: bridgeName, peer, nonce }), /^\/ip4\/127\.0\.0\.1\/tcp\/\d+$/);
  await t.rejects(rpc.call({ case: 'sight', value: { nonce: nonce.subarray(1) } }, 'sighting'), { code: 'PROTOCOL' });

  const mapped = signSighting(bridgeSeed, peer, '/ip6/::ffff:203.0.113.7/tcp/4001/p2p/x', nonce);
  t.equal(verifySighting(mapped, { bridge: bridgeName, peer, nonce }), '/ip4/203.0.113.7/tcp/4001');
  for (const from of [
    '',
    '/p2p/x/p2p-circuit',
    '/dns4/example.org/tcp/1',
    '/ip4/203.0.113.7/udp/1',
    '/ip4/1.2.3.4/tcp/0',
  ]) {
    t.throws(() => signSighting(bridgeSeed, peer, from, nonce), { code: 'REFUSED' }, from);
  }
});

await t.test('a peer is dialled only where the bridge has seen it, and now', async (t) => {
  let dialled = 0;
  const trap = createServer((socket) => {
    dialled += 1;
    socket.destroy();
  }).listen(0, '127.0.0.1');
  t.teardown(() => trap.close());
  await once(trap, 'listening');
  const there = `/ip4/127.0.0.1/tcp/${(trap.address() as AddressInfo).port}`;
  const seed = randomBytes(32);
  const lies: Record<string, (peer: string, nonce: Uint8Array) => Signed | undefined> = {
    'no sighting': () => undefined,
    'signed by somebody else': (peer, nonce) => signSighting(seed, peer, there, nonce),
    'of another peer': (_, nonce) => signSighting(bridgeSeed, hostName, there, nonce),
    'of another time': (peer) => signSighting(bridgeSeed, peer, there, randomBytes(16)),
  };
  for (const [what, lie] of Object.entries(lies)) {
    const node = await somebody();
    const talk = await talkOf(node);
    await talk.send({ nonce: randomBytes(16) });
    const nonce = (await talk.receive())!.nonce;
    t.ok((await talk.receive())?.sighting, 'the host shows its own');
    const sighting = lie(node.peerId.toString(), nonce);
    await talk.send(sighting ? { sighting } : { dial: true });
    await talk.send({ dial: true }).catch(() => {});
    t.equal(await talk.receive(), null, what);
    t.equal(dialled, 0, what);
  }

  const node = await somebody();
  const talk = await talkOf(node);
  await talk.send({ nonce: randomBytes(16) });
  const nonce = (await talk.receive())!.nonce;
  await talk.receive();
  await talk.send({ sighting: signSighting(bridgeSeed, node.peerId.toString(), there, nonce) });
  const connected = once(trap, 'connection');
  await talk.send({ dial: true });
  await connected;
});

await t.test('tries are few', async (t) => {
  const node = await somebody();
  const talk = await talkOf(node);
  await talk.send({ nonce: randomBytes(16) });
  t.equal((await talk.receive())!.nonce.length, 16);
  const again = await talkOf(node);
  t.equal(await again.receive(), null, 'not twice in ten seconds with one peer');

  const others = await Promise.all([1, 2, 3].map(async () => talkOf(await somebody())));
  const answers = await Promise.all(
    others.map(async ({ send, receive }) => {
      await send({ nonce: randomBytes(16) }).catch(() => {});
      return receive();
    }),
  );
  t.ok(answers.filter((answer) => answer !== null).length <= 1, 'nor more than two at once');
});

await t.test('a relayed connection is left once no transfer is on it', async (t) => {
  const punching = new PunchTransport({ clock: systemClock });
  const node = await somebody(punching);
  t.match(punching.routesExcept(bridgeName), { direct: 0, punched: 0, relayed: 0 });
  const relayed = await node.dial(dialAddresses(hostName, [relayedAddress(bridgeName, hostName)]));
  const stream = await relayed.newStream(SHARD_PROTOCOL, { runOnLimitedConnection: true });
  t.match(punching.routesExcept(bridgeName), { direct: 0, punched: 0, relayed: 1 });
  t.notOk(await punching.leaveRelay(hostName, SHARD_PROTOCOL));
  t.equal(relayed.status, 'open');
  stream.abort(new Error('enough'));
  t.ok(await punching.leaveRelay(hostName, SHARD_PROTOCOL));
  t.not(relayed.status, 'open');
  t.match(punching.routesExcept(bridgeName), { relayed: 0 });
});

// The streams of both servers under hostile peers: the real services, whole conversations with mutated messages in them. Each stream
// ends when its peer goes, nothing comes out but answers and codes, no handler fails in a way of its own, and whoever behaves is served.
//
// XCORE_TEST_FUZZ=100000 sets the number of inputs over all files of test/fuzz (20,000 unless told); XCORE_TEST_SEED=… repeats their bytes.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Stream } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import t from 'tap';
import { HOST_DEFAULTS } from '../../src/host/options.ts';
import { ERRNO } from '../../src/lib/errors.ts';
import { signAuthentication } from '../../src/net/authentication.ts';
import { encodeFrame, encodePrefix, FrameDecoder } from '../../src/net/frame-codec.ts';
import { mintStock } from '../../src/net/key-stock.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { createNode } from '../../src/net/node.ts';
import { signOrder } from '../../src/net/orders.ts';
import { BRIDGE_FRAME_BYTES, BRIDGE_PROTOCOL, SHARD_FRAME_BYTES, SHARD_PROTOCOL } from '../../src/net/protocols.ts';
import {
  BridgeRequestSchema,
  BridgeResponseSchema,
  HostRequestSchema,
  HostResponseSchema,
} from '../../src/net/proto/wire_pb.ts';
import { serveRpc } from '../../src/net/rpc.ts';
import type { RequestInit } from '../../src/net/rpc.ts';
import { serveShardStream } from '../../src/net/shard-protocol.ts';
import { Harness as Bridge, Party, signedEntry } from '../bridge/harness.ts';
import { Harness as Host, randomShard } from '../host/harness.ts';
import { makeShard, startLocalNetwork } from '../net/local-network.ts';
import { pickSeed, Random } from '../support/random.ts';
import { until } from '../support/run.ts';
import { MemoryStream } from './memory-stream.ts';
import { bytesInUse } from './memory.ts';
import { inputOf } from './mutate.ts';

t.setTimeout(300_000);

const INPUTS = Number(process.env['XCORE_TEST_FUZZ'] ?? 20_000);
/** Of all inputs; the rest goes to decoders. */
const SHARE = { bridge: 0.12, host: 0.12, connections: 0.01 };
const PER_STREAM = 12;
/** What a bridge and a host grant one connection. */
const MAX_STREAMS = 4 + HOST_DEFAULTS.maxStreamsPerConnection;
const MAX_GROWTH_BYTES = 64 * 1024 * 1024;
const seed = pickSeed();
const random = new Random(seed);

const rejections: unknown[] = [];
const onRejection = (reason: unknown): unknown => rejections.push(reason);
process.on('unhandledRejection', onRejection);
t.teardown(() => process.off('unhandledRejection', onRejection));

function requestTo(body: RequestInit, id = 1): Buffer {
  return Buffer.from(toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id, body })));
}

const isRequest = (bytes: Buffer): boolean => {
  const { id, body } = fromBinary(BridgeRequestSchema, bytes);
  return id > 0 && body.case !== undefined && body.case !== 'authenticate';
};
const isHostRequest = (bytes: Buffer): boolean => fromBinary(HostRequestSchema, bytes).body.case !== undefined;

type HostInit = NonNullable<Parameters<typeof create<typeof HostRequestSchema>>[1]>['body'];

function hostRequest(body: HostInit): Buffer {
  return Buffer.from(toBinary(HostRequestSchema, create(HostRequestSchema, { body })));
}

/** Frames of what a server sent, as far as they are whole. */
function framesOf(received: readonly Buffer[], limit: number): Buffer[] {
  const decoder = new FrameDecoder(limit);
  for (const data of received) decoder.push(data);
  const frames: Buffer[] = [];
  for (let frame = decoder.next(); frame; frame = decoder.next()) frames.push(frame);
  return frames;
}

/** A mutated message; mostly one that can still be read, since the first other one ends the stream. */
function message(
  name: string,
  number: number,
  samples: readonly Buffer[],
  isReadable: (bytes: Buffer) => boolean,
  random: Random,
): Buffer {
  for (let attempt = 0; attempt < 8; attempt += 1) {
    const input = inputOf(`${seed}/${name}/${attempt}`, number, samples);
    if (random.below(40) === 0 || readable(() => isReadable(input))) return input;
  }
  return random.pick(samples);
}

function readable(read: () => boolean): boolean {
  try {
    return read();
  } catch {
    return false;
  }
}

/** What a peer sends for one message: most often a frame, at times less or more than one. */
function sent(message: Buffer, random: Random): Buffer {
  const frame = message.length > 0 ? encodeFrame(message) : Buffer.of(0);
  switch (random.below(100)) {
    case 0:
      return frame.subarray(0, random.below(frame.length));
    case 1:
      return Buffer.concat([encodePrefix(random.pick([1, 200, 1 << 20, (1 << 28) - 1])), message]);
    case 2:
      return random.bytes(random.between(1, 50));
    default:
      return frame;
  }
}

/** Sends in pieces as they might come, and lets the server work between streams. */
async function converse(stream: MemoryStream, sending: readonly Buffer[], random: Random): Promise<void> {
  for (const bytes of sending) {
    const cut = random.below(3) === 0 ? random.below(bytes.length + 1) : bytes.length;
    stream.deliver(bytes.subarray(0, cut));
    stream.deliver(bytes.subarray(cut));
  }
  await new Promise((resolve) => setImmediate(resolve));
  if (random.below(4) > 0) stream.end();
  else stream.reset();
}

t.test('the bridge answers or ends any stream, and never fails in a way of its own', async (t) => {
  t.comment(`seed ${seed}`);
  const bridge = await Bridge.start(t, { maxVolumes: 50, maxHosts: 50, maxRequestsPerSecond: 1e9 });
  const hosts = await bridge.join(3);
  const client = await bridge.connect(new Party());
  const shard = randomShard(3_000);
  const named = { shardId: shard.id, sizeBytes: shard.data.length };
  const { placements } = await client.place([named]);
  const receipts = placements[0]!.targets.map((target) =>
    hosts.find(({ peer }) => peer === target.host)!.receipt(target),
  );
  await client.confirm(receipts.slice(1));
  const { epoch } = await client.lease();
  const stocks = [mintStock(client.device.seed, shard.id, shard.data, 2)];
  const transfers = [{ host: hosts[0]!.peer, sizeBytes: 200_000n, durationMs: 5, upload: true }];
  const requests: RequestInit[] = [
    { case: 'announce', value: { sizeBytes: 1_000n } },
    { case: 'place', value: { shards: [named], excludeHosts: [hosts[0]!.peer] } },
    { case: 'confirm', value: { receipts, transfers } },
    { case: 'locate', value: { shardIds: [shard.id, randomBytes(32)] } },
    { case: 'report', value: { host: hosts[0]!.peer, shardId: shard.id, code: 'CORRUPT_SHARD' } },
    { case: 'append', value: { entry: signedEntry(client, { seq: 1n, epoch, shardsAdded: [named] }) } },
    { case: 'readLog', value: { fromSeq: 1n, maxBytes: 1_000, headersOnly: true } },
    { case: 'acquireLease', value: { takeOver: true } },
    { case: 'renewLease', value: { epoch } },
    { case: 'releaseLease', value: { epoch } },
    { case: 'space', value: {} },
    { case: 'watch', value: {} },
    { case: 'handOver', value: { stocks } },
    { case: 'registerHost', value: { addresses: ['/ip4/10.0.0.1/tcp/1'], capacityBytes: 5_000n, version: '1' } },
    { case: 'heartbeat', value: { capacityBytes: 5n, deleted: [randomBytes(16)], lost: [shard.id] } },
  ];
  const samples = requests.map((body, at) => requestTo(body, at + 1));
  const internal: unknown[] = [];
  const answered = new Map<string, number>();
  const before = await bytesInUse();
  for (let number = 0; number < INPUTS * SHARE.bridge; number += PER_STREAM) {
    const choices = new Random(`${seed}/bridge/${number}`);
    const stream = new MemoryStream();
    const isHost = choices.below(4) === 0;
    const peer = isHost ? hosts[1]!.peer : client.device.peer;
    const served = serveRpc(
      stream.served,
      peer,
      (body, context) => bridge.handle(body, context),
      { clock: bridge.clock },
      (error, request) => internal.push(`${request}: ${error.stack}`),
    );
    const expiresMs = BigInt(bridge.clock.now() + 60_000);
    const signature = signAuthentication(client.owner.seed, bridge.identity.peer, peer, expiresMs);
    const greeting = requestTo({ case: 'authenticate', value: { volume: client.volume, expiresMs, signature } });
    const conversation = Array.from({ length: PER_STREAM }, (_none, at) =>
      sent(message('bridge', number + at, samples, isRequest, choices), choices),
    );
    await converse(stream, [encodeFrame(greeting), ...conversation], choices);
    await served;
    for (const frame of framesOf(stream.received, BRIDGE_FRAME_BYTES)) {
      const { body } = fromBinary(BridgeResponseSchema, frame);
      const what = body.case === 'failure' ? body.value.code : 'answered';
      answered.set(what, (answered.get(what) ?? 0) + 1);
    }
  }
  t.same(internal.slice(0, 3), []);
  t.comment(JSON.stringify(Object.fromEntries(answered)));
  t.ok([...answered.keys()].every((code) => code === 'answered' || (code in ERRNO && code !== 'INTERNAL')));
  t.ok((answered.get('answered') ?? 0) > INPUTS / 200, 'many messages reach a handler that likes them');
  t.ok((await bytesInUse()) - before < MAX_GROWTH_BYTES, 'memory');
  const other = await bridge.connect(new Party());
  await bridge.join(3);
  const next = { shardId: randomBytes(32), sizeBytes: 1_000 };
  t.ok((await other.place([next])).placements[0]!.targets.length >= 3, 'others are served');
});

t.test('a host answers or ends any stream, and keeps nothing that is not a shard it was ordered to keep', async (t) => {
  const host = await Host.start(t, { capacityBytes: 10_000_000 });
  const kept = randomShard(40_000);
  await host.store1(kept);
  const shards = Array.from({ length: 4 }, () => randomShard(20_000));
  const internal: unknown[] = [];
  const codes = new Map<string, number>();
  const before = await bytesInUse();
  // of many inputs, some reach what keeps and what gives
  const expected = INPUTS >= 20_000 ? ['REFUSED', 'retrieved', 'ready'] : [];
  const isOver = (number: number): boolean =>
    number >= INPUTS * SHARE.host && expected.every((code) => codes.has(code));
  for (let number = 0; !isOver(number); number += PER_STREAM) {
    const choices = new Random(`${seed}/host/${number}`);
    const shard = choices.pick(shards);
    const stores = [host.order(shard), host.order(shard, { client: host.bridge })];
    const reads = [host.client, host.bridge].map((client) => host.order(kept, { operation: 'retrieve', client }));
    const samples = [
      hostRequest({ case: 'store', value: { order: stores[0] } }),
      hostRequest({ case: 'retrieve', value: { order: reads[0], firstLeaf: 1, leafCount: 1 } }),
      hostRequest({ case: 'retrieve', value: { order: reads[1], firstLeaf: 0, leafCount: 0 } }),
      hostRequest({ case: 'copy', value: { order: stores[1], source: reads[1], addresses: ['/ip4/10.0.0.1/tcp/1'] } }),
      hostRequest({ case: 'listShards', value: { after: kept.id, limit: 10 } }),
      hostRequest({ case: 'prove', value: { order: reads[1], challenge: randomBytes(16) } }),
      hostRequest({ case: 'findDeletion', value: { shardId: kept.id } }),
    ];
    const stream = new MemoryStream();
    const served = serveShardStream(
      stream.served,
      choices.pick([host.client, host.bridge]),
      host.transfers,
      (error, request) => internal.push(`${request}: ${error.stack}`),
      host.clock,
    );
    const conversation = Array.from({ length: PER_STREAM }, (_none, at) =>
      // After Store come raw bytes: those of the shard, or others.
      choices.below(8) === 0
        ? encodeFrame(choices.pick([shard.data, kept.data.subarray(0, 20_000), randomBytes(200)]))
        : sent(message('host', number + at, samples, isHostRequest, choices), choices),
    );
    await converse(stream, conversation, choices);
    await served;
    for (const frame of framesOf(stream.received, SHARD_FRAME_BYTES)) {
      try {
        const { body } = fromBinary(HostResponseSchema, frame);
        const what = body.case === 'failure' ? body.value.code : (body.case ?? 'bytes');
        codes.set(what, (codes.get(what) ?? 0) + 1);
      } catch {
        // bytes of a shard
      }
    }
  }
  t.same(internal.slice(0, 3), []);
  t.comment(JSON.stringify(Object.fromEntries(codes)));
  t.notOk(codes.has('INTERNAL'));
  t.ok((await bytesInUse()) - before < MAX_GROWTH_BYTES, 'memory');
  t.equal(host.transfers.active, 0);
  t.equal(host.store.budget.reservedBytes, 0);
  const known = new Set([kept, ...shards].map(({ id }) => id.toString('hex')));
  const held = await host.store.list(new Uint8Array(), 1_000);
  t.ok(held.length <= known.size && held.every((id) => known.has(Buffer.from(id).toString('hex'))));
  for (const id of held) t.ok(await host.store.verify(id));
  const good = randomShard(30_000);
  await host.store1(good);
  t.ok((await host.get(host.order(good, { operation: 'retrieve' }))).data.equals(good.data), 'others are served');
});

t.test('over real connections: garbage, half-open frames and floods of streams harm nobody else', async (t) => {
  const network = await startLocalNetwork(t, 3);
  const { dir } = network;
  const seeds = { deviceSeed: randomBytes(32), ownerSeed: randomBytes(32) };
  const client = new ClientNetwork({ bridge: network.address, ...seeds });
  await client.start();
  t.teardown(() => client.stop());
  const store = async (): Promise<void> => {
    const shard = makeShard(dir, randomBytes(100_000));
    t.match(await client.upload(shard), { durable: true });
    await client.fetchShard(shard.id, shard.sizeBytes, join(dir, 'fetched'));
  };
  await until('the client is connected', () => client.status().then(({ connected }) => connected || undefined));
  await store();
  const attacker = await createNode({ seed: randomBytes(32), listen: [] });
  t.teardown(() => Promise.resolve(attacker.stop()));
  const targets = [
    { protocol: BRIDGE_PROTOCOL, address: network.address },
    { protocol: SHARD_PROTOCOL, address: network.hosts[0]!.address },
  ];
  const before = await bytesInUse();
  const samples = [
    requestTo({ case: 'space', value: {} }),
    hostRequest({ case: 'retrieve', value: { order: signOrder(randomBytes(32), {}), firstLeaf: 0, leafCount: 0 } }),
  ];
  const open: Stream[] = [];
  let refused = 0;
  for (let number = 0; number < Math.max(100, INPUTS * SHARE.connections); number += 1) {
    const { protocol, address } = targets[number % 2]!;
    try {
      const stream = await attacker.dialProtocol([multiaddr(address)], protocol);
      const input = inputOf(`${seed}/connections`, number, samples);
      stream.send(random.pick([input, sent(input, random), encodePrefix((1 << 18) - 1)]));
      // Half of them stay as they are: without an end, or in the middle of a frame.
      if (random.below(2) === 0) stream.abort(new Error('gone'));
      else open.push(stream);
    } catch {
      refused += 1;
    }
  }
  const alive = (): number => open.filter(({ status }) => status === 'open').length;
  await until('no peer has any number of streams', () => alive() <= MAX_STREAMS);
  t.comment(`${open.length} streams left open, ${alive()} of them served, ${refused} refused`);
  await store();
  for (const stream of open) stream.abort(new Error('gone'));
  await store();
  t.ok((await bytesInUse()) - before < MAX_GROWTH_BYTES, 'memory');
});

t.test('nothing was left unhandled', async (t) => {
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.same(rejections, []);
});

import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import type { Libp2p, Stream } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import t from 'tap';
import type { Test } from 'tap';
import { XcoreError } from '../../src/lib/errors.ts';
import { markToSend } from '../../src/lib/free-buffer.ts';
import { encodeFrame, FrameDecoder } from '../../src/net/frame-codec.ts';
import { FrameStream } from '../../src/net/frames.ts';
import { addressesOf, createNode } from '../../src/net/node.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { BridgeRequestSchema } from '../../src/net/proto/wire_pb.ts';
import { RpcClient, serveRpc } from '../../src/net/rpc.ts';
import type { ResponseBody, RpcHandler, RpcLimits } from '../../src/net/rpc.ts';
import { until } from '../support/run.ts';

const PROTOCOL = '/xcore/test-rpc/1';
const LOOPBACK = '/ip4/127.0.0.1/tcp/0';

async function startPair(test: Test): Promise<{ server: Libp2p; client: Libp2p; serverSeed: Buffer }> {
  const serverSeed = randomBytes(32);
  const server = await createNode({ seed: serverSeed, listen: [LOOPBACK] });
  test.teardown(() => server.stop());
  const client = await createNode({ seed: randomBytes(32), listen: [] });
  test.teardown(() => client.stop());
  return { server, client, serverSeed };
}

async function serve(server: Libp2p, handler: RpcHandler, limits?: RpcLimits): Promise<Error[]> {
  const internal: Error[] = [];
  await server.unhandle(PROTOCOL);
  await server.handle(PROTOCOL, (stream, connection) =>
    serveRpc(stream, connection.remotePeer.toString(), handler, limits, (error) => internal.push(error)),
  );
  return internal;
}

function dial(client: Libp2p, server: Libp2p): Promise<Stream> {
  return client.dialProtocol(
    addressesOf(server).map((address) => multiaddr(address)),
    PROTOCOL,
  );
}

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

void t.test('frames', async (t) => {
  void t.test('any way of cutting the bytes gives the same frames', async (t) => {
    const sizes = [1, 127, 128, 129, 16_383, 16_384, 70_000];
    const frames = sizes.map((size) => randomBytes(size));
    const bytes = Buffer.concat(frames.map((frame) => encodeFrame(frame)));
    for (const step of [1, 2, 3, 1_000, 16_384, bytes.length]) {
      const decoder = new FrameDecoder(70_000);
      const found: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += step) {
        decoder.push(bytes.subarray(at, at + step));
        for (let frame = decoder.next(); frame; frame = decoder.next()) found.push(frame);
      }
      t.same(found.map((frame) => frame.toString('hex')).join(), frames.map((frame) => frame.toString('hex')).join());
      t.equal(decoder.pendingBytes, 0);
    }
  });
  void t.test('a frame over the limit is refused before its bytes are there', async (t) => {
    const decoder = new FrameDecoder(100);
    decoder.push(encodeFrame(Buffer.alloc(101)).subarray(0, 1));
    t.throws(() => decoder.next(), { code: 'TOO_LARGE' });
  });
  void t.test('malformed lengths are refused', async (t) => {
    for (const hex of ['00', '8000', 'ffffffff', 'ffffffffff']) {
      const decoder = new FrameDecoder(1_000);
      decoder.push(Buffer.from(hex, 'hex'));
      t.throws(() => decoder.next(), { code: 'PROTOCOL' }, hex);
    }
  });
});

void t.test('frames of several streams are read into place, and temporary buffers go once they are sent', async (t) => {
  const { server, client } = await startPair(t);
  const sizes = [1, 60_000, 65_536, 65_537, 100_000, 262_144, 3, 262_144, 200_001];
  const streams = 3;
  const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const received: string[][] = [];
  const done = Promise.withResolvers<void>();
  await server.handle(PROTOCOL, async (stream) => {
    const frames = new FrameStream(stream, 262_144);
    const buffer = Buffer.alloc(262_144);
    const digests: string[] = [];
    for (let n = await frames.readInto(buffer); n !== null; n = await frames.readInto(buffer)) {
      digests.push(digest(buffer.subarray(0, n)));
    }
    await frames.write(Buffer.from('frame that is longer than asked for'));
    received.push(digests);
    if (received.length === streams) done.resolve();
    await frames.close();
  });
  const expected: string[][] = [];
  await Promise.all(
    Array.from({ length: streams }, async () => {
      const frames = new FrameStream(await dial(client, server), 262_144);
      const buffers = sizes.map((size) => Buffer.from(new Uint8Array(randomBytes(size)).buffer));
      expected.push(buffers.map(digest));
      for (const buffer of buffers) {
        markToSend(buffer);
        await frames.write(buffer);
      }
      const closing = frames.close();
      await t.rejects(frames.readInto(Buffer.alloc(10)), { code: 'PROTOCOL' });
      await closing;
      await until(
        'large buffers to be freed',
        () =>
          buffers.every((buffer, n) => (sizes[n]! <= 65_536 ? buffer.length === sizes[n] : buffer.length === 0)) ||
          undefined,
      );
    }),
  );
  await done.promise;
  t.same(received.flat().toSorted(), expected.flat().toSorted());
});

void t.test('calls', async (t) => {
  const { server, client, serverSeed } = await startPair(t);

  void t.test('the peer is who its seed says', async (t) => {
    t.equal(server.peerId.toString(), peerNameOf(serverSeed));
  });

  void t.test('many calls at once each get their own answer, in any order', async (t) => {
    await serve(server, async (body) => {
      const size = body.case === 'announce' ? body.value.sizeBytes : 0n;
      await sleep(Number(size % 7n));
      return { case: 'policy', value: { shardSizeBytes: Number(size) } };
    });
    const rpc = new RpcClient(await dial(client, server), undefined, { maxInFlight: 200 });
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, n) =>
        rpc.call({ case: 'announce', value: { sizeBytes: BigInt(n) } }, 'policy', { timeoutMs: 30_000 }),
      ),
    );
    t.same(
      answers.map((answer) => answer.shardSizeBytes),
      Array.from({ length: 200 }, (_, n) => n),
    );
    await rpc.close();
    await t.rejects(rpc.call({ case: 'space', value: {} }, 'spaceInfo'), { code: 'CLOSED' });
  });

  void t.test('errors keep their code; unknown ones say nothing', async (t) => {
    const internal = await serve(server, async (body) => {
      if (body.case === 'space') throw new XcoreError('QUOTA', 'quota of 10 bytes is used up');
      throw new Error('secret detail');
    });
    const rpc = new RpcClient(await dial(client, server));
    await t.rejects(rpc.call({ case: 'space', value: {} }, 'spaceInfo'), {
      code: 'QUOTA',
      message: 'quota of 10 bytes is used up',
    });
    const error = await rpc.call({ case: 'watch', value: {} }, 'done').catch((error: unknown) => error);
    t.match(error, { code: 'INTERNAL' });
    t.notMatch(String(error), /secret/);
    t.match(internal, [/secret detail/]);
    await rpc.close();
  });

  void t.test('an answer of another kind is PROTOCOL', async (t) => {
    await serve(server, async () => ({ case: 'done', value: {} }));
    const rpc = new RpcClient(await dial(client, server));
    await t.rejects(rpc.call({ case: 'space', value: {} }, 'spaceInfo'), { code: 'PROTOCOL' });
    await rpc.close();
  });

  void t.test('deadline and cancel end a call but not the stream', async (t) => {
    const release = Promise.withResolvers<void>();
    await serve(server, async (body) => {
      if (body.case === 'watch') await release.promise;
      return { case: 'done', value: {} };
    });
    const rpc = new RpcClient(await dial(client, server));
    await t.rejects(rpc.call({ case: 'watch', value: {} }, 'done', { timeoutMs: 50 }), { code: 'TIMEOUT' });
    const abort = new AbortController();
    const cancelled = rpc.call({ case: 'watch', value: {} }, 'done', { signal: abort.signal });
    abort.abort();
    await t.rejects(cancelled, { code: 'ABORTED' });
    release.resolve();
    t.ok(await rpc.call({ case: 'report', value: {} }, 'done'));
    await rpc.close();
  });

  void t.test('too many waiting calls are refused at once', async (t) => {
    const release = Promise.withResolvers<void>();
    await serve(server, async () => {
      await release.promise;
      return { case: 'done', value: {} };
    });
    const rpc = new RpcClient(await dial(client, server), undefined, { maxInFlight: 2 });
    const waiting = [1, 2].map(() => rpc.call({ case: 'watch', value: {} }, 'done'));
    await t.rejects(rpc.call({ case: 'watch', value: {} }, 'done'), { code: 'EAGAIN' });
    release.resolve();
    await Promise.all(waiting);
    await rpc.close();
  });

  void t.test('a server runs no more requests at once than its limit', async (t) => {
    let running = 0;
    let most = 0;
    const full = Promise.withResolvers<void>();
    await serve(
      server,
      async () => {
        running += 1;
        most = Math.max(most, running);
        if (running === 3) full.resolve();
        await full.promise;
        await sleep(2);
        running -= 1;
        return { case: 'done', value: {} };
      },
      { maxInFlight: 3 },
    );
    const rpc = new RpcClient(await dial(client, server));
    await Promise.all(Array.from({ length: 40 }, () => rpc.call({ case: 'watch', value: {} }, 'done')));
    t.equal(most, 3);
    await rpc.close();
  });

  void t.test('events reach the watcher in order', async (t) => {
    await serve(server, async (_body, { session }) => {
      for (let seq = 1; seq <= 50; seq++) session.push({ case: 'head', value: { seq: BigInt(seq) } });
      return { case: 'done', value: {} };
    });
    const events: ResponseBody[] = [];
    const rpc = new RpcClient(await dial(client, server), (event) => events.push(event));
    await rpc.call({ case: 'watch', value: {} }, 'done');
    t.same(
      events.map((event) => (event.case === 'head' ? Number(event.value.seq) : -1)),
      Array.from({ length: 50 }, (_, n) => n + 1),
    );
    await rpc.close();
  });

  void t.test('a watcher that does not read loses its stream and the server holds little', async (t) => {
    const lost = Promise.withResolvers<number>();
    await serve(server, async (_body, { session }) => {
      let pushed = 0;
      while (session.push({ case: 'head', value: { hash: randomBytes(60_000) } })) {
        pushed += 60_000;
        await sleep(0);
      }
      lost.resolve(pushed);
      return { case: 'done', value: {} };
    });
    const stream = await dial(client, server);
    stream.send(
      encodeFrame(
        toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id: 1, body: { case: 'watch', value: {} } })),
      ),
    );
    stream.pause();
    t.ok((await lost.promise) < 32 * 1024 * 1024);
    stream.abort(new Error('done'));
  });

  void t.test('malformed and oversize frames end the stream, and only that stream', async (t) => {
    await serve(server, async () => ({ case: 'done', value: {} }), { maxFrameBytes: 1_000 });
    const good = new RpcClient(await dial(client, server));
    const bad: [string, Buffer][] = [
      ['not a message', encodeFrame(Buffer.from('ffffffff', 'hex'))],
      ['no body', encodeFrame(toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { id: 1 })))],
      [
        'no id',
        encodeFrame(toBinary(BridgeRequestSchema, create(BridgeRequestSchema, { body: { case: 'watch', value: {} } }))),
      ],
      ['oversize', encodeFrame(Buffer.alloc(1_001))],
      ['oversize prefix only', encodeFrame(Buffer.alloc(1_001)).subarray(0, 2)],
      ['endless prefix', Buffer.from('ffffffffff', 'hex')],
    ];
    for (const [name, bytes] of bad) {
      const stream = await dial(client, server);
      const closed = new Promise((resolve) => stream.addEventListener('close', resolve));
      stream.send(bytes);
      await closed;
      t.pass(name);
    }
    t.ok(await good.call({ case: 'watch', value: {} }, 'done'));
    await good.close();
  });

  void t.test('a request over the limit fails before it is sent', async (t) => {
    await serve(server, async () => ({ case: 'done', value: {} }));
    const rpc = new RpcClient(await dial(client, server), undefined, { maxFrameBytes: 1_000 });
    await t.rejects(rpc.call({ case: 'append', value: { entry: { body: Buffer.alloc(2_000) } } }, 'head'), {
      code: 'TOO_LARGE',
    });
    t.ok(await rpc.call({ case: 'watch', value: {} }, 'done'));
    await rpc.close();
  });

  void t.test('large answers arrive whole, one over the limit as TOO_LARGE', async (t) => {
    const body = randomBytes(3_000_000);
    await serve(server, async (request) => {
      const times = request.case === 'readLog' ? Number(request.value.fromSeq) : 0;
      return { case: 'logEntries', value: { entries: Array.from({ length: times }, () => ({ body })) } };
    });
    const rpc = new RpcClient(await dial(client, server));
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => rpc.call({ case: 'readLog', value: { fromSeq: 1n } }, 'logEntries')),
    );
    for (const { entries } of answers) t.ok(Buffer.from(entries[0]?.body ?? []).equals(body));
    await t.rejects(rpc.call({ case: 'readLog', value: { fromSeq: 2n } }, 'logEntries'), { code: 'TOO_LARGE' });
    await rpc.close();
  });

  void t.test('a dropped connection fails what waits with UNREACHABLE and tells the handler', async (t) => {
    const [reached, told] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await serve(server, async (_body, { signal }) => {
      signal.addEventListener('abort', () => told.resolve());
      reached.resolve();
      await told.promise;
      return { case: 'done', value: {} };
    });
    const rpc = new RpcClient(await dial(client, server));
    const waiting = rpc.call({ case: 'watch', value: {} }, 'done');
    await reached.promise;
    for (const connection of server.getConnections(client.peerId)) connection.abort(new Error('cut'));
    await t.rejects(waiting, { code: 'UNREACHABLE' });
    await told.promise;
    await rpc.closed;
  });
});

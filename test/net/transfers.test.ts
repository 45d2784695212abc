import { randomBytes } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Libp2p, Stream } from '@libp2p/interface';
import t from 'tap';
import type { Test } from 'tap';
import { XcoreError } from '../../src/lib/errors.ts';
import { encodeFrame } from '../../src/net/frame-codec.ts';
import { FrameStream } from '../../src/net/frames.ts';
import { HostClient } from '../../src/net/host-client.ts';
import type { HostTarget } from '../../src/net/host-client.ts';
import { addressesOf, createNode, dialAddresses } from '../../src/net/node.ts';
import { SHARD_FRAME_BYTES, SHARD_PROTOCOL } from '../../src/net/protocols.ts';
import { HostRequestSchema, HostResponseSchema, SignedSchema } from '../../src/net/proto/wire_pb.ts';
import { serveShardStream } from '../../src/net/shard-protocol.ts';
import type { ShardHandlers } from '../../src/net/shard-protocol.ts';

const SIZE = 700_000;
const WHOLE = { firstLeaf: 0, leafCount: 0 };
const RECEIPT = create(SignedSchema, { body: Buffer.from('body'), signature: Buffer.alloc(64) });

interface Pair {
  readonly host: Libp2p;
  readonly node: Libp2p;
  readonly client: HostClient;
  readonly target: HostTarget;
}

async function startPair(t: Test): Promise<Pair> {
  const host = await createNode({ seed: randomBytes(32), listen: ['/ip4/127.0.0.1/tcp/0'] });
  t.teardown(() => host.stop());
  const node = await createNode({ seed: randomBytes(32), listen: [] });
  t.teardown(() => node.stop());
  const client = new HostClient(node);
  t.teardown(() => client.stop());
  return { host, node, client, target: { host: host.peerId.toString(), addresses: addressesOf(host) } };
}

async function serve(host: Libp2p, handler: (stream: Stream) => Promise<void>): Promise<() => number> {
  let streams = 0;
  await host.unhandle(SHARD_PROTOCOL);
  await host.handle(SHARD_PROTOCOL, (stream) => {
    streams += 1;
    return handler(stream);
  });
  for (const connection of host.getConnections()) {
    for (const stream of connection.streams)
      if (stream.protocol === SHARD_PROTOCOL) stream.abort(new Error('replaced'));
  }
  return () => streams;
}

function response(body: NonNullable<MessageInitShape<typeof HostResponseSchema>['body']>): Buffer {
  return Buffer.from(toBinary(HostResponseSchema, create(HostResponseSchema, { body })));
}

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

void t.test('transfers between client and host', async (t) => {
  const { host, node, client, target } = await startPair(t);
  const data = randomBytes(SIZE);
  const internal: Error[] = [];
  const served = (handlers: Partial<ShardHandlers>): Promise<() => number> =>
    serve(host, (stream) =>
      serveShardStream(
        stream,
        'client',
        {
          store: async () => Promise.reject(new XcoreError('REFUSED')),
          retrieve: async () => Promise.reject(new XcoreError('REFUSED')),
          copy: async () => Promise.reject(new XcoreError('REFUSED')),
          list: async () => Promise.reject(new XcoreError('REFUSED')),
          prove: async () => Promise.reject(new XcoreError('REFUSED')),
          findDeletion: async () => Promise.reject(new XcoreError('REFUSED')),
          ...handlers,
        },
        (error) => internal.push(error),
      ),
    );

  void t.test('one stream carries any number of transfers, refused ones too', async (t) => {
    const received: Buffer[] = [];
    const streams = await served({
      async store(order, receive) {
        if (order?.body.length === 0) throw new XcoreError('HOST_FULL', 'no room');
        const parts: Buffer[] = [];
        for await (const part of receive(SIZE)) parts.push(Buffer.from(part));
        received.push(Buffer.concat(parts));
        return RECEIPT;
      },
      async retrieve(_order, firstLeaf) {
        if (firstLeaf > 100) throw new XcoreError('NOT_FOUND', 'no such shard');
        return { dataBytes: SIZE, proof: [Buffer.alloc(32, 7)], data: [data.subarray(0, 10), data.subarray(10)] };
      },
    });
    for (let n = 0; n < 3; n++) {
      const receipt = await client.store({ ...target, order: create(SignedSchema, { body: Buffer.alloc(9) }) }, data);
      t.ok(Buffer.from(receipt.body).equals(RECEIPT.body));
      await t.rejects(client.store({ ...target, order: create(SignedSchema) }, data), {
        code: 'HOST_FULL',
        message: 'no room',
      });
      const got = await client.retrieve(target, WHOLE, SIZE);
      t.ok(got.data.equals(data));
      t.equal(got.proof.length, 1);
      await t.rejects(client.retrieve(target, { firstLeaf: 101, leafCount: 1 }, 1), { code: 'NOT_FOUND' });
    }
    t.ok(received.length === 3 && received.every((bytes) => bytes.equals(data)));
    t.equal(streams(), 1);
  });

  void t.test('a host that has the shard gets no bytes', async (t) => {
    await served({ store: async () => RECEIPT });
    t.ok(await client.store(target, data));
    t.ok(await client.store(target, data));
  });

  void t.test('a host that refuses in the middle is heard, and the next transfer works', async (t) => {
    let times = 0;
    await served({
      async store(_order, receive) {
        times += 1;
        for await (const _part of receive(SIZE)) if (times === 1) throw new XcoreError('CORRUPT_SHARD', 'wrong bytes');
        return RECEIPT;
      },
    });
    await t.rejects(client.store(target, data), { code: 'CORRUPT_SHARD' });
    t.ok(await client.store(target, data));
  });

  void t.test("a handler's own error says nothing to the client", async (t) => {
    await served({ store: async () => Promise.reject(new Error('secret')) });
    const error: unknown = await client.store(target, data).catch((error: unknown) => error);
    t.match(error, { code: 'INTERNAL' });
    t.notMatch(String(error), /secret/);
    t.match(internal.at(-1), /secret/);
  });

  void t.test('what a host announces wrongly is CORRUPT_SHARD, what it sends out of turn PROTOCOL', async (t) => {
    const lies: [string, string, Buffer[]][] = [
      ['too short', 'CORRUPT_SHARD', [response({ case: 'retrieved', value: { dataBytes: SIZE - 1 } })]],
      ['too long', 'CORRUPT_SHARD', [response({ case: 'retrieved', value: { dataBytes: 2 ** 32 - 1 } })]],
      ['more bytes', 'PROTOCOL', [response({ case: 'retrieved', value: { dataBytes: 1 } }), Buffer.alloc(2)]],
      ['not a message', 'PROTOCOL', [Buffer.alloc(10, 0xff)]],
      ['another answer', 'PROTOCOL', [response({ case: 'ready', value: {} })]],
    ];
    for (const [name, code, frames] of lies) {
      await serve(host, async (stream) => {
        const out = new FrameStream(stream, SHARD_FRAME_BYTES);
        await out.read();
        for (const frame of frames) await out.write(frame);
      });
      await t.rejects(client.retrieve(target, WHOLE, name === 'more bytes' ? 1 : SIZE), { code }, name);
    }
    await serve(host, async (stream) => {
      stream.send(encodeFrame(Buffer.alloc(SHARD_FRAME_BYTES + 1)));
    });
    await t.rejects(client.retrieve(target, WHOLE, SIZE), { code: 'PROTOCOL' }, 'oversize frame');
    await serve(host, async (stream) => {
      const out = new FrameStream(stream, SHARD_FRAME_BYTES);
      await out.read();
      await out.write(response({ case: 'ready', value: {} }));
      await out.write(response({ case: 'stored', value: { receipt: RECEIPT } }));
    });
    await t.rejects(client.store(target, randomBytes(2_097_152)), { code: 'PROTOCOL' }, 'a receipt for nothing');
  });

  void t.test('a stream that ends early is UNREACHABLE, a cancelled one ABORTED', async (t) => {
    await serve(host, async (stream) => {
      const out = new FrameStream(stream, SHARD_FRAME_BYTES);
      await out.read();
      await out.write(response({ case: 'retrieved', value: { dataBytes: SIZE } }));
      await out.write(Buffer.alloc(1_000));
      await out.close();
    });
    await t.rejects(client.retrieve(target, WHOLE, SIZE), { code: 'UNREACHABLE' });
    const reached = Promise.withResolvers<void>();
    await serve(host, async (stream) => {
      await new FrameStream(stream, SHARD_FRAME_BYTES).read();
      reached.resolve();
    });
    const abort = new AbortController();
    const cancelled = client.retrieve(target, WHOLE, SIZE, { signal: abort.signal });
    const outcome = t.rejects(cancelled, { code: 'ABORTED' });
    await reached.promise;
    abort.abort();
    await outcome;
  });

  void t.test('kept streams that died are not used again', async (t) => {
    const streams = await served({ retrieve: async () => ({ dataBytes: 1, proof: [], data: [Buffer.alloc(1)] }) });
    await client.retrieve(target, WHOLE, 1);
    for (const connection of host.getConnections()) connection.abort(new Error('cut'));
    await client.retrieve(target, WHOLE, 1);
    t.equal(streams(), 2);
  });

  void t.test('who reads more slowly than frames are sent gets all of them: the sender waits', async (t) => {
    const { host, node } = await startPair(t);
    const payload = randomBytes(65_536);
    const frames = 16 * 24;
    const took = Promise.withResolvers<number>();
    await host.handle('/xcore/slow/1', async (stream) => {
      const incoming = new FrameStream(stream, payload.length);
      let read = 0;
      while (read < frames && (await incoming.read().catch(took.reject))) {
        read += 1;
        // Less than is sent meanwhile, and again and again.
        if (read % 37 === 0) await new Promise((resolve) => setTimeout(resolve, 100));
      }
      took.resolve(read);
      await incoming.close();
    });
    const outgoing = new FrameStream(await node.dialProtocol(host.getMultiaddrs(), '/xcore/slow/1'), payload.length);
    for (let i = 0; i < frames; i += 1) await outgoing.write(payload);
    t.equal(await took.promise, frames);
    await outgoing.close();
  });

  void t.test('a host without a usable address is UNREACHABLE', async (t) => {
    const nowhere = { ...target, host: (await createSilent(t)).peerId.toString(), addresses: ['junk'] };
    await t.rejects(client.retrieve(nowhere, WHOLE, 1), { code: 'UNREACHABLE' });
    await t.rejects(client.retrieve({ ...nowhere, addresses: ['/ip4/127.0.0.1/tcp/1'] }, WHOLE, 1), {
      code: 'UNREACHABLE',
    });
  });

  void t.test('a client that sends more than it was asked for, or nonsense, loses its stream', async (t) => {
    let stored = 0;
    const consumed = Promise.withResolvers<number>();
    await served({
      async store(_order, receive) {
        let bytes = 0;
        try {
          for await (const part of receive(1_000)) bytes += part.length;
        } catch (error) {
          consumed.resolve(bytes);
          throw error;
        }
        stored += 1;
        return RECEIPT;
      },
    });
    const request = toBinary(HostRequestSchema, create(HostRequestSchema, { body: { case: 'store', value: {} } }));
    const bad: Buffer[][] = [[Buffer.from(request), Buffer.alloc(1_001)], [Buffer.alloc(20, 0xff)], [Buffer.alloc(1)]];
    for (const frames of bad) {
      const stream = await node.dialProtocol(dialAddresses(target.host, target.addresses), SHARD_PROTOCOL);
      const ended = new Promise((resolve) => stream.addEventListener('end', resolve));
      const got = new FrameStream(stream, SHARD_FRAME_BYTES);
      for (const frame of frames) await got.write(frame);
      const answers: unknown[] = [];
      try {
        for (let frame = await got.read(); frame; frame = await got.read()) {
          answers.push(fromBinary(HostResponseSchema, frame).body.case);
        }
      } catch {
        // reset
      }
      await ended;
      t.notOk(answers.includes('stored'));
    }
    t.equal(await consumed.promise, 0);
    t.equal(stored, 0);
  });
});

async function createSilent(t: Test): Promise<Libp2p> {
  const silent = await createNode({ seed: randomBytes(32), listen: [] });
  t.teardown(() => silent.stop());
  return silent;
}

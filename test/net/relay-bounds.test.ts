// What a relay holds for peers that send fast, take slowly, or mean harm. Real nodes on loopback; both ends speak the
// relay's protocol by hand, so that nothing of ours holds them back.

import { createHash, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { lpStream } from '@libp2p/utils';
import t from 'tap';
import { DialGate } from '../../src/net/dial-gate.ts';
import { createNode } from '../../src/net/node.ts';
import { MAX_RELAY_HELD_BYTES } from '../../src/net/relay.ts';
import { until } from '../support/run.ts';

t.setTimeout(300_000);

const MIB = 1024 * 1024;
const HOP = '/libp2p/circuit/relay/0.2.0/hop';
const STOP = '/libp2p/circuit/relay/0.2.0/stop';
// https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md: HopMessage and StopMessage, first field the type.
const RESERVE = Buffer.from([0x08, 0]);
const STOP_OK = Buffer.from([0x08, 1, 0x20, 100]);

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes outside V8's heap that the process holds, all three nodes together: what is left once collecting frees no more. */
async function heldByProcess(): Promise<number> {
  for (let [held, before] = [Infinity, NaN]; ;) {
    collect();
    // buffers are given back beside the program, some time after their collection
    await new Promise((resolve) => setTimeout(resolve, 20));
    [before, held] = [held, process.memoryUsage().arrayBuffers];
    if (held >= before) return before;
  }
}

const gate = new DialGate();
gate.mayReserve = () => true;
const bridge = await createNode({
  seed: randomBytes(32),
  listen: ['/ip4/127.0.0.1/tcp/0'],
  gate,
  relays: true,
  relayBounds: { maxConnections: 2, maxBytes: 128 * MIB },
});
t.teardown(() => bridge.stop());

async function connected(): Promise<{ node: Libp2p; connection: Connection }> {
  const node = await createNode({ seed: randomBytes(32), listen: [] });
  t.teardown(() => node.stop());
  return { node, connection: await node.dial(bridge.getMultiaddrs()) };
}

const sender = await connected();
const receiver = await connected();
const arrived: ((stream: Stream) => void)[] = [];
await receiver.node.handle(STOP, async (stream) => {
  const messages = lpStream(stream);
  await messages.read();
  await messages.write(STOP_OK);
  arrived.shift()?.(messages.unwrap());
});
const place = lpStream(await receiver.connection.newStream(HOP));
await place.write(RESERVE);
await place.read();
/** Streams while nothing is relayed. */
const idle = relayedStreams().length;

/** A relayed connection as its two ends see it; rejects when the relay refuses. */
async function relayed(): Promise<{ from: Stream; to: Stream }> {
  const opened = Promise.withResolvers<Stream>();
  arrived.push(opened.resolve);
  const peer = receiver.node.peerId.toMultihash().bytes;
  const messages = lpStream(await sender.connection.newStream(HOP));
  await messages.write(Buffer.from([0x08, 1, 0x12, peer.length + 2, 0x0a, peer.length, ...peer]));
  const status = Buffer.from((await messages.read()).subarray());
  if (!status.includes(Buffer.from([0x28, 100]))) {
    arrived.splice(arrived.indexOf(opened.resolve), 1);
    throw new Error('the relay refuses');
  }
  return { from: messages.unwrap(), to: await opened.promise };
}

function relayedStreams(): Stream[] {
  const streams = bridge.getConnections().flatMap((connection) => connection.streams);
  return streams.filter(({ protocol }) => protocol === HOP || protocol === STOP);
}

/** Bytes that the bridge holds in its relayed streams. */
function heldByBridge(): number {
  return relayedStreams().reduce(
    (sum, { readBufferLength, writeBufferLength }) => sum + readBufferLength + writeBufferLength,
    0,
  );
}

/** Sends the same bytes so many times, as fast as they are taken. */
async function send(stream: Stream, piece: Uint8Array, times: number): Promise<void> {
  for (let sent = 0; sent < times; sent += 1) {
    if (stream.send(piece)) continue;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onClose = ({ error }: { error?: Error }): void => reject(error ?? new Error('closed'));
    stream.addEventListener('drain', () => resolve(), { once: true });
    stream.addEventListener('close', onClose, { once: true });
    await promise;
    stream.removeEventListener('close', onClose);
  }
}

/** Resolves when the other end has sent all; rejects when the stream breaks. */
function whenTaken(stream: Stream, onBytes: (bytes: Uint8Array) => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.addEventListener('message', ({ data }) => {
    for (const bytes of data instanceof Uint8Array ? [data] : data) onBytes(bytes);
  });
  // A stream that is reset ends first, and closes then.
  stream.addEventListener('end', () => stream.status !== 'reset' && resolve(), { once: true });
  stream.addEventListener('close', ({ error }) => error && reject(error), { once: true });
  return promise;
}

/** Waits until a stream that is sent to takes nothing more; gives how much was held then, in the bridge and in all. */
async function stuck(from: Stream): Promise<{ bridge: number; all: number }> {
  let before = -1;
  await until('nothing to move any more', () => {
    const held = heldByBridge();
    const isStuck = held > 0 && held === before && from.writableNeedsDrain;
    before = held;
    return isStuck;
  });
  return { bridge: heldByBridge(), all: await heldByProcess() };
}

const piece = randomBytes(64 * 1024);

function digestOf(times: number): string {
  const hash = createHash('sha256');
  for (let i = 0; i < times; i += 1) hash.update(piece);
  return hash.digest('hex');
}

await t.test('who floods a peer that takes nothing waits, and all of it arrives whole once it is taken', async (t) => {
  for (const direction of ['there', 'back']) {
    const ends = await relayed();
    const [from, to] = direction === 'there' ? [ends.from, ends.to] : [ends.to, ends.from];
    to.pause();
    const before = await heldByProcess();
    const times = 512;
    const sending = send(from, piece, times).then(() => from.close());
    const held = await stuck(from);
    t.ok(held.bridge <= MAX_RELAY_HELD_BYTES, `the bridge holds ${held.bridge} bytes on the way ${direction}`);
    t.ok(held.all - before < 3 * MAX_RELAY_HELD_BYTES, `all three hold ${held.all - before} bytes more`);

    const hash = createHash('sha256');
    const taken = whenTaken(to, (bytes) => hash.update(bytes));
    to.resume();
    await Promise.all([sending, taken]);
    t.equal(hash.digest('hex'), digestOf(times));
    await to.close();
    await until('the relay to let go', () => heldByBridge() === 0 && ends.from.status === 'closed');
  }
});

await t.test('of what has passed nothing is kept while a relayed connection lives', async (t) => {
  const { from, to } = await relayed();
  const before = await heldByProcess();
  let bytes = 0;
  const taken = whenTaken(to, (part) => (bytes += part.length));
  await send(from, piece, 1_024);
  await until('all to arrive', () => bytes === 1_024 * piece.length);
  const grown = (await heldByProcess()) - before;
  t.ok(grown < 32 * MIB, `${grown} bytes more are held`);
  await Promise.all([from.close(), to.close(), taken]);
});

await t.test('a relayed connection ends when it has carried what it may, and when either end does', async (t) => {
  const full = await relayed();
  const flood = whenTaken(full.to, () => {});
  const sending = send(full.from, piece, 4_096);
  await t.rejects(Promise.all([sending, flood]));

  const cut = await relayed();
  const gone = whenTaken(cut.to, () => {});
  cut.from.abort(new Error('away'));
  await t.rejects(gone);
});

await t.test('no more connections are relayed than the relay may have, and again as many once some end', async (t) => {
  await until('those of before to be over', () => relayedStreams().length <= idle);
  const [one, other] = await Promise.all([relayed(), relayed()]);
  await t.rejects(relayed());
  const gone = whenTaken(other.to, () => {});
  one.from.abort(new Error('away'));
  other.from.abort(new Error('away'));
  await t.rejects(gone);
  const again = await until('a place to be free', () => relayed().catch(() => false as const));
  again.from.abort(new Error('enough'));
});

// Who gets through the handshake and who does not: against libp2p's own TCP and TLS, and against peers
// that are made by hand and break one rule each.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Libp2p, PrivateKey, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { generateCertificate } from '@libp2p/tls/utils';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import t from 'tap';
import type { Test } from 'tap';
import { FrameStream } from '../../src/net/frames.ts';
import { addressesOf, createNode } from '../../src/net/node.ts';
import type { NodeOptions } from '../../src/net/node.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { FakeClock } from '../support/fake-clock.ts';

const LOOPBACK = '/ip4/127.0.0.1/tcp/0';
const ECHO = '/xcore/test/1';
const FRAME_BYTES = 256 * 1024;
const YEAR_MS = 365 * 24 * 3_600_000;
/** As in `libp2p.createLibp2p`; said by both sides before TLS begins. */
const GREETING = ['/multistream/1.0.0\n', '/tls/1.0.0\n']
  .map((text) => String.fromCharCode(text.length) + text)
  .join('');

/** Self-signed and valid from 2000 until 2126, but it says nothing of libp2p. */
const NO_EXTENSION = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/TX4xaK+Y/HO8a1l
3xqrWfb5DzFgbjsCFLa2rmnzqbKhRANCAATOmEqWiJAhlaXFSO3cPJ+7huhmtMwS
lxjg/n7tr4VayhovxC56DsIL5L1JuZT4k7avhClKEjoNmbHomHFPKYso
-----END PRIVATE KEY-----`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBLzCB1qADAgECAhQkCsESStsPxlfmf3nhlvgDRWYHXzAKBggqhkjOPQQDAjAA
MCAXDTAwMDEwMTAwMDAwMFoYDzIxMjYwMTAxMDAwMDAwWjAAMFkwEwYHKoZIzj0C
AQYIKoZIzj0DAQcDQgAEzphKloiQIZWlxUjt3Dyfu4boZrTMEpcY4P5+7a+FWsoa
L8Queg7CC+S9SbmU+JO2r4QpShI6DZmx6JhxTymLKKMsMCowHQYDVR0OBBYEFI2A
YNomCgFBnKpFfic1k4qfH9AKMAkGA1UdEwQCMAAwCgYIKoZIzj0EAwIDSAAwRQIg
VKUELQNx3s1OCUhrYsf9lgN3KNK0SdAJk5BimVjIX5QCIQDKwjGirkHhymB6DEOI
F5JgjrmKRYOLyyhzfV2BU1lU8w==
-----END CERTIFICATE-----`,
};

t.setTimeout(300_000);

async function startNode(t: Test, options: Partial<NodeOptions> = {}): Promise<Libp2p> {
  const node = await createNode({ seed: randomBytes(32), listen: [LOOPBACK], ...options });
  t.teardown(() => node.stop());
  await echo(node);
  return node;
}

/** libp2p as it comes. */
async function startStock(t: Test, encrypter: typeof tls | typeof noise): Promise<Libp2p> {
  const node = await createLibp2p({
    addresses: { listen: [LOOPBACK] },
    transports: [tcp()],
    connectionEncrypters: [encrypter()],
    streamMuxers: [yamux()],
  });
  t.teardown(() => node.stop());
  await echo(node);
  return node;
}

/** Answers frames with themselves and ends when the other side does. */
async function echo(node: Libp2p): Promise<void> {
  await node.handle(ECHO, async (stream: Stream) => {
    const frames = new FrameStream(stream, FRAME_BYTES);
    for (let frame = await frames.read(); frame; frame = await frames.read()) await frames.write(frame);
    await frames.close();
  });
}

async function converse(from: Libp2p, to: Libp2p): Promise<boolean> {
  const frames = new FrameStream(await from.dialProtocol(addressesOf(to).map(multiaddr), ECHO), FRAME_BYTES);
  const sent = Array.from({ length: 40 }, (_, n) => randomBytes(n % 2 === 0 ? FRAME_BYTES : 1 + n));
  const writing = (async () => {
    for (const frame of sent) await frames.write(frame);
    await frames.close();
  })();
  let same = true;
  for (const frame of sent) same &&= frame.equals((await frames.read()) ?? Buffer.alloc(0));
  await writing;
  return same && (await frames.read()) === null;
}

function portOf(node: Libp2p): number {
  return Number(addressesOf(node)[0]?.split('/')[4]);
}

function dialRaw(t: Test, node: Libp2p): Socket {
  const socket = connectTcp(portOf(node), '127.0.0.1');
  socket.on('error', () => {});
  t.teardown(() => socket.destroy());
  return socket;
}

/** What libp2p does before TLS. The one that answers speaks last, so that nothing else is there to read yet. */
async function greet(socket: Socket, answers = false): Promise<void> {
  if (!answers) socket.write(GREETING);
  let heard = '';
  while (heard.length < GREETING.length) heard += String((await once(socket, 'data'))[0]);
  if (answers) socket.write(GREETING);
}

/** Resolves when the node has ended the connection, by a reset or otherwise. */
async function ended(socket: Socket): Promise<void> {
  socket.resume();
  if (!socket.closed) await new Promise<void>((resolve) => socket.once('close', () => resolve()));
}

/** Runs a task while the clock says something else. */
async function atTime<T>(nowMs: number, task: () => Promise<T>): Promise<T> {
  const { now } = Date;
  Date.now = () => nowMs;
  try {
    return await task();
  } finally {
    Date.now = now;
  }
}

/** Certificates that no honest peer has, and what libp2p says of them. */
async function badCertificates(): Promise<[name: string, certificate: ConnectionOptions, message: RegExp][]> {
  const own = await generateKeyPair('Ed25519');
  const victim = await generateKeyPair('Ed25519');
  const impostor = Object.create(own, { publicKey: { value: victim.publicKey } }) as PrivateKey;
  const good = await generateCertificate(own);
  return [
    ['none', {}, /./],
    ['one that is not of libp2p', NO_EXTENSION, /did not include the libp2p public key extension/],
    ['an expired one', await atTime(Date.now() - 101 * YEAR_MS, () => generateCertificate(own)), /expired/],
    ['one from the future', await atTime(Date.now() + YEAR_MS, () => generateCertificate(own)), /not valid yet/],
    ["one with another's key", await generateCertificate(impostor), /Could not verify signature/],
    ['a good one, in TLS 1.2', { ...good, maxVersion: 'TLSv1.2' }, /./],
    ['a good one, for a protocol that nobody speaks', { ...good, ALPNProtocols: ['http/1.1'] }, /./],
  ];
}

void t.test('peers with the TLS and the Noise of libp2p are understood, both ways', async (t) => {
  for (const encrypter of [tls, noise]) {
    t.ok(await converse(await startNode(t), await startStock(t, encrypter)), `${encrypter.name}: to it`);
    t.ok(await converse(await startStock(t, encrypter), await startNode(t)), `${encrypter.name}: from it`);
  }
  const [first, second] = [await startNode(t), await startNode(t)];
  t.ok(await converse(first, second), 'and two of ours understand each other');
  t.equal(first.getConnections()[0]?.encryption, '/tls/1.0.0');
});

void t.test('a peer without a certificate of its own gets no connection', async (t) => {
  const node = await startNode(t);
  const opened: string[] = [];
  node.addEventListener('connection:open', ({ detail }) => opened.push(detail.remotePeer.toString()));
  for (const [name, certificate] of await badCertificates()) {
    const socket = dialRaw(t, node);
    await greet(socket);
    const secured = connectTls({
      socket,
      rejectUnauthorized: false,
      ALPNProtocols: ['/yamux/1.0.0', 'libp2p'],
      ...certificate,
    });
    secured.on('error', () => {});
    await ended(socket);
    t.same(opened, [], name);
  }
  const key = await generateKeyPair('Ed25519');
  const socket = dialRaw(t, node);
  await greet(socket);
  connectTls({
    socket,
    rejectUnauthorized: false,
    ALPNProtocols: ['/yamux/1.0.0'],
    ...(await generateCertificate(key)),
  });
  await once(node, 'connection:open').catch(() => {});
  t.same(opened, [key.publicKey.toString()], 'an honest peer made in the same way gets one');
});

void t.test('a host with another key than its name, or without one, is not talked to', async (t) => {
  const client = await startNode(t, { listen: [] });
  const address = addressesOf(await startNode(t))[0]?.split('/p2p/')[0] ?? '';
  await t.rejects(client.dial(multiaddr(`${address}/p2p/${peerNameOf(randomBytes(32))}`)), /Unexpected/, 'another key');
  for (const [name, certificate, message] of await badCertificates()) {
    const { key, cert, maxVersion, ALPNProtocols } = certificate;
    const server = createServer((socket) => {
      t.teardown(() => socket.destroy());
      socket.on('error', () => {});
      void greet(socket, true).then(() => {
        const options = { key, cert, maxVersion, ALPNProtocols, isServer: true, requestCert: true };
        new TLSSocket(socket, { ...options, rejectUnauthorized: false }).on('error', () => {});
      });
    });
    t.teardown(() => server.close());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await t.rejects(client.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}`)), message, name);
  }
  t.same(client.getConnections(), []);
});

void t.test('a sender is told of room now and then, not after each frame', async (t) => {
  const node = await startNode(t);
  const client = await startNode(t, { listen: [] });
  const connection = await client.dial(addressesOf(node).map(multiaddr));
  const frames = new FrameStream(await connection.newStream(ECHO), FRAME_BYTES);
  const { muxer } = connection as unknown as { muxer: { handleFrame(frame: { header: { type: number } }): void } };
  const handle = muxer.handleFrame.bind(muxer);
  let updates = 0;
  muxer.handleFrame = (frame) => {
    if (frame.header.type === 1) updates += 1;
    handle(frame);
  };
  const small = randomBytes(1024);
  for (let n = 0; n < 100; n++) {
    await frames.write(small);
    t.same(await frames.read(), small);
  }
  t.ok(updates <= 6, `${updates} for 100 frames`);
  const large = randomBytes(FRAME_BYTES);
  for (let n = 0; n < 8; n++) {
    await frames.write(large);
    t.ok(large.equals((await frames.read())!));
  }
  t.ok(updates > 1);
  await frames.close();
});

void t.test('a frame that is longer than any window ends the connection', async (t) => {
  const node = await startNode(t);
  const stock = await startStock(t, tls);
  const connection = await stock.dial(addressesOf(node).map(multiaddr));
  const kept = await startNode(t, { listen: [] });
  t.ok(await converse(kept, node));
  const closed = once(connection, 'close');
  // Below the muxer of libp2p, which would not do that.
  const muxer = (connection as unknown as { muxer: { send(bytes: Uint8Array): boolean } }).muxer;
  muxer.send(Buffer.from('0000000100000001', 'hex'));
  muxer.send(Buffer.from('40000000', 'hex'));
  await closed;
  t.same(node.getConnections(stock.peerId), []);
  t.ok(await converse(kept, node), 'and only that one');
});

void t.test('a connection on which nothing comes ends, one on which something comes does not', async (t) => {
  const clock = new FakeClock();
  const node = await startNode(t, { clock });
  const [quiet, busy] = [await startNode(t, { listen: [] }), await startNode(t, { listen: [] })];
  const gone = once(await quiet.dial(addressesOf(node).map(multiaddr)), 'close');
  const kept = await busy.dial(addressesOf(node).map(multiaddr));
  for (let look = 0; look < 8; look++) {
    t.ok(await converse(busy, node));
    clock.advance(15_000);
  }
  await gone;
  t.equal(kept.status, 'open');
  t.same(node.getConnections(quiet.peerId), []);
});

void t.test('garbage and handshakes that stall are ended, and others get through meanwhile', async (t) => {
  const node = await startNode(t, { handshakeTimeoutMs: 8_000, maxPendingConnections: 16 });
  const garbage = [randomBytes(4_000), Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.from('\x13/multistream/1.0.1\n')];
  const ends: Promise<void>[] = [];
  for (const bytes of garbage) {
    const socket = dialRaw(t, node);
    socket.write(bytes);
    ends.push(ended(socket));
  }
  const stalls: ((socket: Socket) => Promise<unknown>)[] = [
    async () => {},
    async (socket) => socket.write(GREETING.slice(0, 9)),
    async (socket) => greet(socket),
    async (socket) => {
      await greet(socket);
      socket.write(Buffer.from('1603010200010001fc0303', 'hex')); // the beginning of a ClientHello
    },
    async (socket) => {
      await greet(socket);
      socket.write(randomBytes(100)); // no TLS at all
    },
  ];
  for (const stall of stalls) {
    const socket = dialRaw(t, node);
    await once(socket, 'connect');
    await stall(socket);
    ends.push(ended(socket));
  }
  t.ok(await converse(await startNode(t, { listen: [] }), node));
  await Promise.all(ends);
  t.pass('all have ended');
  t.ok(await converse(await startNode(t, { listen: [] }), node));
});

void t.test('a peer whose clock is hours ahead or behind is talked to', async (t) => {
  const { now } = Date;
  t.teardown(() => (Date.now = now));
  for (const hours of [4, -4]) {
    Date.now = () => now() + hours * 3_600_000;
    const [early, late] = [await startNode(t), await startNode(t)];
    // Certificates are made for the first connection.
    await late.dial(early.getMultiaddrs());
    Date.now = now;
    const node = await startNode(t);
    t.equal((await node.dial(early.getMultiaddrs())).status, 'open', `${hours} h, dialled`);
    t.equal((await late.dial(node.getMultiaddrs())).status, 'open', `${hours} h, dialling`);
  }
});

void t.test('no more handshakes than allowed are under way', async (t) => {
  const node = await startNode(t, { handshakeTimeoutMs: 60_000, maxPendingConnections: 4 });
  const waiting = Array.from({ length: 4 }, () => dialRaw(t, node));
  for (const socket of waiting) await greet(socket);
  await ended(dialRaw(t, node));
  t.ok(waiting.every((socket) => !socket.closed));
  for (const socket of waiting) socket.destroy();
});

void t.test('what was sent before a connection is closed arrives', async (t) => {
  const received = Promise.withResolvers<number>();
  const server = await startNode(t);
  await server.handle('/xcore/test/2', async (stream: Stream) => {
    const frames = new FrameStream(stream, FRAME_BYTES);
    let bytes = 0;
    for (let frame = await frames.read().catch(() => null); frame; frame = await frames.read().catch(() => null)) {
      bytes += frame.length;
    }
    received.resolve(bytes);
  });
  const client = await startNode(t, { listen: [] });
  const connection = await client.dial(addressesOf(server).map(multiaddr));
  const frames = new FrameStream(await connection.newStream('/xcore/test/2'), FRAME_BYTES);
  for (let n = 0; n < 16; n++) await frames.write(randomBytes(FRAME_BYTES));
  await connection.close();
  t.equal(await received.promise, 16 * FRAME_BYTES);
});

void t.test('what is handed on stays whole while a part of it waits', async (t) => {
  const [end, relay, source] = [await startNode(t), await startNode(t), await startNode(t, { listen: [] })];
  const [slow, fast] = ['/xcore/test/slow', '/xcore/test/fast'];
  const came = new Map([slow, fast].map((name) => [name, Promise.withResolvers<Stream>()] as const));
  const got = new Map<string, Promise<string>>();
  for (const name of [slow, fast]) {
    await end.handle(name, (stream: Stream) => {
      // Read late, so that the relay has to wait with what it has of it.
      if (name === slow) stream.pause();
      got.set(name, hashOf(stream));
      came.get(name)!.resolve(stream);
    });
    await relay.handle(name, async (stream: Stream) => {
      const onward = await relay.dialProtocol(addressesOf(end).map(multiaddr), name);
      stream.addEventListener('message', ({ data }) => void onward.send(data));
      stream.addEventListener('end', () => void onward.close());
    });
  }
  const streams: Stream[] = [];
  for (const name of [slow, fast]) streams.push(await source.dialProtocol(addressesOf(relay).map(multiaddr), name));
  const expected = streams.map(() => createHash('sha256'));
  for (let n = 0; n < 1_000; n++) {
    for (const [index, stream] of streams.entries()) {
      const bytes = randomBytes(1_000);
      expected[index]!.update(bytes);
      stream.send(bytes);
    }
  }
  const closing = Promise.all(streams.map((stream) => stream.close()));
  const late = await came.get(slow)!.promise;
  await came.get(fast)!.promise;
  const [slowHash, fastHash] = expected.map((hash) => hash.digest('hex'));
  t.equal(await got.get(fast), fastHash);
  late.resume();
  t.equal(await got.get(slow), slowHash);
  await closing;
});

/** SHA-256, hex, of all that comes until the other side ends. */
function hashOf(stream: Stream): Promise<string> {
  const hash = createHash('sha256');
  stream.addEventListener('message', ({ data }) => {
    for (const part of data instanceof Uint8Array ? [data] : data) hash.update(part);
  });
  return new Promise((resolve, reject) => {
    stream.addEventListener('end', () => resolve(hash.digest('hex')), { once: true });
    stream.addEventListener('close', ({ error }) => error && reject(error), { once: true });
  });
}

// The libp2p node that every party runs: transports, encryption, identity and the limits of both.
// Knows no protocol of ours.

import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readFile, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { ping } from '@libp2p/ping';
import type { uPnPNAT as UPnPNAT } from '@libp2p/upnp-nat';
import { multiaddr } from '@multiformats/multiaddr';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { boundedYamux } from './bounded-yamux.ts';
import type { DialGate } from './dial-gate.ts';
import { toListenError } from './listen-error.ts';
import { nativeTls } from './native-tls.ts';
import type { PeerName } from './network.ts';
import { OwnAddresses } from './own-addresses.ts';
import { peerNameIn } from './peer-name.ts';
import { RELAY_WINDOW_BYTES, relayService } from './relay.ts';
import type { RelayTransport } from './relay.ts';
import type { RelayBounds } from './relay-server.ts';
import { tcp } from './tcp-transport.ts';
import type { PunchTransport } from './punch-transport.ts';

/** Connections of one node, both ways; more are refused. */
export const MAX_CONNECTIONS = 512;
/** Connections of one peer; the oldest is ended beyond. */
export const MAX_CONNECTIONS_PER_PEER = 4;
/** Connections that are still being encrypted; more are refused. */
export const MAX_PENDING_CONNECTIONS = 64;
/** New connections a second from one address; many nodes may share one machine or one NAT. */
export const MAX_NEW_CONNECTIONS_PER_SECOND = 50;
/** Streams of one connection that the other side may open, all protocols together. */
export const MAX_INBOUND_STREAMS = 64;
/** Streams of one connection that this side may open, all protocols together. */
export const MAX_OUTBOUND_STREAMS = 64;
/** Receive window of a stream: what a peer may have under way unread. It starts at yamux's 256 KiB; a relay has smaller ones. */
export const MAX_STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
/** Bytes that a stream holds for a slow reader before it is reset; a full window and its slack. */
export const MAX_READ_BUFFER_BYTES = MAX_STREAM_WINDOW_BYTES + 1024 * 1024;
/** Bytes that a stream holds for a slow peer before it is reset. */
export const MAX_WRITE_BUFFER_BYTES = 8 * 1024 * 1024;
/** Deadline of one dial, connection upgrade included. */
export const DIAL_TIMEOUT_MS = 5_000;
/** A connection from outside is authenticated and ready for streams after so long, or ended. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;

/** What the protocols use of a stream. */
export type ByteStream = Pick<
  Stream,
  | 'addEventListener'
  | 'removeEventListener'
  | 'status'
  | 'readableEnded'
  | 'writeBufferLength'
  | 'send'
  | 'pause'
  | 'resume'
  | 'close'
  | 'abort'
>;

/** What the parties use of a connection. */
export interface NodeConnection extends Pick<Connection, 'remotePeer' | 'remoteAddr' | 'status'> {
  newStream(
    protocol: string,
    options: { readonly signal: AbortSignal; readonly runOnLimitedConnection?: boolean },
  ): Promise<ByteStream>;
}

/** What the parties use of a node: all that they know of libp2p. */
export interface NetworkNode extends Pick<Libp2p, 'peerId' | 'getMultiaddrs' | 'stop'> {
  /** A stream of a protocol on the connection to a peer, which is dialled if there is none. */
  dialProtocol(
    addresses: Multiaddr[],
    protocol: string,
    options: { readonly signal: AbortSignal; readonly runOnLimitedConnection?: boolean },
  ): Promise<ByteStream>;
  getConnections(peer: Libp2p['peerId']): NodeConnection[];
  handle(
    protocol: string,
    serve: (stream: ByteStream, connection: NodeConnection) => void,
    options: { readonly maxInboundStreams: number; readonly runOnLimitedConnection?: boolean },
  ): Promise<void>;
}

/** What a node is made of. */
export interface NodeOptions {
  /** Ed25519 seed of its identity, 32 bytes. */
  readonly seed: Uint8Array;
  /** Multiaddrs to listen on; empty for a node that only dials. */
  readonly listen: readonly string[];
  readonly maxConnections?: number;
  /** What it may dial; everything unless there is one. */
  readonly gate?: DialGate;
  /** Whether it relays for those whom its gate lets in. */
  readonly relays?: boolean;
  /** Of what it relays. */
  readonly relayBounds?: RelayBounds;
  /** Dials through relays, and is dialled through them. */
  readonly relayed?: RelayTransport;
  /** Makes connections of another kind beside those that the node dials. */
  readonly punching?: PunchTransport;
  /** Whether to ask the router for an open port (UPnP). */
  readonly mapsPorts?: boolean;
  readonly maxInboundStreams?: number;
  readonly maxOutboundStreams?: number;
  readonly maxPendingConnections?: number;
  readonly handshakeTimeoutMs?: number;
  /** By which silence is measured; the machine's unless told. */
  readonly clock?: Clock;
}

/** Starts a libp2p node; the caller stops it. Errors as toListenError() where an address cannot be listened on. */
export async function createNode(options: NodeOptions): Promise<Libp2p> {
  checkSeed(options.seed);
  const maxInboundStreams = options.maxInboundStreams ?? MAX_INBOUND_STREAMS;
  const maxOutboundStreams = options.maxOutboundStreams ?? MAX_OUTBOUND_STREAMS;
  const own = new OwnAddresses();
  const node = await createLibp2p({
    privateKey: await generateKeyPairFromSeed('Ed25519', options.seed),
    addresses: { listen: [...options.listen], announceFilter: own.filter },
    nodeInfo: { name: 'xcore', version: '1' },
    transports: [tcp(), ...(options.relayed ? [options.relayed.factory] : [])],
    // In this order: TLS is done natively by Node and is the faster one.
    connectionEncrypters: [nativeTls(), noise()],
    streamMuxers: [
      boundedYamux(
        {
          maxInboundStreams,
          maxOutboundStreams,
          streamOptions: {
            maxStreamWindowSize: options.relays === true ? RELAY_WINDOW_BYTES : MAX_STREAM_WINDOW_BYTES,
            maxReadBufferLength: MAX_READ_BUFFER_BYTES,
            maxWriteBufferLength: MAX_WRITE_BUFFER_BYTES,
          },
        },
        MAX_STREAM_WINDOW_BYTES,
        options.clock,
      ),
    ],
    connectionManager: {
      maxConnections: options.maxConnections ?? MAX_CONNECTIONS,
      maxIncomingPendingConnections: options.maxPendingConnections ?? MAX_PENDING_CONNECTIONS,
      inboundUpgradeTimeout: options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
      inboundConnectionThreshold: MAX_NEW_CONNECTIONS_PER_SECOND,
      dialTimeout: DIAL_TIMEOUT_MS,
      addressDialTimeout: DIAL_TIMEOUT_MS,
      reconnectRetries: 0,
    },
    // It ends connections on which an answer waits behind shards; boundedYamux() ends those that are dead.
    connectionMonitor: { enabled: false },
    services: {
      identify: identify(),
      own: own.service,
      ping: ping(),
      ...(options.relays === true ? { relay: relayService(options.relayBounds) } : {}),
      ...(options.punching ? { punching: options.punching.service } : {}),
      // The bridge tries every address that it is told.
      ...(options.mapsPorts === true ? { ports: await portMapping() } : {}),
    },
    ...(options.gate ? { connectionGater: options.gate.gater } : {}),
  }).catch((error: unknown) => {
    throw toListenError(error);
  });
  node.addEventListener('connection:open', ({ detail: { remotePeer } }) => {
    const connections = node.getConnections(remotePeer);
    if (connections.length <= MAX_CONNECTIONS_PER_PEER) return;
    const [oldest] = connections.toSorted((a, b) => a.timeline.open - b.timeline.open);
    oldest?.abort(new XcoreError('REFUSED', 'too many connections'));
  });
  return node;
}

/** Asks a router for an open port, and has the node tell its address outside. Loaded only where it is used. */
async function portMapping(): Promise<ReturnType<typeof UPnPNAT>> {
  const { uPnPNAT } = await import('@libp2p/upnp-nat');
  return uPnPNAT({ autoConfirmAddress: true, portMappingDescription: 'xcore host' });
}

/** The multiaddrs on which a node can be dialled, each with its /p2p/ id. */
export function addressesOf(node: Pick<Libp2p, 'peerId' | 'getMultiaddrs'>): string[] {
  const suffix = `/p2p/${node.peerId.toString()}`;
  return node.getMultiaddrs().map((address) => {
    const text = address.toString();
    return text.includes('/p2p/') ? text : text + suffix;
  });
}

export { peerNameIn } from './peer-name.ts';

/** Multiaddrs to dial a peer, from addresses with or without its /p2p/ id; those of others are left out. */
export function dialAddresses(peer: PeerName, addresses: readonly string[]): Multiaddr[] {
  const result: Multiaddr[] = [];
  for (const address of addresses.slice(0, 16)) {
    if (!address || (address.startsWith('/p2p/') && !address.includes('/p2p-circuit/'))) continue;
    try {
      const full = address.includes('/p2p/') ? address : `${address}/p2p/${peer}`;
      if (peerNameIn(full) === peer) result.push(multiaddr(full));
    } catch {
      // A peer's word: an address that does not parse is one that cannot be dialled.
    }
  }
  return result;
}

/** The peer at a bridge's multiaddr; USAGE for one that cannot be dialled. */
export function bridgeAt(address: string): PeerName {
  const peer = peerNameIn(address);
  if (dialAddresses(peer, [address]).length === 0) throw new XcoreError('USAGE', `${address} is not a multiaddr`);
  return peer;
}

/** Loads an identity seed of 32 bytes, or makes one (mode 0600). UNSAFE_MODE when others can read it, BAD_FORMAT when it has another length. */
export async function loadOrCreateSeed(path: string): Promise<Buffer> {
  const existing = await readSeed(path);
  if (existing) return existing;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(randomBytes(32));
    await file.sync();
    await file.close();
    // link() never replaces: of two processes that start at once, one wins and both use its seed.
    await link(temporary, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  } finally {
    await file.close().catch(() => {});
    await unlink(temporary);
  }
  const seed = await readSeed(path);
  if (!seed) throw new XcoreError('EIO', `${path} vanished while it was being made`);
  return seed;
}

async function readSeed(path: string): Promise<Buffer | null> {
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0) {
      throw new XcoreError('UNSAFE_MODE', `${path} can be read by others; chmod 600 it`);
    }
    const seed = await readFile(path);
    if (seed.length !== 32) throw new XcoreError('BAD_FORMAT', `${path} is not a seed of 32 bytes`);
    return seed;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function checkSeed(seed: Uint8Array): void {
  if (seed.length !== 32) throw new RangeError('an identity seed has 32 bytes');
}

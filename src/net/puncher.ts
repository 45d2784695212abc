// Direct connections between two peers behind routers that open no port, made over a relayed one (/xcore/punch/1): each shows
// the other what the bridge sees of it, and both dial at once. Knows nothing of what the connection is for.

import { randomBytes as systemRandomBytes } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { peerIdFromString } from '@libp2p/peer-id';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { XcoreError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { announceable } from './address-scope.ts';
import { FailingHosts } from './failing-hosts.ts';
import { abortError, toNetworkError } from './failure.ts';
import { FrameStream } from './frames.ts';
import type { PeerName, Routes } from './network.ts';
import { bridgeAt, dialAddresses } from './node.ts';
import type { ByteStream, NetworkNode, NodeConnection } from './node.ts';
import { isRelayed } from './peer-name.ts';
import { BRIDGE_PROTOCOL, PUNCH_FRAME_BYTES, PUNCH_PROTOCOL, SHARD_PROTOCOL } from './protocols.ts';
import { PunchSchema } from './proto/wire_pb.ts';
import type { Punch, Signed } from './proto/wire_pb.ts';
import type { Doorway, PunchTransport } from './punch-transport.ts';
import { RpcClient } from './rpc.ts';
import { NONCE_BYTES, verifySighting } from './sightings.ts';

/** Tries that a node has begun and that are under way; each has a connection of its own to the bridge, which grants a peer few. */
export const MAX_PUNCHES_BEGUN = 1;
/** Tries that others have begun. */
export const MAX_PUNCHES_ANSWERED = 2;
/** From the first message to a connection. */
const PUNCH_TIMEOUT_MS = 15_000;
/** For both to dial. */
const MEET_TIMEOUT_MS = 5_000;
/** Between two tries with one peer, whoever begins them. */
const MIN_INTERVAL_MS = 10_000;
/** After a try in vain; twice as long after each more. */
const RETRY = { firstMs: 30_000, maxMs: 60 * 60_000 };
/** Peers of which the last try is remembered. */
const MAX_REMEMBERED = 256;
/** Between two looks at whether the relayed connection is still used. */
const LEAVE_POLL_MS = 5_000;

/** What a puncher works with. */
export interface PuncherComponents {
  readonly node: NetworkNode;
  readonly transport: PunchTransport;
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  readonly clock: Clock;
  readonly randomBytes?: RandomBytes | undefined;
}

/** Makes direct connections, from start() to stop(). */
export class Puncher {
  readonly #c: PuncherComponents;
  readonly #bridge: PeerName;
  readonly #randomBytes: RandomBytes;
  readonly #failing: FailingHosts;
  readonly #lastMs = new LRUCache<PeerName, number>({ max: MAX_REMEMBERED });
  readonly #begun = new Set<Promise<void>>();
  readonly #answered = new Set<Promise<void>>();
  readonly #leaving = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  #reason = '';

  /** USAGE for a bridge address without a peer id. */
  constructor(components: PuncherComponents) {
    this.#c = components;
    this.#bridge = bridgeAt(components.bridge);
    this.#randomBytes = components.randomBytes ?? systemRandomBytes;
    this.#failing = new FailingHosts(() => components.clock.monotonicMs(), RETRY);
  }

  /** Answers those who are connected through the relay. */
  async serve(): Promise<void> {
    const accept = (stream: ByteStream, connection: NodeConnection): void => {
      const peer = connection.remotePeer.toString();
      const frames = new FrameStream(stream, PUNCH_FRAME_BYTES, this.#c.clock);
      const isWelcome = isRelayed(connection.remoteAddr) && this.#answered.size < MAX_PUNCHES_ANSWERED;
      if (isWelcome && this.#mayTry(peer)) this.#try(peer, this.#answered, () => this.#answer(peer, frames));
      else frames.abort(new XcoreError('EAGAIN', 'not now'));
    };
    await this.#c.node.handle(PUNCH_PROTOCOL, accept, { maxInboundStreams: 1, runOnLimitedConnection: true });
  }

  /** Ends what is under way, and waits for it. */
  async stop(): Promise<void> {
    this.#stopping.abort(new XcoreError('CLOSED', 'stopped'));
    await Promise.all([...this.#begun, ...this.#answered, ...this.#leaving]);
  }

  /** Whether there is a connection to a peer that does not go through the relay. */
  isDirect(peer: PeerName): boolean {
    return this.#connectionsTo(peer).some(({ remoteAddr }) => !isRelayed(remoteAddr));
  }

  /** A relayed connection to this peer is in use: a direct one is tried for in the background, if it is time. */
  wish(peer: PeerName): void {
    if (this.#begun.size >= MAX_PUNCHES_BEGUN || this.#failing.avoids(peer) || !this.#mayTry(peer)) return;
    const relayed = this.#connectionsTo(peer).find(({ remoteAddr }) => isRelayed(remoteAddr));
    if (relayed && !this.isDirect(peer)) this.#try(peer, this.#begun, () => this.#open(peer, relayed));
  }

  /** A direct connection that was made here is given up: it may lead nowhere any more, and the relay goes on. */
  stalled(peer: PeerName): void {
    if (this.#c.transport.giveUp(peer)) this.#failing.failed(peer);
  }

  /** How the node's peers are connected to it. */
  get routes(): Routes {
    return { ...this.#c.transport.routesExcept(this.#bridge), reason: this.#reason };
  }

  #connectionsTo(peer: PeerName): NodeConnection[] {
    return this.#c.node.getConnections(peerIdFromString(peer)).filter(({ status }) => status === 'open');
  }

  #mayTry(peer: PeerName): boolean {
    if (this.#stopping.signal.aborted) return false;
    return this.#c.clock.monotonicMs() - (this.#lastMs.get(peer) ?? -Infinity) >= MIN_INTERVAL_MS;
  }

  #try(peer: PeerName, tries: Set<Promise<void>>, run: () => Promise<void>): void {
    this.#lastMs.set(peer, this.#c.clock.monotonicMs());
    const tried: Promise<void> = run()
      .then(
        () => {
          this.#failing.succeeded(peer);
          this.#reason = '';
        },
        (error: unknown) => {
          // Nothing is lost: the relay goes on.
          this.#failing.failed(peer);
          this.#reason = toNetworkError(error).message;
        },
      )
      .finally(() => tries.delete(tried));
    tries.add(tried);
  }

  /** The side that has opened the relayed connection calls in the direct one, too. */
  async #open(peer: PeerName, relayed: NodeConnection): Promise<void> {
    const { clock } = this.#c;
    const signal = deadline(clock, PUNCH_TIMEOUT_MS, this.#stopping.signal);
    const stream = await relayed.newStream(PUNCH_PROTOCOL, { signal, runOnLimitedConnection: true });
    const talk = new Talk(new FrameStream(stream, PUNCH_FRAME_BYTES, clock), signal);
    try {
      const nonce = this.#randomBytes(NONCE_BYTES);
      const beganMs = clock.monotonicMs();
      await talk.send({ nonce });
      const asked = await talk.receive();
      const halfTripMs = (clock.monotonicMs() - beganMs) / 2;
      await this.#through(asked.nonce, signal, async (doorway, own, ownAddress) => {
        await talk.send({ sighting: own });
        const address = this.#addressOf(peer, nonce, await talk.receive(), ownAddress);
        await talk.send({ dial: true });
        await clock.sleep(halfTripMs, signal);
        await this.#meet(doorway, address, peer, 'outbound', signal);
      });
    } finally {
      talk.end();
    }
    const left: Promise<void> = this.#leaveRelay(peer).finally(() => this.#leaving.delete(left));
    this.#leaving.add(left);
  }

  async #answer(peer: PeerName, frames: FrameStream): Promise<void> {
    const { clock } = this.#c;
    const signal = deadline(clock, PUNCH_TIMEOUT_MS, this.#stopping.signal);
    const talk = new Talk(frames, signal);
    try {
      const nonce = this.#randomBytes(NONCE_BYTES);
      const asked = await talk.receive();
      await talk.send({ nonce });
      await this.#through(asked.nonce, signal, async (doorway, own, ownAddress) => {
        await talk.send({ sighting: own });
        const address = this.#addressOf(peer, nonce, await talk.receive(), ownAddress);
        const { dial } = await talk.receive();
        if (!dial) throw new XcoreError('PROTOCOL', 'a message out of turn');
        await this.#meet(doorway, address, peer, 'inbound', signal);
      });
    } finally {
      talk.end();
    }
  }

  async #meet(...[doorway, address, peer, direction, signal]: Parameters<PunchTransport['meet']>): Promise<void> {
    const { clock, transport } = this.#c;
    try {
      await transport.meet(doorway, address, peer, direction, deadline(clock, MEET_TIMEOUT_MS, signal));
    } catch (error) {
      const message = `the routers let nothing through at ${address}`;
      throw new XcoreError('UNREACHABLE', message, { cause: error });
    }
  }

  /** Has the bridge say, to whoever made the nonce, from where a connection of this node comes, and keeps that open for the task. */
  async #through(
    nonce: Uint8Array,
    signal: AbortSignal,
    task: (doorway: Doorway, own: Signed, ownAddress: string) => Promise<void>,
  ): Promise<void> {
    const { node, transport, clock, bridge } = this.#c;
    const [address] = dialAddresses(this.#bridge, [bridge]);
    const doorway = await transport.openDoorway(address!, signal);
    try {
      const rpc = new RpcClient(await doorway.connection.newStream(BRIDGE_PROTOCOL, { signal }), () => {}, { clock });
      try {
        const own = await rpc.call({ case: 'sight', value: { nonce } }, 'sighting', { signal });
        const peer = node.peerId.toString();
        await task(doorway, own, verifySighting(own, { bridge: this.#bridge, peer, nonce }));
      } finally {
        await rpc.close();
      }
    } finally {
      doorway.close();
    }
  }

  /** Where to dial a peer: where the bridge sees it, and nowhere that reaches less far than where it sees this node. */
  #addressOf(peer: PeerName, nonce: Uint8Array, { sighting }: Punch, ownAddress: string): string {
    const address = verifySighting(sighting, { bridge: this.#bridge, peer, nonce });
    if (announceable([address], ownAddress).length === 0) {
      throw new XcoreError('REFUSED', 'the peer is inside a network of the bridge');
    }
    return address;
  }

  /** Ends the relayed connection once nothing uses it any more. */
  async #leaveRelay(peer: PeerName): Promise<void> {
    const { clock, transport } = this.#c;
    const { signal } = this.#stopping;
    while (!signal.aborted && this.isDirect(peer)) {
      if (await transport.leaveRelay(peer, SHARD_PROTOCOL)) return;
      await clock.sleep(LEAVE_POLL_MS, signal).catch(() => {});
    }
  }
}

/** The messages of one try, which ends with its signal. */
class Talk {
  readonly #frames: FrameStream;
  readonly #signal: AbortSignal;
  readonly #onAbort = (): void => this.#frames.abort(abortError(this.#signal));

  constructor(frames: FrameStream, signal: AbortSignal) {
    this.#frames = frames;
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
    if (signal.aborted) this.#onAbort();
  }

  async send(message: MessageInitShape<typeof PunchSchema>): Promise<void> {
    await this.#frames.write(toBinary(PunchSchema, create(PunchSchema, message)));
  }

  async receive(): Promise<Punch> {
    const frame = await this.#frames.read();
    if (!frame) throw new XcoreError('UNREACHABLE', 'the peer gave up');
    try {
      return fromBinary(PunchSchema, frame);
    } catch (error) {
      throw new XcoreError('PROTOCOL', 'malformed message', { cause: error });
    }
  }

  end(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#frames.abort(toNetworkError(new XcoreError('CLOSED', 'the try is over')));
  }
}

// Connections beside libp2p's own dialling: from a port of its own to the bridge, and from the same port to a peer that dials
// at the same moment, so that the routers of both take the other's packets for answers. Knows not how two peers agree on that.

import { lookup } from 'node:dns/promises';
import { isIPv6 } from 'node:net';
import type { ComponentLogger, Connection, PeerId, Upgrader } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { getNetConfig } from '@libp2p/utils';
import { multiaddr } from '@multiformats/multiaddr';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { PeerName, Routes } from './network.ts';
import { isRelayed } from './peer-name.ts';
import { TcpConnection } from './tcp-connection.ts';
import { openSocket } from './tcp-transport.ts';

/** A router that answers before its own side has dialled refuses; the next try comes so much later, and up to as much again. */
const REFUSED_PAUSE_MS = 50;

/** What libp2p hands in. */
interface Components {
  readonly upgrader: Upgrader;
  readonly logger: ComponentLogger;
  readonly connectionManager: { getConnections(peer?: PeerId): Connection[] };
}

/** A connection to the bridge that holds a port, and the router's mapping of it, until it is closed. */
export interface Doorway {
  readonly connection: Pick<Connection, 'newStream'>;
  /** On which other sockets can be bound to its port: the unspecified one of its family. */
  readonly localAddress: string;
  readonly localPort: number;
  readonly close: () => void;
}

/** Makes such connections for one node. */
export class PunchTransport {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #punched = new Set<Connection>();
  #components: Components | null = null;

  constructor({ clock, random = Math.random }: { readonly clock: Clock; readonly random?: () => number }) {
    this.#clock = clock;
    this.#random = random;
  }

  /** As a service of the node. */
  readonly service = (components: Components): object => {
    this.#components = components;
    return this;
  };

  /** Connects to the bridge once more, from a free port to which others can be bound meanwhile. */
  async openDoorway(bridge: Multiaddr, signal: AbortSignal): Promise<Doorway> {
    const { upgrader, logger } = this.#running();
    const { host, port, type } = getNetConfig(bridge);
    const family = type === 'ip6' || type === 'dns6' ? 6 : type === 'ip4' || type === 'dns4' ? 4 : 0;
    const { address } = await lookup(host, { family });
    const localAddress = isIPv6(address) ? '::' : '0.0.0.0';
    // A socket that is bound before it connects shares its port with others of the kind (SO_REUSEADDR).
    const socket = await openSocket({ host: address, port: port ?? 0, localAddress }, signal);
    const localPort = socket.localPort ?? 0;
    const log = logger.forComponent('xcore:punch');
    const raw = new TcpConnection({ socket, direction: 'outbound', remoteAddr: bridge, log });
    try {
      const connection = await upgrader.upgradeOutbound(raw, { signal });
      // Closing would wait for the other side.
      const close = (): void => connection.abort(new XcoreError('CLOSED', 'the doorway is not needed any more'));
      return { connection, localAddress, localPort, close };
    } catch (error) {
      raw.abort(asError(error));
      throw error;
    }
  }

  /**
   * Dials a peer at a multiaddr without /p2p/ from a doorway's port, again and again while it is refused, and makes a
   * connection of it, in which one of the two calls: there is no other side that has accepted. Rejects when the signal
   * aborts, and when another peer answers.
   */
  async meet(
    { localAddress, localPort }: Doorway,
    address: string,
    peer: PeerName,
    direction: 'outbound' | 'inbound',
    signal: AbortSignal,
  ): Promise<void> {
    const { upgrader, logger, connectionManager } = this.#running();
    const remoteAddr = multiaddr(`${address}/p2p/${peer}`);
    const { host, port } = getNetConfig(remoteAddr);
    if (isIPv6(host) !== isIPv6(localAddress)) throw new XcoreError('UNREACHABLE', 'one has IPv4 and the other IPv6');
    const socket = await this.#dial({ host, port: port ?? 0, localAddress, localPort }, signal);
    const raw = new TcpConnection({ socket, direction, remoteAddr, log: logger.forComponent('xcore:punch') });
    try {
      if (direction === 'outbound') await upgrader.upgradeOutbound(raw, { signal });
      else await upgrader.upgradeInbound(raw, { signal });
    } catch (error) {
      raw.abort(asError(error));
      throw error;
    }
    for (const connection of connectionManager.getConnections(peerIdFromString(peer))) {
      if (!connection.remoteAddr.equals(remoteAddr)) continue;
      this.#punched.add(connection);
      connection.addEventListener('close', () => this.#punched.delete(connection), { once: true });
    }
  }

  /** Ends at once the connections to a peer that meet() made; false if there were none. */
  giveUp(peer: PeerName): boolean {
    const made = [...this.#punched].filter(({ remotePeer }) => remotePeer.toString() === peer);
    for (const connection of made)
      connection.abort(new XcoreError('TIMEOUT', 'nothing moves on the direct connection'));
    return made.length > 0;
  }

  /** Ends the relayed connections to a peer on which no stream of a protocol is left; false while there are others. */
  async leaveRelay(peer: PeerName, protocol: string): Promise<boolean> {
    const relayed = this.#running()
      .connectionManager.getConnections(peerIdFromString(peer))
      .filter(({ remoteAddr }) => isRelayed(remoteAddr));
    const idle = relayed.filter(({ streams }) => streams.every((stream) => stream.protocol !== protocol));
    await Promise.all(idle.map((connection) => connection.close().catch((error) => connection.abort(asError(error)))));
    return idle.length === relayed.length;
  }

  /** How the peers of the node are connected to it. */
  routesExcept(bridge: PeerName): Omit<Routes, 'reason'> {
    const best = new Map<PeerName, 'direct' | 'punched' | 'relayed'>();
    for (const connection of this.#components?.connectionManager.getConnections() ?? []) {
      const peer = connection.remotePeer.toString();
      if (peer === bridge || connection.status !== 'open') continue;
      if (this.#punched.has(connection)) best.set(peer, 'punched');
      else if (!isRelayed(connection.remoteAddr)) best.set(peer, 'direct');
      else if (!best.has(peer)) best.set(peer, 'relayed');
    }
    const routes = { direct: 0, punched: 0, relayed: 0 };
    for (const route of best.values()) routes[route] += 1;
    return routes;
  }

  async #dial(
    to: { host: string; port: number; localAddress: string; localPort: number },
    signal: AbortSignal,
  ): ReturnType<typeof openSocket> {
    for (;;) {
      try {
        return await openSocket(to, signal);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (signal.aborted || (code !== 'ECONNREFUSED' && code !== 'ECONNRESET')) throw error;
      }
      await this.#clock.sleep(REFUSED_PAUSE_MS * (1 + this.#random()), signal);
    }
  }

  #running(): Components {
    if (!this.#components) throw new TypeError('it is not part of a node yet');
    return this.#components;
  }
}

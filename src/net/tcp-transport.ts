// libp2p's TCP transport, as far as peers of ours need it: dials and listens on /ip4|ip6|dns…/tcp/…,
// and makes TcpConnections, on which TLS can work natively.

import { connect, createServer } from 'node:net';
import type { Server, Socket, TcpSocketConnectOpts } from 'node:net';
import { AbortError, serviceCapabilities, transportSymbol, TypedEventEmitter } from '@libp2p/interface';
import type {
  ComponentLogger,
  Connection,
  CreateListenerOptions,
  DialTransportOptions,
  Listener,
  ListenerEvents,
  Transport,
  Upgrader,
} from '@libp2p/interface';
import { getNetConfig, getThinWaistAddresses, ipPortToMultiaddr } from '@libp2p/utils';
import type { Multiaddr } from '@multiformats/multiaddr';
import { asError } from '../lib/errors.ts';
import { TcpConnection } from './tcp-connection.ts';

const SOCKET_OPTIONS = { noDelay: true, keepAlive: true, allowHalfOpen: false };
const HOST_NAMES: ReadonlySet<string> = new Set(['ip4', 'ip6', 'dns', 'dns4', 'dns6']);

/** What libp2p hands in. */
export interface TcpComponents {
  readonly logger: ComponentLogger;
}

/** The transport, for createLibp2p(). */
export function tcp(): (components: TcpComponents) => Transport {
  return (components) => new TcpTransport(components);
}

class TcpTransport implements Transport {
  readonly [transportSymbol] = true;
  readonly [Symbol.toStringTag] = 'xcore/tcp';
  readonly [serviceCapabilities] = ['@libp2p/transport'];
  readonly #logger: ComponentLogger;

  constructor({ logger }: TcpComponents) {
    this.#logger = logger;
  }

  async dial(address: Multiaddr, options: DialTransportOptions): Promise<Connection> {
    const connection = new TcpConnection({
      socket: await open(address, options.signal),
      direction: 'outbound',
      remoteAddr: address,
      log: this.#logger.forComponent('xcore:tcp:outbound'),
    });
    try {
      return await options.upgrader.upgradeOutbound(connection, options);
    } catch (error) {
      connection.abort(asError(error));
      throw error;
    }
  }

  createListener(options: CreateListenerOptions): Listener {
    return new TcpListener(this.#logger, options.upgrader);
  }

  listenFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses.filter(isTcp);
  }

  dialFilter(addresses: Multiaddr[]): Multiaddr[] {
    return addresses.filter(isTcp);
  }
}

class TcpListener extends TypedEventEmitter<ListenerEvents> implements Listener {
  readonly #logger: ComponentLogger;
  readonly #upgrader: Upgrader;
  readonly #server: Server;
  readonly #stopping = new AbortController();
  /** Connections and handshakes; the upgrader bounds both. */
  readonly #sockets = new Set<Socket>();
  #address: Multiaddr | null = null;

  constructor(logger: ComponentLogger, upgrader: Upgrader) {
    super();
    this.#logger = logger;
    this.#upgrader = upgrader;
    this.#server = createServer(SOCKET_OPTIONS, (socket) => void this.#accept(socket))
      .on('listening', () => this.safeDispatchEvent('listening'))
      .on('error', (error) => this.safeDispatchEvent('error', { detail: error }))
      .on('close', () => this.safeDispatchEvent('close'));
  }

  async listen(address: Multiaddr): Promise<void> {
    const { host, port, type } = getNetConfig(address);
    const listening = Promise.withResolvers<void>();
    this.#server.once('error', listening.reject);
    this.#server.listen({ host, port, ipv6Only: type === 'ip6' }, listening.resolve);
    try {
      await listening.promise;
      this.#address = address;
    } finally {
      this.#server.off('error', listening.reject);
    }
  }

  getAddrs(): Multiaddr[] {
    const bound = this.#server.address();
    if (!this.#address || !bound || typeof bound === 'string') return [];
    return getThinWaistAddresses(this.#address, bound.port);
  }

  updateAnnounceAddrs(): void {}

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#stopping.abort(new AbortError('the node stops'));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Never rejects. */
  async #accept(socket: Socket): Promise<void> {
    const { remoteAddress, remotePort } = socket;
    if (remoteAddress === undefined || remotePort === undefined) {
      socket.destroy(); // gone already
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const connection = new TcpConnection({
      socket,
      direction: 'inbound',
      remoteAddr: ipPortToMultiaddr(remoteAddress, remotePort),
      localAddr: this.#address ?? undefined,
      log: this.#logger.forComponent('xcore:tcp:inbound'),
    });
    try {
      await this.#upgrader.upgradeInbound(connection, { signal: this.#stopping.signal });
    } catch (error) {
      connection.abort(asError(error));
    }
  }
}

/** Whether it is host, port and perhaps a peer id, and nothing on top. */
function isTcp(address: Multiaddr): boolean {
  const [host, port, ...rest] = address.getComponents().map(({ name }) => name);
  return HOST_NAMES.has(host ?? '') && port === 'tcp' && rest.every((name) => name === 'p2p') && rest.length <= 1;
}

async function open(address: Multiaddr, signal: AbortSignal): Promise<Socket> {
  const { host, port } = getNetConfig(address);
  return openSocket({ host, port: port ?? 0 }, signal);
}

/** A connected TCP socket; a local address, and perhaps a port, say where it comes from. Rejects with what the system says. */
export async function openSocket(
  to: Pick<TcpSocketConnectOpts, 'host' | 'port' | 'localAddress' | 'localPort'>,
  signal: AbortSignal,
): Promise<Socket> {
  signal.throwIfAborted();
  const socket = connect({ ...to, ...SOCKET_OPTIONS });
  const connected = Promise.withResolvers<void>();
  const onAbort = (): void => connected.reject(new AbortError('the dial was given up'));
  socket.once('error', connected.reject);
  socket.once('connect', connected.resolve);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await connected.promise;
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    socket.off('error', connected.reject);
    socket.off('connect', connected.resolve);
    signal.removeEventListener('abort', onAbort);
  }
}

// libp2p's TLS 1.3 (https://github.com/libp2p/specs/blob/master/tls/tls.md) by Node's own TLS on the
// socket. Certificates are made and checked by @libp2p/tls; what is on the wire is the same.

import { createSecureContext } from 'node:tls';
import type { SecureContext, TLSSocketOptions } from 'node:tls';
import { InvalidCryptoExchangeError } from '@libp2p/interface';
import type {
  ComponentLogger,
  ConnectionEncrypter,
  MessageStream,
  PrivateKey,
  SecureConnectionOptions,
  SecuredConnection,
  Upgrader,
} from '@libp2p/interface';
import { PROTOCOL, tls } from '@libp2p/tls';
import { generateCertificate, verifyPeerCertificate } from '@libp2p/tls/utils';
import { TcpConnection } from './tcp-connection.ts';

/** Stands for no early choice of a muxer in ALPN. */
const NO_MUXER = 'libp2p';

/** What libp2p hands in. */
export interface NativeTlsComponents {
  readonly privateKey: PrivateKey;
  readonly upgrader: Upgrader;
  readonly logger: ComponentLogger;
}

/** A connection encrypter; on connections that are not TcpConnections, those over a relay, @libp2p/tls does the same. */
export function nativeTls(): (components: NativeTlsComponents) => ConnectionEncrypter {
  return (components) => new NativeTls(components);
}

/** @libp2p/tls makes a certificate good from an hour before it is made, and every peer checks that by its own clock. */
const BACKDATED_MS = 24 * 60 * 60_000;

/** Begins something at an earlier time; only what it does before its first await sees that. */
function backdated<T>(begin: () => Promise<T>): Promise<T> {
  const { now } = Date;
  Date.now = () => now() - BACKDATED_MS;
  try {
    return begin();
  } finally {
    Date.now = now;
  }
}

class NativeTls implements ConnectionEncrypter {
  readonly protocol = PROTOCOL;
  readonly #components: NativeTlsComponents;
  readonly #other: ConnectionEncrypter;
  /** One certificate for the life of the node. */
  #context: Promise<SecureContext> | null = null;

  constructor(components: NativeTlsComponents) {
    this.#components = components;
    this.#other = tls()(components);
  }

  async secureInbound(stream: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    if (stream instanceof TcpConnection) return this.#secure(stream, options);
    return backdated(() => this.#other.secureInbound(stream, options));
  }

  async secureOutbound(stream: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    if (stream instanceof TcpConnection) return this.#secure(stream, options);
    return backdated(() => this.#other.secureOutbound(stream, options));
  }

  async #secure(stream: TcpConnection, options: SecureConnectionOptions = {}): Promise<SecuredConnection> {
    const muxers = this.#components.upgrader.getStreamMuxers();
    const protocols = options.skipStreamMuxerNegotiation ? [NO_MUXER] : [...muxers.keys(), NO_MUXER];
    const socket = await stream.startTls(await this.#options(protocols), options.signal);
    try {
      // A resumed session shows no certificate.
      if (socket.isSessionReused()) throw new InvalidCryptoExchangeError('a session is never resumed');
      const certificate: { raw?: Uint8Array } = socket.getPeerCertificate();
      if (!certificate.raw) throw new InvalidCryptoExchangeError('the peer shows no certificate');
      const remotePeer = await verifyPeerCertificate(certificate.raw, options.remotePeer, stream.log);
      options.signal?.throwIfAborted();
      const chosen = socket.alpnProtocol;
      const streamMuxer = typeof chosen === 'string' && chosen !== NO_MUXER ? muxers.get(chosen) : undefined;
      stream.useTls();
      return { connection: stream, remotePeer, streamMuxer };
    } catch (error) {
      stream.abort(error as Error);
      throw error;
    }
  }

  async #options(protocols: string[]): Promise<TLSSocketOptions> {
    this.#context ??= this.#makeContext();
    return {
      secureContext: await this.#context,
      requestCert: true,
      // Certificates are self-signed; verifyPeerCertificate() checks what they say.
      rejectUnauthorized: false,
      ALPNProtocols: protocols,
      ALPNCallback: ({ protocols: offered }) => offered.find((protocol) => protocols.includes(protocol)),
    };
  }

  async #makeContext(): Promise<SecureContext> {
    const { cert, key } = await backdated(() => generateCertificate(this.#components.privateKey));
    return createSecureContext({ cert, key, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' });
  }
}

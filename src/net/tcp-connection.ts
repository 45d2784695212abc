// One TCP connection as libp2p sees it, which can turn itself into a TLS connection: Node's TLS then
// works on the socket itself, without a stream of ours in between. Checks no certificate.

import type { Socket } from 'node:net';
import { connect, TLSSocket } from 'node:tls';
import type { TLSSocketOptions } from 'node:tls';
import { AbortError, TimeoutError } from '@libp2p/interface';
import type { AbortOptions } from '@libp2p/interface';
import { AbstractMultiaddrConnection } from '@libp2p/utils';
import type { AbstractMultiaddrConnectionInit, SendResult } from '@libp2p/utils';
import { asError } from '../lib/errors.ts';
import { freeSent, isEndToSend, markReceived } from '../lib/free-buffer.ts';

/** A connection on which nothing moved for so long is ended. */
export const IDLE_CONNECTION_MS = 2 * 60_000;
/** Bytes given to TLS and not yet sent, beyond which streams wait. */
export const MAX_UNSENT_TLS_BYTES = 512 * 1024;

/** What a connection is made of. */
export interface TcpConnectionInit extends Pick<
  AbstractMultiaddrConnectionInit,
  'direction' | 'remoteAddr' | 'localAddr' | 'log'
> {
  /** Connected, and nobody else's. */
  readonly socket: Socket;
}

/** A connected socket; plain until startTls(). */
export class TcpConnection extends AbstractMultiaddrConnection {
  /** The TCP socket itself, for as long as the connection lives. */
  readonly #raw: Socket;
  /** What bytes go through: the TCP socket, later TLS. */
  #socket: Socket;
  readonly #onBytes = (bytes: Uint8Array): void => this.onData(bytes);
  /** What TLS has decrypted belongs to whoever reads it. */
  readonly #onPlainBytes = (bytes: Uint8Array): void => {
    markReceived(bytes);
    this.onData(bytes);
  };
  readonly #onDrain = (): void => void this.safeDispatchEvent('drain');
  readonly #onEnd = (): void => this.onTransportClosed();
  readonly #onError = (error: Error): void => this.abort(error);

  constructor({ socket, ...init }: TcpConnectionInit) {
    super(init);
    this.#raw = socket;
    this.#socket = socket;
    socket.setTimeout(IDLE_CONNECTION_MS, () => this.abort(new TimeoutError('the connection was idle')));
    socket.on('error', this.#onError);
    socket.once('close', this.#onEnd);
    this.#use(socket, this.#onBytes);
  }

  /**
   * Starts TLS, with what was received and not yet read as its first bytes. Resolves after the handshake, with nothing
   * read: the caller checks the peer, then calls useTls(). Whatever fails, and an abort of `signal`, ends the connection.
   */
  async startTls(options: TLSSocketOptions, signal?: AbortSignal): Promise<TLSSocket> {
    if (this.#socket !== this.#raw) throw new TypeError('TLS has been started');
    const onAbort = (): void => this.abort(new AbortError('the handshake took too long'));
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await this.#shakeHands({ ...options, highWaterMark: MAX_UNSENT_TLS_BYTES });
    } catch (error) {
      this.abort(asError(error));
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** From now on, bytes go through TLS. */
  useTls(): void {
    if (this.#socket === this.#raw) throw new TypeError('TLS has not been started');
    this.#use(this.#socket, this.#onPlainBytes);
  }

  override sendData(data: Iterable<Uint8Array> & { readonly byteLength: number }): SendResult {
    const sentBytes = data.byteLength;
    // A header and what follows it leave together.
    this.#socket.cork();
    let canSendMore = true;
    for (const part of data) canSendMore = this.#socket.write(part, freeAfter(part));
    this.#socket.uncork();
    return { sentBytes, canSendMore };
  }

  override async sendClose(options?: AbortOptions): Promise<void> {
    if (this.#raw.destroyed) return;
    const closed = Promise.withResolvers<void>();
    const onAbort = (): void => closed.reject(new AbortError('the connection did not close in time'));
    this.#raw.once('close', closed.resolve);
    options?.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      this.#socket.destroySoon();
      await closed.promise;
    } finally {
      this.#raw.off('close', closed.resolve);
      options?.signal?.removeEventListener('abort', onAbort);
    }
  }

  override sendReset(): void {
    // TLS holds on to the TCP handle, which must not be reset or closed under it; a half-closed one cannot be reset, and
    // a reset would wait for what is still to be sent.
    if (this.#socket !== this.#raw || this.#raw.writableEnded || this.#raw.writableLength > 0) this.#socket.destroy();
    else this.#raw.resetAndDestroy();
  }

  override sendPause(): void {
    this.#socket.pause();
  }

  override sendResume(): void {
    this.#socket.resume();
  }

  async #shakeHands(options: TLSSocketOptions & { highWaterMark: number }): Promise<TLSSocket> {
    this.#release();
    // What is still on its way out goes before the handshake.
    if (this.#raw.writableLength > 0) await new Promise((resolve) => this.#raw.write('', resolve));
    if (this.#raw.destroyed || this.status !== 'open')
      throw new AbortError('the connection ended before the handshake');
    if (this.readBuffer.byteLength > 0) {
      this.#raw.unshift(this.readBuffer.slice());
      this.readBuffer.consume(this.readBuffer.byteLength);
    }
    const socket =
      this.direction === 'inbound'
        ? new TLSSocket(this.#raw, { ...options, isServer: true })
        : connect({ ...options, socket: this.#raw });
    this.#socket = socket;
    const secure = Promise.withResolvers<void>();
    const onClose = (): void => secure.reject(new AbortError('the connection ended in the handshake'));
    socket.on('error', this.#onError);
    socket.once('error', secure.reject);
    socket.once('close', onClose);
    socket.once('secure', secure.resolve);
    try {
      await secure.promise;
    } finally {
      socket.off('error', secure.reject);
      socket.off('close', onClose);
    }
    return socket;
  }

  #use(socket: Socket, onBytes: (bytes: Uint8Array) => void): void {
    socket.on('data', onBytes);
    socket.on('drain', this.#onDrain);
    socket.once('end', this.#onEnd);
  }

  #release(): void {
    this.#raw.pause();
    this.#raw.off('data', this.#onBytes);
    this.#raw.off('drain', this.#onDrain);
    this.#raw.off('end', this.#onEnd);
  }
}

/** Frees a buffer that was made to be sent, once its end, and so all of it, is. What was received and is handed on stays: other parts of it may wait on other streams. */
function freeAfter(part: Uint8Array): ((error?: Error | null) => void) | undefined {
  if (!isEndToSend(part)) return undefined;
  return (error) => {
    if (!error) freeSent(part);
  };
}

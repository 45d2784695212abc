// The kept connection of a client or host to its bridge: dialled, greeted, watched and made again.
// Knows no call but what its owner's `greet` does.

import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { BackOff } from './back-off.ts';
import { abortError, toNetworkError } from './failure.ts';
import type { PeerName } from './network.ts';
import { bridgeAt, DIAL_TIMEOUT_MS, dialAddresses } from './node.ts';
import type { NetworkNode } from './node.ts';
import { BRIDGE_PROTOCOL, CALL_TIMEOUT_MS } from './protocols.ts';
import { RpcClient } from './rpc.ts';
import type { CallOptions, RequestInit, ResponseBody, ResponseValue } from './rpc.ts';

/** Options of a link; the greeting makes a fresh stream usable (authenticates, registers), and failing it counts as not connected. */
export interface BridgeLinkOptions {
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  readonly greet: (rpc: RpcClient) => Promise<void>;
  readonly onEvent?: (event: ResponseBody) => void;
  /** `error` says why not connected. */
  readonly onConnection?: (connected: boolean, error?: XcoreError) => void;
  readonly clock?: Clock;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
}

/** Keeps one greeted stream to the bridge from start() to stop(), with back-off from 0.2 to 10 s. */
export class BridgeLink {
  /** The bridge's peer name. */
  readonly bridge: PeerName;
  readonly #node: NetworkNode;
  readonly #options: BridgeLinkOptions;
  readonly #stopping = new AbortController();
  readonly #clock: Clock;
  readonly #backOff: BackOff;
  #running: Promise<void> | null = null;
  #rpc: RpcClient | null = null;
  #lastError: XcoreError | null = null;
  /** Settles when the attempt under way does; replaced when a connection breaks. */
  #attempt = Promise.withResolvers<void>();

  /** USAGE for an address without a peer id. The node is the caller's. */
  constructor(node: NetworkNode, options: BridgeLinkOptions) {
    this.#node = node;
    this.#clock = options.clock ?? systemClock;
    this.#backOff = new BackOff(options.random);
    this.#options = options;
    this.bridge = bridgeAt(options.bridge);
  }

  get connected(): boolean {
    return this.#rpc !== null;
  }

  /** Starts connecting; does not wait for it. */
  start(): void {
    this.#running ??= this.#keep();
  }

  /** Ends the stream and the reconnecting, and waits for both. */
  async stop(): Promise<void> {
    this.#stopping.abort(new XcoreError('CLOSED', 'stopped'));
    await this.#rpc?.close();
    await this.#running;
    this.#attempt.resolve();
  }

  /** One call. While not connected it waits for the attempt under way, and is UNREACHABLE once one has failed. Other errors as RpcClient.call. */
  async call<C extends ResponseBody['case']>(
    body: RequestInit,
    expected: C,
    options?: CallOptions,
  ): Promise<ResponseValue<C>> {
    if (this.#stopping.signal.aborted) throw new XcoreError('CLOSED', 'stopped');
    if (!this.#rpc) await this.#waitFor(this.#attempt.promise, options);
    if (!this.#rpc) {
      const why = this.#lastError ? `: ${this.#lastError.message}` : '';
      throw new XcoreError('UNREACHABLE', `the bridge cannot be used${why}`, { cause: this.#lastError });
    }
    return this.#rpc.call(body, expected, options);
  }

  async #keep(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        const rpc = await this.#connect(signal);
        this.#rpc = rpc;
        this.#lastError = null;
        this.#backOff.reset();
        this.#attempt.resolve();
        this.#options.onConnection?.(true);
        await rpc.closed;
        this.#attempt = Promise.withResolvers<void>();
        this.#lastError = new XcoreError('UNREACHABLE', 'the connection to the bridge broke');
      } catch (error) {
        this.#lastError = toNetworkError(asError(error));
      }
      const broke = this.#rpc !== null;
      this.#rpc = null;
      if (!broke) this.#attempt.resolve();
      this.#options.onConnection?.(false, this.#lastError);
      await this.#clock.sleep(this.#backOff.nextMs(), signal).catch(() => {});
    }
  }

  async #connect(stopping: AbortSignal): Promise<RpcClient> {
    const signal = deadline(this.#clock, DIAL_TIMEOUT_MS, stopping);
    const addresses = dialAddresses(this.bridge, [this.#options.bridge]);
    const stream = await this.#node.dialProtocol(addresses, BRIDGE_PROTOCOL, { signal });
    const rpc = new RpcClient(stream, this.#options.onEvent, { clock: this.#clock });
    try {
      await this.#options.greet(rpc);
      return rpc;
    } catch (error) {
      await rpc.close(toNetworkError(error));
      throw error;
    }
  }

  /** Waits, but no longer than a call may take. */
  async #waitFor(event: Promise<void>, { signal, timeoutMs = CALL_TIMEOUT_MS }: CallOptions = {}): Promise<void> {
    const either = deadline(this.#clock, timeoutMs, signal);
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(abortError(either));
    either.addEventListener('abort', onAbort, { once: true });
    if (either.aborted) onAbort();
    try {
      await Promise.race([event, aborted.promise]);
    } finally {
      either.removeEventListener('abort', onAbort);
    }
  }
}

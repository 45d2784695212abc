// The network in a thread of its own, so that encrypting connections and hashing transfers never stall the mount.

import { Worker } from 'node:worker_threads';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { BackOff } from './back-off.ts';
import type { ClientNetworkOptions } from './client-network.ts';
import { abortError } from './failure.ts';
import { NO_ROUTES } from './network.ts';
import type {
  Head,
  Lease,
  Network,
  NetworkEvents,
  NetworkSpace,
  NetworkStatus,
  Policy,
  ShardSource,
  ShardStanding,
  WireEntry,
} from './network.ts';
import { peerNameIn, peerNameOf } from './peer-name.ts';
import { packError, unpackError } from './worker-messages.ts';
import type { RemoteMethod, WorkerInput, WorkerRequest, WorkerResponse } from './worker-messages.ts';

const WORKER_URL = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url);
/** Calls that wait for the thread; one more fails with EAGAIN. */
const MAX_PENDING_CALLS = 8_192;
/** Buffers die young here, and their memory with them: collecting often costs less than it saves. */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 8 };
/** The thread has so long to end by itself. */
const STOP_TIMEOUT_MS = 5_000;
/** A thread that ran for so long before it crashed is started again without delay. */
const HEALTHY_MS = 60_000;

interface PendingCall {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Network in a worker thread. When the thread crashes, what is pending fails with UNREACHABLE, and another one is started. */
export class WorkerNetwork implements Network {
  readonly #options: ClientNetworkOptions;
  readonly #logger: Logger | undefined;
  readonly #clock: Clock;
  readonly #listeners: { [E in keyof NetworkEvents]: Set<NetworkEvents[E]> } = {
    connection: new Set(),
    head: new Set(),
    lease: new Set(),
  };
  readonly #stopping = new AbortController();
  readonly #backOff = new BackOff();
  readonly #pending = new Map<number, PendingCall>();
  #running: Promise<void> | null = null;
  #worker: Worker | null = null;
  #connected = false;
  /** The options are of no use: another thread would fail as the first one did. */
  #unusable = false;
  #lastId = 0;

  /** USAGE for a bridge address without a peer id. */
  constructor(options: ClientNetworkOptions, components: { logger?: Logger; clock?: Clock } = {}) {
    peerNameIn(options.bridge);
    this.#options = options;
    this.#logger = components.logger;
    this.#clock = components.clock ?? systemClock;
  }

  /** Resolves once the thread runs; rejects, with nothing left behind, when its network cannot be started: USAGE. */
  async start(): Promise<void> {
    if (this.#running) throw new TypeError('already started');
    const started = Promise.withResolvers<void>();
    this.#running = this.#keep(started);
    await started.promise;
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new XcoreError('CLOSED', 'the network was stopped'));
    this.#post({ type: 'stop' });
    const worker = this.#worker;
    const killer = setTimeout(() => void worker?.terminate(), STOP_TIMEOUT_MS);
    await this.#running;
    clearTimeout(killer);
  }

  on<E extends keyof NetworkEvents>(event: E, listener: NetworkEvents[E]): void {
    this.#listeners[event].add(listener);
  }

  async status(): Promise<NetworkStatus> {
    try {
      return (await this.#call('status', [])) as NetworkStatus;
    } catch (error) {
      const { message } = asError(error);
      return {
        connected: false,
        bridge: this.#options.bridge,
        device: peerNameOf(this.#options.deviceSeed),
        uploadedBytes: 0,
        downloadedBytes: 0,
        routes: NO_ROUTES,
        problems: [{ timeMs: this.#clock.now(), code: 'UNREACHABLE', message }],
      };
    }
  }

  async announce(sizeBytes: number): Promise<Policy> {
    return (await this.#call('announce', [sizeBytes])) as Policy;
  }

  async space(): Promise<NetworkSpace> {
    return (await this.#call('space', [])) as NetworkSpace;
  }

  async upload(shard: ShardSource, signal?: AbortSignal): Promise<ShardStanding> {
    const { id, sizeBytes, path } = shard;
    return (await this.#call('upload', [{ id, sizeBytes, path }], signal)) as ShardStanding;
  }

  async fetchShard(
    id: Uint8Array,
    sizeBytes: number,
    path: string,
    signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<boolean> {
    return (await this.#call('fetchShard', [id, sizeBytes, path, undefined, memory], signal)) as boolean;
  }

  async fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    return (await this.#call('fetchLeaves', [id, sizeBytes, firstLeaf, leafCount], signal)) as Uint8Array;
  }

  async expect(ids: readonly Uint8Array[]): Promise<void> {
    await this.#call('expect', [ids]).catch(() => undefined);
  }

  async mirrors(id: Uint8Array): Promise<number> {
    return (await this.#call('mirrors', [id])) as number;
  }

  async append({ header, signature, body }: WireEntry, again = false): Promise<Head> {
    return (await this.#call('append', [{ header, signature, body }, again])) as Head;
  }

  async readLog(fromSeq: number, maxBytes: number, headersOnly = false): Promise<{ entries: WireEntry[]; head: Head }> {
    return (await this.#call('readLog', [fromSeq, maxBytes, headersOnly])) as { entries: WireEntry[]; head: Head };
  }

  async acquireLease(takeOver: boolean): Promise<Lease> {
    return (await this.#call('acquireLease', [takeOver])) as Lease;
  }

  async renewLease(epoch: number): Promise<Lease> {
    return (await this.#call('renewLease', [epoch])) as Lease;
  }

  async releaseLease(epoch: number): Promise<Lease> {
    return (await this.#call('releaseLease', [epoch])) as Lease;
  }

  async #call(method: RemoteMethod, args: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    if (this.#stopping.signal.aborted || !this.#running) throw new XcoreError('CLOSED', 'the network is not running');
    if (signal?.aborted) throw abortError(signal);
    if (!this.#worker) throw new XcoreError('UNREACHABLE', 'the network thread is starting again');
    if (this.#pending.size >= MAX_PENDING_CALLS) throw new XcoreError('EAGAIN', 'too many calls wait');
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    // The thread ends the work and answers; until then its file or memory may still be in use.
    const onAbort = (): void => this.#post({ type: 'abort', id, reason: packError(abortError(signal)) });
    this.#pending.set(id, { resolve, reject });
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      this.#post({ type: 'call', id, method, args: args.map((arg) => detached(arg)) });
      return await promise;
    } finally {
      this.#pending.delete(id);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #post(message: WorkerRequest): void {
    this.#worker?.postMessage(message);
  }

  /** Runs one thread after another until stop(). `started` settles with the first. */
  async #keep(started: PromiseWithResolvers<void>): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const startMs = this.#clock.monotonicMs();
      const error = await this.#runOnce(started);
      this.#worker = null;
      const failure = signal.aborted
        ? new XcoreError('CLOSED', 'the network was stopped')
        : new XcoreError('UNREACHABLE', `the network thread crashed: ${error.message}`, { cause: error });
      for (const call of this.#pending.values()) call.reject(failure);
      this.#emit('connection', false);
      if (signal.aborted || this.#unusable) break;
      this.#logger?.error({ error: error.message, stack: error.stack }, 'the network thread crashed');
      started.reject(failure);
      if (this.#clock.monotonicMs() - startMs > HEALTHY_MS) this.#backOff.reset();
      await this.#clock.sleep(this.#backOff.nextMs(), signal).catch(() => {});
    }
    started.resolve();
  }

  /** One thread, to its end. */
  async #runOnce(started: PromiseWithResolvers<void>): Promise<Error> {
    const input: WorkerInput = { options: this.#options };
    const worker = new Worker(WORKER_URL, {
      workerData: input,
      name: 'xcore network',
      resourceLimits: RESOURCE_LIMITS,
    });
    this.#worker = worker;
    let failure: Error | null = null;
    worker.on('message', (message: WorkerResponse) => {
      if (message.type === 'started') started.resolve();
      else if (message.type === 'unusable') {
        this.#unusable = true;
        started.reject(unpackError(message.error));
        void worker.terminate();
      } else if (message.type === 'stopped') {
        if (message.error) this.#logger?.error({ error: message.error }, 'the network did not stop cleanly');
        void worker.terminate();
      } else this.#take(message);
    });
    worker.on('error', (error) => {
      failure = asError(error);
    });
    const code = await new Promise<number>((resolve) => worker.once('exit', resolve));
    return failure ?? new Error(`the thread ended with code ${code}`);
  }

  #take(message: Exclude<WorkerResponse, { type: 'started' | 'unusable' | 'stopped' }>): void {
    if (message.type === 'event') this.#emit(message.event, message.value);
    else if (message.type === 'result') this.#pending.get(message.id)?.resolve(message.value);
    else this.#pending.get(message.id)?.reject(unpackError(message.error));
  }

  #emit(event: keyof NetworkEvents, value: unknown): void {
    if (event === 'connection') {
      if (value === this.#connected) return;
      this.#connected = value as boolean;
    }
    for (const listener of this.#listeners[event]) (listener as (value: unknown) => void)(value);
  }
}

/** A small copy of bytes: a view would be sent with all the memory that it is a part of. */
function detached(value: unknown): unknown {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  if (typeof value !== 'object' || value === null || value instanceof SharedArrayBuffer) return value;
  if (Array.isArray(value)) return value.map((item) => detached(item));
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, detached(field)]));
}

// The network of one volume's client, in this thread: builds the parts, owns their life, and hands calls on.

import { systemClock } from '../lib/clock.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { XcoreError } from '../lib/errors.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { BridgeCalls, greetBridge, headOf, leaseOf } from './bridge-calls.ts';
import { BridgeLink } from './bridge-link.ts';
import { FailingHosts } from './failing-hosts.ts';
import { Fetcher } from './fetcher.ts';
import { HostClient } from './host-client.ts';
import { KeyMinter } from './key-minter.ts';
import { Locations } from './locations.ts';
import { NO_ROUTES } from './network.ts';
import type {
  Head,
  Lease,
  Network,
  NetworkEvents,
  NetworkOptions,
  NetworkSpace,
  NetworkStatus,
  Policy,
  ShardSource,
  ShardStanding,
  WireEntry,
} from './network.ts';
import { bridgeAt, createNode } from './node.ts';
import type { NetworkNode } from './node.ts';
import { peerNameOf } from './peer-name.ts';
import { Problems } from './problems.ts';
import { Puncher } from './puncher.ts';
import { PunchTransport } from './punch-transport.ts';
import { RelayTransport } from './relay.ts';
import type { ResponseBody } from './rpc.ts';
import { Uploader } from './uploader.ts';

/** Each takes some 10 MiB on its way through encryption and streams; four of them fill a connection. */
const DEFAULT_PARALLEL_TRANSFERS = 4;
const FETCH_TIMEOUT_MS = 30_000;
const HEDGE_AFTER_MS = 2_000;
/** Measured downloads are told to the bridge this often. */
const MEASUREMENT_INTERVAL_MS = 15_000;
/** What problems are about that are over once the bridge is there. */
const BRIDGE = 'bridge';

/** NetworkOptions, and what only tests change. */
export interface ClientNetworkOptions extends NetworkOptions {
  readonly fetchTimeoutMs?: number;
  readonly hedgeAfterMs?: number;
}

/** What a network uses of its surroundings; absent ones are those of this machine. */
export interface ClientNetworkSurroundings {
  readonly clock?: Clock;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
  readonly randomBytes?: RandomBytes;
  readonly disk?: Disk;
  /** Makes the device's node, which is stopped with the network. */
  readonly createNode?: () => Promise<NetworkNode>;
}

interface Parts {
  readonly node: NetworkNode;
  readonly link: BridgeLink;
  readonly bridge: BridgeCalls;
  readonly hosts: HostClient;
  readonly puncher: Puncher | undefined;
  readonly minter: KeyMinter;
  readonly uploader: Uploader;
  readonly fetcher: Fetcher;
}

/** Network, in the thread that makes it. */
export class ClientNetwork implements Network {
  readonly #options: ClientNetworkOptions;
  readonly #clock: Clock;
  readonly #surroundings: ClientNetworkSurroundings;
  readonly #problems: Problems;
  readonly #stopping = new AbortController();
  readonly #listeners: { [E in keyof NetworkEvents]: Set<NetworkEvents[E]> } = {
    connection: new Set(),
    head: new Set(),
    lease: new Set(),
  };
  #parts: Parts | null = null;
  #connected = false;
  #measuring: Timer | null = null;

  /** USAGE for a bridge address without a peer id. */
  constructor(options: ClientNetworkOptions, surroundings: ClientNetworkSurroundings = {}) {
    const { clock = systemClock } = surroundings;
    bridgeAt(options.bridge);
    this.#options = options;
    this.#clock = clock;
    this.#surroundings = surroundings;
    this.#problems = new Problems(() => clock.now());
  }

  async start(): Promise<void> {
    if (this.#parts) throw new TypeError('already started');
    const { bridge: address, deviceSeed, ownerSeed, mirrors = 0 } = this.#options;
    const parallelTransfers = this.#options.parallelTransfers ?? DEFAULT_PARALLEL_TRANSFERS;
    const clock = this.#clock;
    const { random = Math.random, disk = systemDisk } = this.#surroundings;
    const punching = this.#surroundings.createNode ? undefined : new PunchTransport({ clock, random });
    const makeNode =
      this.#surroundings.createNode ??
      (() => {
        const options = { seed: deviceSeed, listen: [], maxInboundStreams: 8, relayed: new RelayTransport() };
        return createNode({ ...options, ...(punching ? { punching } : {}) });
      });
    const node = await makeNode();
    const link = new BridgeLink(node, {
      bridge: address,
      greet: async (rpc) => {
        await greetBridge(rpc, bridgeAt(address), { deviceSeed, ownerSeed }, clock);
        if (mirrors > 0) await rpc.call({ case: 'announce', value: { mirrors } }, 'policy');
      },
      clock,
      random,
      onEvent: (event) => this.#onEvent(event),
      onConnection: (connected, error) => this.#onConnection(connected, error),
    });
    const bridge = new BridgeCalls(link, clock);
    const puncher = punching && new Puncher({ node, transport: punching, bridge: address, clock });
    const hosts = new HostClient(node, { clock, shortcuts: puncher });
    const minter = new KeyMinter(bridge, deviceSeed, this.#surroundings.randomBytes);
    const shared = {
      bridge,
      minter,
      hosts,
      failing: new FailingHosts(() => clock.monotonicMs()),
      problems: this.#problems,
      clock,
      random,
      disk,
    };
    const stopping = this.#stopping.signal;
    const uploader = new Uploader({ ...shared, device: peerNameOf(deviceSeed) }, { parallelTransfers, stopping });
    const fetcher = new Fetcher(
      { ...shared, locations: new Locations(bridge, clock) },
      {
        parallelTransfers,
        timeoutMs: this.#options.fetchTimeoutMs ?? FETCH_TIMEOUT_MS,
        hedgeAfterMs: this.#options.hedgeAfterMs ?? HEDGE_AFTER_MS,
        stopping,
      },
    );
    this.#parts = { node, link, bridge, hosts, puncher, minter, uploader, fetcher };
    const tell = (): void => {
      this.#measuring?.restart();
      void bridge.sendMeasurements().catch(() => {});
    };
    this.#measuring = clock.after(MEASUREMENT_INTERVAL_MS, tell, { background: true });
    link.start();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new XcoreError('CLOSED', 'the network was stopped'));
    this.#measuring?.cancel();
    if (!this.#parts) return;
    const { node, link, hosts, puncher, minter, uploader, fetcher } = this.#parts;
    await link.stop();
    await Promise.all([uploader.settled(), fetcher.settled()]);
    await minter.settled();
    await hosts.stop();
    await puncher?.stop();
    await node.stop();
  }

  on<E extends keyof NetworkEvents>(event: E, listener: NetworkEvents[E]): void {
    this.#listeners[event].add(listener);
  }

  async status(): Promise<NetworkStatus> {
    return {
      connected: this.#parts?.link.connected ?? false,
      bridge: this.#options.bridge,
      device: peerNameOf(this.#options.deviceSeed),
      uploadedBytes: this.#parts?.uploader.uploadedBytes ?? 0,
      downloadedBytes: this.#parts?.fetcher.downloadedBytes ?? 0,
      routes: this.#parts?.puncher?.routes ?? NO_ROUTES,
      problems: this.#problems.list(),
    };
  }

  async announce(sizeBytes: number): Promise<Policy> {
    return this.#running().bridge.announce(sizeBytes);
  }

  async space(): Promise<NetworkSpace> {
    return this.#running().bridge.space();
  }

  async upload(shard: ShardSource, signal?: AbortSignal): Promise<ShardStanding> {
    return this.#running().uploader.upload(shard, signal);
  }

  async fetchShard(
    id: Uint8Array,
    sizeBytes: number,
    path: string,
    signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<boolean> {
    return this.#running().fetcher.fetchShard(id, sizeBytes, path, signal, memory);
  }

  async fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    return this.#running().fetcher.fetchLeaves(id, sizeBytes, firstLeaf, leafCount, signal);
  }

  async expect(ids: readonly Uint8Array[]): Promise<void> {
    await this.#running().fetcher.expect(ids);
  }

  async mirrors(id: Uint8Array): Promise<number> {
    return (await this.#running().bridge.locate(id)).mirrors.length;
  }

  async append(entry: WireEntry, again = false): Promise<Head> {
    return this.#running().bridge.append(entry, again);
  }

  async readLog(fromSeq: number, maxBytes: number, headersOnly = false): Promise<{ entries: WireEntry[]; head: Head }> {
    return this.#running().bridge.readLog(fromSeq, maxBytes, headersOnly);
  }

  async acquireLease(takeOver: boolean): Promise<Lease> {
    return this.#running().bridge.acquireLease(takeOver);
  }

  async renewLease(epoch: number): Promise<Lease> {
    return this.#running().bridge.renewLease(epoch);
  }

  async releaseLease(epoch: number): Promise<Lease> {
    return this.#running().bridge.releaseLease(epoch);
  }

  #running(): Parts {
    if (this.#stopping.signal.aborted || !this.#parts) throw new XcoreError('CLOSED', 'the network is not running');
    return this.#parts;
  }

  #onEvent(event: ResponseBody): void {
    if (event.case === 'head') {
      for (const listener of this.#listeners.head) listener(headOf(event.value));
    } else if (event.case === 'lease') {
      for (const listener of this.#listeners.lease) listener(leaseOf(event.value));
    }
  }

  #onConnection(connected: boolean, error?: XcoreError): void {
    if (error && error.code !== 'CLOSED') {
      // what it did wrong is told for longer than that it was away
      const about = error.code === 'PROTOCOL' || error.code === 'TOO_LARGE' ? undefined : BRIDGE;
      this.#problems.add(error.code, `the bridge cannot be used: ${error.message}`, about);
    }
    if (connected) this.#problems.over(BRIDGE);
    if (connected === this.#connected) return;
    this.#connected = connected;
    if (connected) this.#parts?.fetcher.hurry();
    for (const listener of this.#listeners.connection) listener(connected);
  }
}

// Runs a host on a node and a folder: its parts, the streams that it serves, its side of the bridge. Opens neither
// node nor stores.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { createMetrics } from '../lib/metrics.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { Store } from '../lib/store.ts';
import { HostClient } from '../net/host-client.ts';
import type { HostTarget } from '../net/host-client.ts';
import { NO_ROUTES } from '../net/network.ts';
import { addressesOf, peerNameIn } from '../net/node.ts';
import type { ByteStream, NetworkNode, NodeConnection } from '../net/node.ts';
import type { PunchTransport } from '../net/punch-transport.ts';
import { Puncher } from '../net/puncher.ts';
import { SHARD_PROTOCOL } from '../net/protocols.ts';
import { serveShardStream } from '../net/shard-protocol.ts';
import type { ShardHandlers } from '../net/shard-protocol.ts';
import type { Allowance } from './allowance.ts';
import { BridgeAgent } from './bridge-agent.ts';
import type { HostHandlers } from './control.ts';
import { Deletions } from './deletions.ts';
import { DiskHealth } from './disk-health.ts';
import { watchHost } from './figures.ts';
import { hostHandlers, hostStatus, reachabilityAdvice } from './host-control.ts';
import type { HostStatus } from './control-api.ts';
import type { HostFs } from './host-fs.ts';
import type { Intent } from './intent.ts';
import type { HostOptions } from './options.ts';
import { ShardStore } from './shard-store.ts';
import { Tombstones } from './tombstones.ts';
import { ratedHandlers } from './rated-handlers.ts';
import { Transfers } from './transfers.ts';
import { UsedSerials } from './used-serials.ts';

const REACHABILITY_POLL_MS = 250;

/** What a host runs on; all of it is the caller's to close. */
export interface HostComponents {
  readonly fs: HostFs;
  /** Where used serials are kept. */
  readonly serials: Store;
  readonly intent: Intent;
  /** What the owner allows to move; all unless there is one. */
  readonly allowance?: Allowance | undefined;
  /** Gets or keeps a place on the bridge's relay. */
  readonly reserve?: (() => Promise<void>) | undefined;
  /** Makes direct connections to those who come through the relay; there are none without it. */
  readonly punching?: PunchTransport | undefined;
  readonly node: NetworkNode;
  /** Ed25519 seed of the node's identity, 32 bytes. */
  readonly seed: Uint8Array;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly randomBytes?: RandomBytes;
  readonly log: Logger;
}

/** Where it keeps shards, how much, and whom it serves. */
export interface ServingSettings {
  readonly dir: string;
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  readonly capacityBytes: number;
}

/** A host that serves, and has yet to turn to its bridge. */
export interface ServingHost {
  readonly metrics: Metrics;
  /** What to do so that others can dial it, once the bridge has tried; nothing when all is well or the signal aborts before. */
  reachabilityAdvice(signal: AbortSignal): Promise<readonly string[]>;
  /** What its owner may ask of it. */
  readonly handlers: HostHandlers;
  /** Bytes of shards that it holds. */
  usedBytes(): number;
  /** Registers with the bridge, and resolves with whether that was done in time; it is tried again in any case. */
  start(): Promise<boolean>;
  stop(): Promise<void>;
}

/** Takes inventory and serves; USAGE for a bridge address without a peer id. */
export async function runHost(
  components: HostComponents,
  settings: ServingSettings,
  options: HostOptions,
): Promise<ServingHost> {
  const { fs, intent, allowance, reserve, punching, node, seed, clock, random, randomBytes, log } = components;
  const { dir, capacityBytes } = settings;
  const bridge = peerNameIn(settings.bridge);
  const host = node.peerId.toString();
  const serials = await UsedSerials.open({ store: components.serials, clock });
  const tombstones = await Tombstones.open({ store: components.serials, clock });
  const store = await ShardStore.open(dir, { fs, log }, { ...options, limitBytes: capacityBytes });
  const metrics = createMetrics();
  const puncher = punching && new Puncher({ node, transport: punching, bridge: settings.bridge, clock, randomBytes });
  const peers = new HostClient(node, { clock, shortcuts: puncher });
  const transfers = new Transfers(
    {
      ...{ store, serials, tombstones, clock, metrics, seed, host, bridge, allowance, randomBytes },
      fetchFrom: (...source) => fetchShard(peers, ...source),
    },
    options,
  );
  const deletions = new Deletions({ store, tombstones, clock, log, host, bridge });
  const health = new DiskHealth({ serials: components.serials, store });
  const agent = new BridgeAgent(
    {
      freeBytes: () => health.freeBytes(),
      ...{ node, budget: store.budget, deletions, intent, allowance, reserve, clock, random, log },
      place: { operator: options.operator, region: options.region },
      transfers: () => transfers.active,
    },
    settings.bridge,
  );
  const streams = new Set<Promise<void>>();
  const { maxRequestsPerSecond } = options;
  await serve(components, ratedHandlers(transfers, { clock, bridge, maxRequestsPerSecond }), streams, options);
  await puncher?.serve();
  const parts = {
    ...{ store, health, transfers, agent, intent, allowance, clock, host },
    bridge: settings.bridge,
    addresses: () => addressesOf(node),
    routes: () => puncher?.routes ?? NO_ROUTES,
  };
  const startedMs = clock.now();
  const status = (): Promise<HostStatus> => hostStatus(parts, startedMs);
  const handlers = hostHandlers(parts, status);
  watchHost(metrics, status);
  return {
    metrics,
    handlers,
    reachabilityAdvice: async (signal) => {
      while (agent.reachability === undefined || agent.reachability.state === '') {
        await clock.sleep(REACHABILITY_POLL_MS, signal).catch(() => {});
        if (signal.aborted) return [];
      }
      return reachabilityAdvice(agent.reachability);
    },
    usedBytes: () => store.budget.usedBytes,
    start: () => agent.start(options.registerWaitMs),
    async stop() {
      await agent.stop();
      await peers.stop();
      await puncher?.stop();
      await node.stop();
      await Promise.all(streams);
      await store.close();
    },
  };
}

async function fetchShard(
  peers: HostClient,
  source: HostTarget,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const { data } = await peers.retrieve(source, { firstLeaf: 0, leafCount: 0 }, sizeBytes, { signal });
  return data;
}

async function serve(
  { node, clock, log }: HostComponents,
  handlers: ShardHandlers,
  streams: Set<Promise<void>>,
  options: HostOptions,
): Promise<void> {
  const accept = (stream: ByteStream, connection: NodeConnection): void => {
    if (streams.size >= options.maxStreams) {
      stream.abort(new XcoreError('EAGAIN', 'too many streams'));
      return;
    }
    const peer = connection.remotePeer.toString();
    const served: Promise<void> = serveShardStream(
      stream,
      peer,
      handlers,
      (error, request) => log.error({ err: error, request }, 'a transfer failed'),
      clock,
    ).finally(() => streams.delete(served));
    streams.add(served);
  };
  await node.handle(SHARD_PROTOCOL, accept, {
    maxInboundStreams: options.maxStreamsPerConnection,
    runOnLimitedConnection: true,
  });
}

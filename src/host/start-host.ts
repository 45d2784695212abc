// Builds a host from its parts, starts it and stops it.

import * as promises from 'node:fs/promises';
import { join } from 'node:path';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { createMetrics } from '../lib/metrics.ts';
import type { Metrics } from '../lib/metrics.ts';
import { HostClient } from '../net/host-client.ts';
import type { HostTarget } from '../net/host-client.ts';
import { addressesOf, createNode, loadOrCreateSeed, peerNameIn } from '../net/node.ts';
import { SHARD_PROTOCOL } from '../net/protocols.ts';
import { serveShardStream } from '../net/shard-protocol.ts';
import { BridgeAgent } from './bridge-agent.ts';
import { serveHostControl } from './control.ts';
import type { HostHandlers } from './control.ts';
import { Deletions } from './deletions.ts';
import { hostHandlers } from './host-control.ts';
import type { HostFs } from './host-fs.ts';
import { Intent } from './intent.ts';
import { HOST_DEFAULTS } from './options.ts';
import type { HostOptions } from './options.ts';
import { ShardStore } from './shard-store.ts';
import { Transfers } from './transfers.ts';
import { UsedSerials } from './used-serials.ts';

/** Where a host keeps shards, how much, and whom it serves. */
export interface HostSettings {
  readonly dir: string;
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  readonly capacityBytes: number;
  /** Multiaddrs. */
  readonly listen: readonly string[];
  readonly options?: Partial<HostOptions>;
}

/** What a host uses of its surroundings. */
export interface HostSurroundings {
  readonly log: Logger;
  readonly clock?: Clock;
  readonly fs?: HostFs;
}

/** A host that runs. */
export interface RunningHost {
  /** Multiaddr with /p2p/ id. */
  readonly address: string;
  readonly addresses: readonly string[];
  /** Whether the bridge knew this host when it started; while it does not, the host keeps trying. */
  readonly registered: boolean;
  readonly metrics: Metrics;
  /** Bytes of shards that it holds. */
  usedBytes(): number;
  stop(): Promise<void>;
}

/**
 * Starts a host and resolves once it listens and has registered, or has tried to. HOME_LOCKED when another host uses
 * the folder, USAGE for a bridge address without a peer id, BAD_FORMAT.
 */
export async function startHost(settings: HostSettings, surroundings: HostSurroundings): Promise<RunningHost> {
  const { log, clock = systemClock, fs = promises } = surroundings;
  const options = { ...HOST_DEFAULTS, ...settings.options };
  const { dir, capacityBytes } = settings;
  const bridge = peerNameIn(settings.bridge);
  const cleanups: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  try {
    const serials = await UsedSerials.open(join(dir, 'state'), { clock });
    cleanups.push(() => serials.close());
    const seed = await loadOrCreateSeed(join(dir, 'identity.seed'));
    const store = await ShardStore.open(dir, { fs, log }, { ...options, limitBytes: capacityBytes });
    const metrics = createMetrics();
    const node = await createNode({ seed, listen: settings.listen, maxConnections: options.maxConnections });
    const host = node.peerId.toString();
    const peers = new HostClient(node);
    const transfers = new Transfers(
      { store, serials, clock, metrics, seed, host, bridge, fetchFrom: (...source) => fetchShard(peers, ...source) },
      options,
    );
    const streams = new Set<Promise<void>>();
    cleanups.push(async () => {
      await peers.stop();
      await node.stop();
      await Promise.all(streams);
    });
    await serve(node, transfers, streams, options, log);
    const deletions = new Deletions({ store, clock, log, host, bridge });
    const intent = await Intent.open(dir);
    const agent = new BridgeAgent(
      { node, budget: store.budget, deletions, intent, clock, log, transfers: () => transfers.active },
      settings.bridge,
    );
    cleanups.push(() => agent.stop());
    const handlers = hostHandlers({
      ...{ store, transfers, agent, intent, clock, host },
      bridge: settings.bridge,
      addresses: () => addressesOf(node),
    });
    cleanups.push(await controlled(dir, handlers, log));
    const registered = await agent.start(options.registerWaitMs);
    const addresses = addressesOf(node);
    return {
      address: addresses.find((address) => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address)) ?? addresses[0] ?? '',
      addresses,
      registered,
      metrics,
      usedBytes: () => store.budget.usedBytes,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Listens for calls of the owner; what ends it. A folder whose path is too long for a socket does without. */
async function controlled(dir: string, handlers: HostHandlers, log: Logger): Promise<() => Promise<void>> {
  try {
    const control = await serveHostControl(dir, handlers);
    return () => control.close();
  } catch (error) {
    if (!hasCode(error, 'USAGE')) throw error;
    log.warn({ err: error }, 'xcore host cannot reach this host');
    return () => Promise.resolve();
  }
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
  node: Libp2p,
  transfers: Transfers,
  streams: Set<Promise<void>>,
  options: HostOptions,
  log: Logger,
): Promise<void> {
  const accept = (stream: Stream, connection: Connection): void => {
    if (streams.size >= options.maxStreams) {
      stream.abort(new XcoreError('EAGAIN', 'too many streams'));
      return;
    }
    const peer = connection.remotePeer.toString();
    const served: Promise<void> = serveShardStream(stream, peer, transfers, (error, request) =>
      log.error({ err: error, request }, 'a transfer failed'),
    ).finally(() => streams.delete(served));
    streams.add(served);
  };
  await node.handle(SHARD_PROTOCOL, accept, { maxInboundStreams: options.maxStreamsPerConnection });
}

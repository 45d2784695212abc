// Starts a bridge on its folder and its addresses, and stops it.

import { join } from 'node:path';
import type { Connection, Stream } from '@libp2p/interface';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import { createMetrics } from '../lib/metrics.ts';
import type { Metrics } from '../lib/metrics.ts';
import { ConnectedHosts } from '../net/connected-hosts.ts';
import { addressesOf, createNode, loadOrCreateSeed } from '../net/node.ts';
import { networkPrefix } from '../net/network-prefix.ts';
import { BRIDGE_PROTOCOL } from '../net/protocols.ts';
import { serveRpc } from '../net/rpc.ts';
import { assembleBridge } from './assemble.ts';
import { openLevelStore } from './level-store.ts';
import { BRIDGE_DEFAULTS } from './options.ts';
import type { BridgeOptions } from './options.ts';
import type { Store } from './store.ts';

const MAX_STREAMS_PER_CONNECTION = 4;

/** Where a bridge keeps its state and listens. */
export interface BridgeSettings {
  readonly dir: string;
  /** Multiaddrs. */
  readonly listen: readonly string[];
  readonly options?: Partial<BridgeOptions>;
}

/** What a bridge uses of its surroundings. */
export interface BridgeSurroundings {
  readonly log: Logger;
  readonly clock?: Clock;
  /** Numbers in [0, 1). */
  readonly random?: () => number;
}

/** A bridge that runs. */
export interface RunningBridge {
  /** Multiaddr with /p2p/ id that others use: one that is reachable from other machines, if there is one. */
  readonly address: string;
  readonly addresses: readonly string[];
  readonly metrics: Metrics;
  stop(): Promise<void>;
}

/** Starts a bridge and resolves once it listens. HOME_LOCKED when the folder is in use, BAD_FORMAT when its data is not ours. */
export async function startBridge(settings: BridgeSettings, surroundings: BridgeSurroundings): Promise<RunningBridge> {
  const store = await openLevelStore(join(settings.dir, 'state'));
  try {
    return await startOn(store, settings, surroundings);
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function startOn(
  store: Store,
  settings: BridgeSettings,
  { log, clock = systemClock, random = Math.random }: BridgeSurroundings,
): Promise<RunningBridge> {
  const options = { ...BRIDGE_DEFAULTS, ...settings.options };
  const seed = await loadOrCreateSeed(join(settings.dir, 'identity.seed'));
  const metrics = createMetrics();
  const node = await createNode({ seed, listen: settings.listen, maxConnections: options.maxConnections });
  const bridge = node.peerId.toString();
  const hosts = new ConnectedHosts(node);
  const { service, upkeep, registry } = await assembleBridge(
    { store, seed, clock, random, metrics, bridge, log, calls: hosts },
    options,
  );

  const streams = new Set<Promise<void>>();
  const serve = (stream: Stream, connection: Connection): void => {
    const served: Promise<void> = serveRpc(
      stream,
      connection.remotePeer.toString(),
      (body, context) => service.handle(body, context, networkPrefix(connection.remoteAddr.toString())),
      {},
      (error, request) => log.error({ err: error, request }, 'a request failed'),
    ).finally(() => streams.delete(served));
    streams.add(served);
  };
  try {
    await node.handle(BRIDGE_PROTOCOL, serve, { maxInboundStreams: MAX_STREAMS_PER_CONNECTION });
  } catch (error) {
    await node.stop();
    throw error;
  }
  for (const loop of upkeep) loop.start();
  const addresses = addressesOf(node);
  log.info({ addresses }, 'the bridge listens');
  return {
    address: addresses.find((address) => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address)) ?? addresses[0] ?? '',
    addresses,
    metrics,
    async stop() {
      await Promise.all(upkeep.map((loop) => loop.stop()));
      await hosts.stop();
      await node.stop();
      await Promise.all(streams);
      await registry.flush();
      await store.close();
    },
  };
}

// Runs a bridge on a node: its parts, the streams that it serves, its upkeep. Knows neither folders nor addresses.

import type { Logger } from '../lib/log.ts';
import { createMetrics } from '../lib/metrics.ts';
import type { Metrics } from '../lib/metrics.ts';
import { ConnectedHosts } from '../net/connected-hosts.ts';
import type { ByteStream, NetworkNode, NodeConnection } from '../net/node.ts';
import { BRIDGE_PROTOCOL, FRAME_TIMEOUT_MS, GREETING_FRAME_BYTES } from '../net/protocols.ts';
import { serveRpc } from '../net/rpc.ts';
import { assembleBridge } from './assemble.ts';
import type { BridgeHandlers } from './control.ts';
import type { BridgeGround } from './ground.ts';
import type { BridgeOptions } from './options.ts';

const MAX_STREAMS_PER_CONNECTION = 4;

/** What a bridge runs on. */
export interface BridgeComponents extends Omit<BridgeGround, 'metrics' | 'bridge' | 'calls'> {
  readonly node: NetworkNode;
  readonly log: Logger;
}

/** A bridge that serves. */
export interface ServingBridge {
  readonly metrics: Metrics;
  /** What its operator may ask. */
  readonly control: BridgeHandlers;
  /** Ends what it does; store and node are closed as well. */
  stop(): Promise<void>;
}

/** Reads what is stored, and serves. Store and node are the caller's when this fails. */
export async function runBridge(components: BridgeComponents, options: BridgeOptions): Promise<ServingBridge> {
  const { node, store, clock, log } = components;
  const metrics = createMetrics();
  const hosts = new ConnectedHosts(node, clock);
  const { service, upkeep, registry, control } = await assembleBridge(
    { ...components, metrics, bridge: node.peerId.toString(), calls: hosts },
    options,
  );

  const streams = new Set<Promise<void>>();
  const serve = (stream: ByteStream, connection: NodeConnection): void => {
    const served: Promise<void> = serveRpc(
      stream,
      connection.remotePeer.toString(),
      (body, context) => service.handle(body, context, connection.remoteAddr.toString()),
      { clock, greetingBytes: GREETING_FRAME_BYTES, frameTimeoutMs: FRAME_TIMEOUT_MS },
      (error, request) => log.error({ err: error, request }, 'a request failed'),
    ).finally(() => streams.delete(served));
    streams.add(served);
  };
  await node.handle(BRIDGE_PROTOCOL, serve, { maxInboundStreams: MAX_STREAMS_PER_CONNECTION });
  for (const loop of upkeep) loop.start();
  return {
    metrics,
    control,
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

// Starts a bridge on its folder and its addresses, and stops it.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import { serveCallsIfShort } from '../lib/control-socket.ts';
import type { Metrics } from '../lib/metrics.ts';
import { dialBack, DialGate } from '../net/dial-gate.ts';
import { addressesOf, createNode, loadOrCreateSeed } from '../net/node.ts';
import { relaysFor } from '../net/relay.ts';
import { bridgeIn, bridgeSocket } from './control.ts';
import { openLevelStore } from './level-store.ts';
import { BRIDGE_DEFAULTS } from './options.ts';
import type { BridgeOptions } from './options.ts';
import type { Outside } from './reachability.ts';
import { runBridge } from './run-bridge.ts';
import type { Store } from '../lib/store.ts';

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
  const store = await openLevelStore(join(settings.dir, 'state'), surroundings.log);
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
  const gate = new DialGate();
  const { maxConnections, relays } = options;
  const node = await createNode({ seed, listen: settings.listen, maxConnections, gate, relays });
  const outside: Outside = {
    dial: (host, address, signal) => dialBack(node, gate, `${address}/p2p/${host}`, signal),
    relays: (host) => relaysFor(node, host),
    letReserve: (mayReserve) => (gate.mayReserve = mayReserve),
  };
  try {
    const serving = await runBridge({ store, node, outside, seed, clock, random, randomBytes, log }, options);
    const hangUp = await serveCallsIfShort(bridgeSocket(settings.dir), serving.control, bridgeIn(settings.dir), log);
    const addresses = addressesOf(node);
    log.info({ addresses }, 'the bridge listens');
    return {
      address: addresses.find((address) => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address)) ?? addresses[0] ?? '',
      addresses,
      metrics: serving.metrics,
      async stop() {
        await hangUp();
        await serving.stop();
      },
    };
  } catch (error) {
    await node.stop();
    throw error;
  }
}

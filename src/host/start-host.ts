// Starts a host on its folder and its addresses, and stops it.

import * as promises from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import { addressesOf, createNode, loadOrCreateSeed, peerNameIn } from '../net/node.ts';
import { Allowance } from './allowance.ts';
import { serveHostControl } from './control.ts';
import type { HostFs } from './host-fs.ts';
import { Intent } from './intent.ts';
import { HOST_DEFAULTS } from './options.ts';
import type { HostOptions } from './options.ts';
import { runHost } from './run-host.ts';
import { PunchTransport } from '../net/punch-transport.ts';
import { RelayTransport } from '../net/relay.ts';
import { openSerialStore } from './used-serials.ts';

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
  /** What the bridge found out about dialling it, and what to do about that; waits for it for a while. Empty: nothing. */
  reachabilityAdvice(signal: AbortSignal): Promise<readonly string[]>;
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
  const { dir } = settings;
  const bridge = peerNameIn(settings.bridge);
  const cleanups: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  try {
    const serials = await openSerialStore(join(dir, 'state'), log);
    cleanups.push(() => serials.close());
    const seed = await loadOrCreateSeed(join(dir, 'identity.seed'));
    const intent = await Intent.open(dir);
    const allowance = await Allowance.open(dir, { clock, log }, options);
    allowance.start();
    cleanups.push(() => allowance.stop());
    const relayed = new RelayTransport();
    const punching = new PunchTransport({ clock });
    const node = await createNode({
      ...{ seed, listen: settings.listen, maxConnections: options.maxConnections, relayed, punching },
      mapsPorts: options.mapsPorts && settings.listen.some((address) => !isLoopback(address)),
    });
    cleanups.push(async () => node.stop());
    const reserve = (): Promise<void> => relayed.reserve(bridge);
    const parts = { fs, serials, intent, allowance, reserve, punching, node, seed, clock, log, random: Math.random };
    const host = await runHost(parts, settings, options);
    cleanups.push(() => host.stop());
    cleanups.push(await serveHostControl(dir, host.handlers, log));
    const registered = await host.start();
    const addresses = addressesOf(node);
    return {
      address: addresses.find((address) => !isLoopback(address)) ?? addresses[0] ?? '',
      addresses,
      registered,
      metrics: host.metrics,
      reachabilityAdvice: (signal) => host.reachabilityAdvice(signal),
      usedBytes: () => host.usedBytes(),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function isLoopback(address: string): boolean {
  return /^\/(ip4\/127\.|ip6\/::1\/)/.test(address);
}

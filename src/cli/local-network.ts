// The embedded network: one bridge and a few hosts in this process, on loopback, with all data below
// one folder. The same code and protocols as on many machines.

import { join } from 'node:path';
import { startBridge } from '../bridge/start-bridge.ts';
import { startHost } from '../host/start-host.ts';
import type { Logger } from '../lib/log.ts';

const LOOPBACK = ['/ip4/127.0.0.1/tcp/0'];

/** What an embedded network is made of. */
export interface LocalNetworkSettings {
  /** Holds bridge/, host-1/, host-2/ and so on; peer ids stay the same over restarts, ports do not. */
  readonly dir: string;
  readonly hosts: number;
  /** Of each host. */
  readonly capacityBytes: number;
}

/** An embedded network that runs. */
export interface LocalNetwork {
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  stop(): Promise<void>;
}

/** Starts bridge and hosts and resolves once every host has registered. HOME_LOCKED when the folder is in use. */
export async function startLocalNetwork(
  settings: LocalNetworkSettings,
  { log }: { readonly log: Logger },
): Promise<LocalNetwork> {
  const started: { stop(): Promise<void> }[] = [];
  const stop = async (): Promise<void> => {
    for (const part of started.splice(0).reverse()) await part.stop();
  };
  try {
    const bridge = await startBridge(
      { dir: join(settings.dir, 'bridge'), listen: LOOPBACK },
      { log: log.child({ part: 'bridge' }) },
    );
    started.push(bridge);
    const hosts = await Promise.allSettled(
      Array.from({ length: settings.hosts }, (_, at) =>
        startHost(
          {
            dir: join(settings.dir, `host-${at + 1}`),
            bridge: bridge.address,
            capacityBytes: settings.capacityBytes,
            listen: LOOPBACK,
          },
          { log: log.child({ part: `host-${at + 1}` }) },
        ),
      ),
    );
    for (const host of hosts) if (host.status === 'fulfilled') started.push(host.value);
    for (const host of hosts) if (host.status === 'rejected') throw host.reason;
    return { bridge: bridge.address, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

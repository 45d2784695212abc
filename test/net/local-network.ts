// A bridge and hosts in this process, on loopback, whose folders a test can look into.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import type { RunningBridge } from '../../src/bridge/start-bridge.ts';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { startHost } from '../../src/host/start-host.ts';
import type { RunningHost } from '../../src/host/start-host.ts';
import { silentLogger } from '../../src/lib/log.ts';
import type { ShardSource } from '../../src/net/network.ts';
import { reservePort } from '../support/ports.ts';

const onLoopback = (): string => `/ip4/127.0.0.1/tcp/${reservePort()}`;
const GIB = 1024 ** 3;
/** A network of so many hosts is one of so many from the beginning, however slow the machine. */
export const REGISTER_WAIT_MS = 60_000;

/** One host with its folder. */
export class LocalHost {
  readonly dir: string;
  readonly #bridge: string;
  #running: RunningHost | null = null;
  #listen = onLoopback();

  constructor(dir: string, bridge: string) {
    this.dir = dir;
    this.#bridge = bridge;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  /** Multiaddr with /p2p/ id. */
  get address(): string {
    return this.#listen;
  }

  get peer(): string {
    return this.#listen.split('/p2p/')[1] ?? '';
  }

  async start(): Promise<void> {
    this.#running = await startHost(
      {
        dir: this.dir,
        bridge: this.#bridge,
        capacityBytes: GIB,
        listen: [this.#listen.split('/p2p/')[0] ?? ''],
        options: { floorBytes: 0, registerWaitMs: REGISTER_WAIT_MS },
      },
      { log: silentLogger },
    );
    this.#listen = this.#running.address;
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
    this.#running = null;
  }
}

/** One bridge and some hosts. */
export class LocalNetwork {
  readonly dir: string;
  readonly hosts: LocalHost[] = [];
  #bridge: RunningBridge | null = null;
  address = onLoopback();

  constructor(dir: string) {
    this.dir = dir;
  }

  async startBridge(): Promise<void> {
    this.#bridge = await startBridge(
      {
        dir: join(this.dir, 'bridge'),
        listen: [this.address.split('/p2p/')[0] ?? ''],
        // what is harmed stays for clients to find: no round of upkeep looks at it before them
        options: { heartbeatMs: 3_000, upkeepMs: 3_600_000 },
      },
      { log: silentLogger },
    );
    this.address = this.#bridge.address;
  }

  async stopBridge(): Promise<void> {
    await this.#bridge?.stop();
    this.#bridge = null;
  }

  async addHost(): Promise<LocalHost> {
    const host = new LocalHost(join(this.dir, `host-${this.hosts.length}`), this.address);
    this.hosts.push(host);
    await host.start();
    return host;
  }

  async stop(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.stop()));
    await this.stopBridge();
  }
}

/** Starts a bridge and hosts that end with the test. */
export async function startLocalNetwork(t: Test, hosts: number): Promise<LocalNetwork> {
  const network = new LocalNetwork(t.testdir());
  t.teardown(() => network.stop());
  await network.startBridge();
  for (let n = 0; n < hosts; n++) await network.addHost();
  return network;
}

/** Writes data to a file of its own, as a sealed shard. */
export function makeShard(dir: string, data: Buffer): ShardSource {
  const id = shardIdOf(leafHashes(data), data.length);
  const path = join(dir, `${id.toString('hex')}.segment`);
  writeFileSync(path, data);
  return { id, sizeBytes: data.length, path };
}

// A bridge with many hosts and shards to measure: the bridge's own parts on a real LevelDB; a few hosts with all their
// parts, which store and show shards, and thousands that are no more than their heartbeats and names.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { STOCK_KEYS } from '../../src/bridge/hashed-keys.ts';
import { MAX_SHARD_BYTES } from '../../src/bridge/policy.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { HostCalls } from '../../src/net/connected-hosts.ts';
import { mintStock } from '../../src/net/key-stock.ts';
import { fillAsTheyCome, fillSorted } from './bridge-fill.ts';
import { BENCH_OPTIONS } from './bridge-options.ts';
import { Harness, Party } from '../bridge/harness.ts';
import type { Client, Host, TestShard } from '../bridge/harness.ts';
import { SimulatedHosts } from '../bridge/simulated-hosts.ts';

const REAL_HOSTS = 8;
const REAL_SHARDS = 32;
const HOST_BYTES = 4e12;
const MAX_LATE_SHARDS = 50_000;
/** What is measured. */
export class BridgeWorld {
  readonly bridge: Harness;
  readonly network: SimulatedHosts;
  readonly owner: Client;
  /** Held by real hosts. */
  readonly shards: readonly TestShard[];
  /** Names of the hosts that got each of them first. */
  readonly holders: ReadonlyMap<Uint8Array, ReadonlySet<string>>;
  readonly hosts: Host[] = [];
  /** Written into the store. */
  written = 0;
  readonly #teardowns: (() => unknown)[];

  private constructor(
    parts: {
      bridge: Harness;
      network: SimulatedHosts;
      owner: Client;
      holders: ReadonlyMap<Uint8Array, ReadonlySet<string>>;
      shards: readonly TestShard[];
    },
    teardowns: (() => unknown)[],
  ) {
    this.bridge = parts.bridge;
    this.network = parts.network;
    this.owner = parts.owner;
    this.shards = parts.shards;
    this.holders = parts.holders;
    this.#teardowns = teardowns;
  }

  /** A bridge with some real hosts that hold real shards, in a folder of its own below `dir`. */
  static async start(dir: string): Promise<BridgeWorld> {
    const root = mkdtempSync(join(dir, 'xc-bench-'));
    const teardowns: (() => unknown)[] = [() => rmSync(root, { recursive: true, force: true })];
    let folders = 0;
    const scope = {
      testdir: () => {
        const folder = join(root, String((folders += 1)));
        mkdirSync(folder);
        return folder;
      },
      teardown: (action: () => unknown) => teardowns.push(action),
    };
    try {
      const bridge = await Harness.start(scope, BENCH_OPTIONS);
      const network = await SimulatedHosts.start(scope, bridge, REAL_HOSTS);
      const owner = await bridge.connect(new Party());
      const shards: TestShard[] = [];
      const holders = new Map<Uint8Array, Set<string>>();
      for (let n = 0; n < REAL_SHARDS; n += 1) {
        const shard = await network.upload(owner, MAX_SHARD_BYTES);
        shards.push(shard);
        holders.set(shard.shardId, new Set(await owner.locate(shard.shardId)));
      }
      bridge.calls = onlyReal(network);
      return new BridgeWorld({ bridge, network, owner, shards, holders }, teardowns);
    } catch (error) {
      for (const action of teardowns.reverse()) await action();
      throw error;
    }
  }

  async end(): Promise<void> {
    for (const action of this.#teardowns.reverse()) await action();
  }

  /** Gives each real shard a full stock of hashed keys, as its owner mints them. */
  async mintKeys(): Promise<void> {
    // Not the session of the start: the bridge may have been restarted.
    const owner = await this.bridge.connect(this.owner.owner, this.owner.device);
    for (const shard of this.shards) {
      const stocks = [mintStock(owner.device.seed, shard.shardId, this.network.bytesOf(shard), STOCK_KEYS)];
      await owner.call({ case: 'handOver', value: { stocks } }, 'done');
    }
  }

  /** Registers hosts until there are so many. */
  async join(count: number): Promise<void> {
    this.hosts.push(...(await this.bridge.join(count - this.hosts.length, HOST_BYTES)));
  }

  /** Writes shards into the store, as confirmed receipts and handed over keys leave them, until there are so many. */
  async fill(count: number): Promise<void> {
    const { store, registry, clock } = this.bridge;
    // Most of them lie in the store as they do after a while; the newest ones came one after another.
    const late = Math.min(MAX_LATE_SHARDS, Math.floor((count - this.written) / 10));
    const parts = { store, registry, hosts: this.hosts.map(({ peer }) => peer), nowMs: clock.now() };
    await fillSorted(parts, count - this.written - late);
    await fillAsTheyCome(parts, late);
    this.written = count;
    await registry.flush();
  }
}

/** The calls of a network, where those that are but names do not answer. */
function onlyReal(network: SimulatedHosts): HostCalls {
  const real = new Set(network.hosts.map(({ peer }) => peer));
  const reach = (host: string): SimulatedHosts => {
    if (!real.has(host)) throw new XcoreError('UNREACHABLE');
    return network;
  };
  return {
    retrieve: async (...call) => reach(call[0]).retrieve(...call),
    copy: async (...call) => reach(call[0]).copy(...call),
    list: async (...call) => reach(call[0]).list(...call),
    prove: async (...call) => reach(call[0]).prove(...call),
    findDeletion: async (...call) => reach(call[0]).findDeletion(...call),
  };
}

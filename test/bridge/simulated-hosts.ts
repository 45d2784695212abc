// Hosts of a bridge under test: their real parts on real folders, joined to it and to each other by function calls, so
// that time stands still until the test moves it.

import { rm, writeFile } from 'node:fs/promises';
import * as promises from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { Deletions } from '../../src/host/deletions.ts';
import { HOST_DEFAULTS } from '../../src/host/options.ts';
import { ShardStore } from '../../src/host/shard-store.ts';
import { Tombstones } from '../../src/host/tombstones.ts';
import { Transfers } from '../../src/host/transfers.ts';
import { openSerialStore, UsedSerials } from '../../src/host/used-serials.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import type { HostCalls } from '../../src/net/connected-hosts.ts';
import { readOrder } from '../../src/net/orders.ts';
import type { Signed, Standing } from '../../src/net/proto/wire_pb.ts';
import { Party, Session } from './harness.ts';
import type { Client, Harness, Scope, TestShard } from './harness.ts';

const CAPACITY_BYTES = 1_000_000_000;

/** One host. */
export class SimulatedHost extends Party {
  readonly dir: string;
  readonly store: ShardStore;
  readonly transfers: Transfers;
  readonly deletions: Deletions;
  /** What it says with its heartbeats. */
  exiting = false;
  rest = { restFromMs: 0n, restUntilMs: 0n, partTime: false };
  /** Neither heard of nor answering. */
  away = false;
  /** Heard of, and not answering. */
  mute = false;
  standing: Standing | undefined;
  readonly #network: SimulatedHosts;
  readonly #session: Session;
  #deleted: Uint8Array[] = [];

  constructor(
    network: SimulatedHosts,
    dir: string,
    parts: { readonly store: ShardStore; readonly serials: UsedSerials; readonly tombstones: Tombstones },
  ) {
    super();
    this.#network = network;
    this.dir = dir;
    const { store, serials, tombstones } = parts;
    this.store = store;
    this.#session = new Session(this.peer);
    const { clock, identity } = network.bridge;
    const bridge = identity.peer;
    this.transfers = new Transfers(
      {
        store,
        serials,
        tombstones,
        clock,
        metrics: createMetrics(),
        seed: this.seed,
        host: this.peer,
        bridge,
        fetchFrom: ({ host, order }) => network.fetch(host, this.peer, order),
      },
      HOST_DEFAULTS,
    );
    this.deletions = new Deletions({ store, tombstones, clock, log: silentLogger, host: this.peer, bridge });
  }

  async register(): Promise<void> {
    const value = { addresses: ['/ip4/127.0.0.1/tcp/1'], capacityBytes: BigInt(CAPACITY_BYTES), version: '1' };
    await this.#network.bridge.call(this.#session, { case: 'registerHost', value }, 'done');
    await this.beat();
  }

  /** A heartbeat, with the deletions that it brings. */
  async beat(): Promise<void> {
    const deleted = this.#deleted.splice(0);
    const { usedBytes } = this.store.budget;
    const reply = await this.#network.bridge.call(
      this.#session,
      {
        case: 'heartbeat',
        value: {
          capacityBytes: BigInt(CAPACITY_BYTES),
          usedBytes: BigInt(usedBytes),
          freeBytes: BigInt(CAPACITY_BYTES - usedBytes),
          deleted,
          exiting: this.exiting,
          ...this.rest,
        },
      },
      'heartbeatReply',
    );
    this.standing = reply.standing;
    this.#deleted.push(...(await this.deletions.carryOut(reply.deletes)));
  }

  async holds(shard: TestShard): Promise<boolean> {
    return (await this.#names()).includes(Buffer.from(shard.shardId).toString('hex'));
  }

  async count(): Promise<number> {
    return (await this.#names()).length;
  }

  /** Deletes a shard behind the host's own back. */
  async lose(shard: TestShard): Promise<void> {
    await rm(this.pathOf(shard), { force: true });
  }

  /** Holds a shard that nobody gave it. */
  async plant({ shardId, sizeBytes }: TestShard): Promise<void> {
    const path = this.pathOf({ shardId, sizeBytes });
    await promises.mkdir(dirname(path), { recursive: true });
    await writeFile(path, randomBytes(sizeBytes));
  }

  /** Changes every byte of a shard. */
  async corrupt(shard: TestShard): Promise<void> {
    await this.replace(shard, randomBytes(shard.sizeBytes));
  }

  /** Puts other bytes into the place of a shard. */
  async replace(shard: TestShard, data: Buffer): Promise<void> {
    await writeFile(this.pathOf(shard), data);
  }

  pathOf({ shardId }: TestShard): string {
    const name = Buffer.from(shardId).toString('hex');
    return join(this.dir, 'shards', name.slice(0, 2), name);
  }

  async #names(): Promise<string[]> {
    return (await this.store.list(new Uint8Array(), 100_000)).map((id) => Buffer.from(id).toString('hex'));
  }
}

/** All hosts of one bridge. */
export class SimulatedHosts implements HostCalls {
  readonly bridge: Harness;
  readonly hosts: SimulatedHost[] = [];
  /** Shards copied, in order, as hex. */
  readonly copies: string[] = [];
  readonly #contents = new Map<string, Buffer>();

  private constructor(bridge: Harness) {
    this.bridge = bridge;
    bridge.calls = this;
  }

  static async start(t: Scope, bridge: Harness, count: number): Promise<SimulatedHosts> {
    const network = new SimulatedHosts(bridge);
    const dir = t.testdir();
    for (let number = 0; number < count; number += 1) await network.join(t, join(dir, `host${number}`));
    return network;
  }

  async join(t: Scope, dir: string): Promise<SimulatedHost> {
    const { clock } = this.bridge;
    const state = await openSerialStore(join(dir, 'state'));
    const serials = await UsedSerials.open({ store: state, clock });
    const tombstones = await Tombstones.open({ store: state, clock });
    t.teardown(() => serials.close());
    const options = { ...HOST_DEFAULTS, floorBytes: 0, limitBytes: CAPACITY_BYTES };
    const store = await ShardStore.open(dir, { fs: promises, log: silentLogger }, options);
    t.teardown(() => store.close());
    const host = new SimulatedHost(this, dir, { store, serials, tombstones });
    this.hosts.push(host);
    await host.register();
    return host;
  }

  /** Places, stores and confirms a shard of random bytes. */
  async upload(client: Client, sizeBytes = 40_000): Promise<TestShard> {
    const data = randomBytes(sizeBytes);
    const shard = { shardId: shardIdOf(leafHashes(data), sizeBytes), sizeBytes };
    this.#contents.set(Buffer.from(shard.shardId).toString('hex'), data);
    await this.store(client, shard);
    return shard;
  }

  /** Places, stores and confirms a shard that was uploaded before. */
  async store(client: Client, shard: TestShard): Promise<void> {
    const data = this.bytesOf(shard);
    const { placements } = await client.place([shard]);
    const signal = new AbortController().signal;
    const context = { remotePeer: client.device.peer, signal };
    const receipts = placements[0]!.targets.map(({ host, order }) =>
      this.of(host).transfers.store(order, () => once(data), context),
    );
    await client.confirm(await Promise.all(receipts));
  }

  /** The bytes of an uploaded shard. */
  bytesOf({ shardId }: TestShard): Buffer {
    return this.#contents.get(Buffer.from(shardId).toString('hex'))!;
  }

  /** Lets time pass, with heartbeats and rounds of care each step. */
  async pass(steps: number, stepMs: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      this.bridge.clock.advance(stepMs);
      for (const host of this.hosts) if (!host.away) await host.beat();
      const { signal } = new AbortController();
      const { watch, audit, repair, inventory } = this.bridge.care;
      await watch(signal);
      await inventory(signal);
      await audit(signal);
      await repair(signal);
    }
  }

  /** Hosts that are there and have the shard, byte for byte. */
  async intact(shard: TestShard): Promise<SimulatedHost[]> {
    const data = this.#contents.get(Buffer.from(shard.shardId).toString('hex'))!;
    const found: SimulatedHost[] = [];
    for (const host of this.hosts) {
      if (host.away || !(await host.holds(shard))) continue;
      if ((await promises.readFile(host.pathOf(shard))).equals(data)) found.push(host);
    }
    return found;
  }

  of(peer: string): SimulatedHost {
    return this.hosts.find((host) => host.peer === peer)!;
  }

  async fetch(from: string, by: string, order: Signed | undefined): Promise<Buffer> {
    const host = this.#reach(from);
    const context = { remotePeer: by, signal: new AbortController().signal };
    return collect((await host.transfers.retrieve(order, 0, 0, context)).data);
  }

  async retrieve(
    ...[host, order, { firstLeaf, leafCount }]: Parameters<HostCalls['retrieve']>
  ): ReturnType<HostCalls['retrieve']> {
    const { data, proof } = await this.#reach(host).transfers.retrieve(order, firstLeaf, leafCount, this.#context());
    return { data: await collect(data), proof };
  }

  async copy(...[host, order, source]: Parameters<HostCalls['copy']>): ReturnType<HostCalls['copy']> {
    const copied = await this.#reach(host).transfers.copy(order, source, this.#context());
    this.copies.push(Buffer.from(readOrder(order).shardId).toString('hex'));
    return copied;
  }

  async prove(...[host, order, challenge]: Parameters<HostCalls['prove']>): Promise<Uint8Array> {
    return this.#reach(host).transfers.prove(order, challenge, this.#context());
  }

  async findDeletion(...[host, shardId]: Parameters<HostCalls['findDeletion']>): Promise<Signed | undefined> {
    return this.#reach(host).transfers.findDeletion(shardId, this.#context());
  }

  async list(...[host, after, limit]: Parameters<HostCalls['list']>): ReturnType<HostCalls['list']> {
    return this.#reach(host).transfers.list(after, limit, this.#context());
  }

  #reach(peer: string): SimulatedHost {
    const host = this.of(peer);
    if (host.away || host.mute) throw new XcoreError('UNREACHABLE', 'away');
    return host;
  }

  #context(): { remotePeer: string; signal: AbortSignal } {
    return { remotePeer: this.bridge.identity.peer, signal: new AbortController().signal };
  }
}

async function collect(parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const part of parts) all.push(part);
  return Buffer.concat(all);
}

async function* once(data: Buffer): AsyncGenerator<Buffer> {
  yield data;
}

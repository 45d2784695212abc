// A host without a network: its real parts on a real folder, a clock that the test moves, and a bridge
// that is only a key.

import { randomBytes } from 'node:crypto';
import * as promises from 'node:fs/promises';
import { join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { Allowance } from '../../src/host/allowance.ts';
import { Deletions } from '../../src/host/deletions.ts';
import type { HostFs } from '../../src/host/host-fs.ts';
import { HOST_DEFAULTS } from '../../src/host/options.ts';
import type { HostOptions } from '../../src/host/options.ts';
import { ShardStore } from '../../src/host/shard-store.ts';
import { Tombstones } from '../../src/host/tombstones.ts';
import { Transfers } from '../../src/host/transfers.ts';
import { openSerialStore, UsedSerials } from '../../src/host/used-serials.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import { signOrder, verifyReceipt } from '../../src/net/orders.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import type { OrderSchema, Receipt, Signed } from '../../src/net/proto/wire_pb.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** What a test has of a test. */
export interface Scope {
  testdir(): string;
  teardown(action: () => Promise<void>): unknown;
}

/** Bytes of a shard and their id. */
export interface TestShard {
  readonly id: Buffer;
  readonly data: Buffer;
}

/** A shard with random content. */
export function randomShard(sizeBytes: number): TestShard {
  const data = randomBytes(sizeBytes);
  return { data, id: shardIdOf(leafHashes(data), sizeBytes) };
}

/** Options of a harness. */
export interface HarnessOptions extends Partial<HostOptions> {
  readonly capacityBytes?: number;
  readonly fs?: HostFs;
  /** What the clock shows first, if not the machine's time. */
  readonly startMs?: number;
}

/** The host under test; `reopen` is a restart. */
export class Harness {
  readonly clock: FakeClock;
  readonly dir: string;
  readonly bridgeSeed = randomBytes(32);
  readonly bridge = peerNameOf(this.bridgeSeed);
  readonly seed = randomBytes(32);
  readonly host = peerNameOf(this.seed);
  readonly client = peerNameOf(randomBytes(32));
  /** What another host answers to a retrieval. */
  fetchFrom: (host: string) => Promise<Buffer> = () => Promise.reject(new XcoreError('UNREACHABLE'));
  readonly #options: HarnessOptions;
  #serials: UsedSerials | undefined;
  #tombstones: Tombstones | undefined;
  #store: ShardStore | undefined;
  #allowance: Allowance | undefined;
  #transfers: Transfers | undefined;

  private constructor(dir: string, options: HarnessOptions) {
    this.dir = dir;
    this.#options = options;
    this.clock = new FakeClock(options.startMs);
  }

  static async start(t: Scope, options: HarnessOptions = {}): Promise<Harness> {
    const harness = new Harness(t.testdir(), options);
    await harness.#open();
    t.teardown(() => harness.close());
    return harness;
  }

  get store(): ShardStore {
    return this.#store!;
  }

  get transfers(): Transfers {
    return this.#transfers!;
  }

  get allowance(): Allowance {
    return this.#allowance!;
  }

  get deletions(): Deletions {
    const { store, clock, host, bridge } = this;
    const tombstones = this.#tombstones!;
    return new Deletions({ store, tombstones, clock, log: silentLogger, host, bridge });
  }

  async close(): Promise<void> {
    await this.#store?.close();
    await this.#allowance?.stop();
    this.#allowance = undefined;
    await this.#serials?.close();
    this.#serials = undefined;
  }

  async reopen(): Promise<void> {
    await this.close();
    await this.#open();
  }

  /** An order of the bridge; what is not said permits this client to store the shard here. */
  order(
    shard: TestShard,
    fields: MessageInitShape<typeof OrderSchema> = {},
    seed: Uint8Array = this.bridgeSeed,
  ): Signed {
    return signOrder(seed, {
      serial: randomBytes(16),
      operation: 'store',
      shardId: shard.id,
      sizeBytes: shard.data.length,
      client: this.client,
      host: this.host,
      volume: randomBytes(32),
      expiresMs: BigInt(this.clock.now() + 3_600_000),
      ...fields,
    });
  }

  /** Sends bytes for an order, as the protocol would, and checks the receipt. */
  async put(order: Signed, data: Uint8Array | AsyncIterable<Buffer>, remotePeer = this.client): Promise<Receipt> {
    const receive = (): AsyncIterable<Buffer> => (data instanceof Uint8Array ? partsOf(data) : data);
    return verifyReceipt(await this.transfers.store(order, receive, this.#context(remotePeer)));
  }

  /** Stores a shard. */
  store1(shard: TestShard): Promise<Receipt> {
    return this.put(this.order(shard), shard.data);
  }

  /** Reads for an order. */
  async get(
    order: Signed,
    firstLeaf = 0,
    leafCount = 0,
    remotePeer = this.client,
  ): Promise<{ data: Buffer; proof: Uint8Array[] }> {
    const answer = await this.transfers.retrieve(order, firstLeaf, leafCount, this.#context(remotePeer));
    const parts: Uint8Array[] = [];
    for await (const part of answer.data) parts.push(part);
    return { data: Buffer.concat(parts), proof: answer.proof };
  }

  /** The path of a shard's file. */
  pathOf(shard: TestShard): string {
    const name = shard.id.toString('hex');
    return join(this.dir, 'shards', name.slice(0, 2), name);
  }

  #context(remotePeer: string): { remotePeer: string; signal: AbortSignal } {
    return { remotePeer, signal: new AbortController().signal };
  }

  async #open(): Promise<void> {
    const { clock, seed, host, bridge, dir } = this;
    const options = { ...HOST_DEFAULTS, floorBytes: 0, ...this.#options };
    const state = await openSerialStore(join(dir, 'state'));
    const serials = await UsedSerials.open({ store: state, clock });
    const tombstones = await Tombstones.open({ store: state, clock });
    this.#serials = serials;
    this.#tombstones = tombstones;
    const fs = this.#options.fs ?? promises;
    const limitBytes = this.#options.capacityBytes ?? 100_000_000;
    const store = await ShardStore.open(dir, { fs, log: silentLogger }, { ...options, limitBytes });
    this.#store = store;
    const allowance = await Allowance.open(dir, { clock, log: silentLogger }, options);
    this.#allowance = allowance;
    this.#transfers = new Transfers(
      {
        store,
        serials,
        allowance,
        tombstones,
        clock,
        metrics: createMetrics(),
        seed,
        host,
        bridge,
        fetchFrom: (source) => this.fetchFrom(source.host),
      },
      options,
    );
  }
}

async function* partsOf(data: Uint8Array): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += 100_000) yield Buffer.from(data.subarray(at, at + 100_000));
}

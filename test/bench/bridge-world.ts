// A bridge with many hosts and shards to measure: the bridge's own parts on a real LevelDB; a few hosts with all their
// parts, which store and show shards, and thousands that are no more than their heartbeats and names.

import { randomBytes, randomFillSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { toBinary } from '@bufbuild/protobuf';
import { shardKey, shareKey, stockKey, encodeNumber } from '../../src/bridge/keys.ts';
import { MirrorIndex } from '../../src/bridge/mirror-index.ts';
import type { BridgeOptions } from '../../src/bridge/options.ts';
import { MAX_SHARD_BYTES } from '../../src/bridge/policy.ts';
import { mirrorRecord, shardRecord, stockRecord, volumeRecord } from '../../src/bridge/records.ts';
import { STOCK_KEYS } from '../../src/bridge/hashed-keys.ts';
import { Volumes } from '../../src/bridge/volumes.ts';
import { publicKeyOf } from '../../src/crypto/sign.ts';
import type { StoreWrite } from '../../src/lib/store.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { HostCalls } from '../../src/net/connected-hosts.ts';
import { mintStock } from '../../src/net/key-stock.ts';
import { signReceipt } from '../../src/net/orders.ts';
import { SignedSchema } from '../../src/net/proto/wire_pb.ts';
import { Harness, Party } from '../bridge/harness.ts';
import type { Client, Host, TestShard } from '../bridge/harness.ts';
import { SimulatedHosts } from '../bridge/simulated-hosts.ts';

const REAL_HOSTS = 8;
const REAL_SHARDS = 32;
const HOST_BYTES = 4e12;
/** Of the shards that are written into the store. */
export const MIRRORS = 4;
const SHARDS_PER_VOLUME = 100_000;
const SHARDS_PER_BATCH = 1_000;
/** Kept so large that no volume is ever full, and no clock has to move for repair. */
const OPTIONS: Partial<BridgeOptions> = { maxHosts: 100_000, quotaBytes: 2 ** 50, repairBytesPerSecond: 0 };

/** A receipt as it is stored, with the places of what differs from one to the next. */
interface ReceiptForm {
  readonly bytes: Buffer;
  readonly serialAt: number;
  readonly shardAt: number;
  readonly signatureAt: number;
}

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
      const bridge = await Harness.start(scope, OPTIONS);
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
    const index = new MirrorIndex({ store, registry });
    const volumes = new Volumes(store, { maxVolumes: 1, quotaBytes: 1 });
    while (this.written < count) {
      const owner = new Party();
      const volume = publicKeyOf(owner.seed);
      const forms = this.hosts.map((host) => receiptForm(host, owner));
      const shares = new Map<string, bigint>();
      const shards = Math.min(SHARDS_PER_VOLUME, count - this.written);
      let writes: StoreWrite[] = [];
      for (let n = 0; n < shards; n += 1) {
        const shardId = randomBytes(32);
        const first = Math.floor(Math.random() * this.hosts.length);
        const countedMs = BigInt(clock.now());
        const mirrors = Array.from({ length: Math.min(MIRRORS, this.hosts.length) }, (_, at) => {
          const number = (first + at * 997) % this.hosts.length;
          const host = this.hosts[number]!.peer;
          writes.push(index.added(host, shardId, MAX_SHARD_BYTES));
          shares.set(host, (shares.get(host) ?? 0n) + BigInt(MAX_SHARD_BYTES));
          return mirrorRecord.make({ host, receipt: receiptOf(forms[number]!, shardId), countedMs });
        });
        const record = shardRecord.make({
          volume,
          sizeBytes: MAX_SHARD_BYTES,
          minReceipts: 3,
          addedSeq: 1n,
          mirrors,
          device: owner.peer,
          confirmedMs: countedMs,
        });
        const stock = stockRecord.make({ minter: owner.peer, keys: randomBytes(STOCK_KEYS * 48) });
        writes.push({ key: shardKey(shardId), value: shardRecord.encode(record) });
        writes.push({ key: stockKey(shardId), value: stockRecord.encode(stock) });
        if (n % SHARDS_PER_BATCH === SHARDS_PER_BATCH - 1) await store.batch(writes.splice(0));
      }
      for (const [host, bytes] of shares) writes.push({ key: shareKey(volume, host), value: encodeNumber(bytes) });
      const usedBytes = BigInt(shards) * BigInt(MAX_SHARD_BYTES);
      writes = [...writes, volumes.put(volume, volumeRecord.make({ headHash: new Uint8Array(32), usedBytes }))];
      await store.batch(writes, { sync: true });
      this.written += shards;
    }
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

/** A receipt of one host for one client; only its length and its random parts matter to the store. */
function receiptForm(host: Party, client: Party): ReceiptForm {
  const [shardId, serial] = [randomBytes(32), randomBytes(16)];
  const sizeBytes = MAX_SHARD_BYTES;
  const fields = { serial, shardId, sizeBytes, client: client.peer, host: host.peer, timeMs: BigInt(Date.now()) };
  const signed = signReceipt(host.seed, fields);
  const bytes = Buffer.from(toBinary(SignedSchema, signed));
  return {
    bytes,
    serialAt: bytes.indexOf(serial),
    shardAt: bytes.indexOf(shardId),
    signatureAt: bytes.indexOf(signed.signature),
  };
}

function receiptOf({ bytes, serialAt, shardAt, signatureAt }: ReceiptForm, shardId: Uint8Array): Buffer {
  const receipt = Buffer.from(bytes);
  receipt.set(shardId, shardAt);
  randomFillSync(receipt, serialAt, 16);
  randomFillSync(receipt, signatureAt, 64);
  return receipt;
}

// The bridge as a client calls it, in the terms of network.ts; joins calls that can go together.

import { fromBinary } from '@bufbuild/protobuf';
import { publicKeyOf } from '../crypto/sign.ts';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { signAuthentication } from './authentication.ts';
import { Batcher } from './batcher.ts';
import type { BridgeLink } from './bridge-link.ts';
import type { Head, Lease, NetworkSpace, PeerName, Policy, ShardStanding, WireEntry } from './network.ts';
import { peerNameOf } from './peer-name.ts';
import {
  MAX_CONFIRM_RECEIPTS,
  MAX_HAND_OVERS,
  MAX_LOCATE_SHARDS,
  MAX_PLACE_SHARDS,
  MAX_SHARD_BYTES,
} from './protocols.ts';
import { ReceiptSchema } from './proto/wire_pb.ts';
import type * as wire from './proto/wire_pb.ts';
import type { RpcClient } from './rpc.ts';

const AUTHENTICATION_MS = 10 * 60_000;
/** Place, Confirm and Locate calls under way, each kind. */
const MAX_BATCHES = 2;
/** Measured transfers that wait for the next Confirm; older ones are forgotten. */
const MAX_MEASUREMENTS = 256;

/** One transfer as it was measured. */
export interface Measurement {
  readonly host: PeerName;
  readonly sizeBytes: number;
  readonly durationMs: number;
  readonly upload: boolean;
}

/** A bridge that asked for smaller shards would have us drown in them. */
const MIN_POLICY_SHARD_BYTES = 64 * 1024;

/** Where one shard is to go. */
export interface Placed {
  readonly policy: Policy;
  readonly targets: readonly wire.Target[];
  /** Mirrors that the bridge already counts. */
  readonly receipts: number;
}

interface PlaceInput {
  readonly shard: { readonly shardId: Uint8Array; readonly sizeBytes: number };
  readonly excludeHosts: readonly PeerName[];
}

/** Authenticates the device for its owner's volume and asks for events. */
export async function greetBridge(
  rpc: RpcClient,
  bridge: PeerName,
  seeds: { readonly deviceSeed: Uint8Array; readonly ownerSeed: Uint8Array },
  clock: Clock = systemClock,
): Promise<void> {
  const expiresMs = BigInt(clock.now() + AUTHENTICATION_MS);
  const signature = signAuthentication(seeds.ownerSeed, bridge, peerNameOf(seeds.deviceSeed), expiresMs);
  const volume = publicKeyOf(seeds.ownerSeed);
  await rpc.call({ case: 'authenticate', value: { volume, expiresMs, signature } }, 'done');
  await rpc.call({ case: 'watch', value: {} }, 'done');
}

/** Calls of a client; each fails as BridgeLink.call does. */
export class BridgeCalls {
  readonly #link: BridgeLink;
  readonly #places: Batcher<PlaceInput, Placed>;
  readonly #confirms: Batcher<wire.Signed, wire.ShardStanding | undefined>;
  readonly #locates: Batcher<Uint8Array, wire.Location | undefined>;
  readonly #handOvers: Batcher<wire.Signed, void>;
  #measurements: Measurement[] = [];

  constructor(link: BridgeLink, clock: Clock = systemClock) {
    this.#link = link;
    this.#places = new Batcher((inputs) => this.#placeAll(inputs), MAX_PLACE_SHARDS, MAX_BATCHES, clock);
    this.#confirms = new Batcher((receipts) => this.#confirmAll(receipts), MAX_CONFIRM_RECEIPTS, MAX_BATCHES, clock);
    this.#locates = new Batcher((ids) => this.#locateAll(ids), MAX_LOCATE_SHARDS, MAX_BATCHES, clock);
    this.#handOvers = new Batcher((stocks) => this.#handOverAll(stocks), MAX_HAND_OVERS, MAX_BATCHES, clock);
  }

  async announce(sizeBytes: number): Promise<Policy> {
    return policyOf(await this.#link.call({ case: 'announce', value: { sizeBytes: BigInt(sizeBytes) } }, 'policy'));
  }

  async space(): Promise<NetworkSpace> {
    const info = await this.#link.call({ case: 'space', value: {} }, 'spaceInfo');
    return {
      quotaBytes: Number(info.quotaBytes),
      usedBytes: Number(info.usedBytes),
      networkFreeBytes: Number(info.networkFreeBytes),
      mirrors: info.mirrors,
      hosts: info.hosts.map((host) => ({
        host: host.host,
        online: host.online,
        lastSeenMs: Number(host.lastSeenMs),
        capacityBytes: Number(host.capacityBytes),
        usedBytes: Number(host.usedBytes),
        reliability: host.reliability,
      })),
    };
  }

  /** Asks for hosts for one shard, none of them excluded; NO_HOSTS, QUOTA. */
  place(id: Uint8Array, sizeBytes: number, excludeHosts: readonly PeerName[]): Promise<Placed> {
    return this.#places.add({ shard: { shardId: id, sizeBytes }, excludeHosts });
  }

  /** Hands in one receipt. */
  async confirm(receipt: wire.Signed): Promise<ShardStanding> {
    const standing = await this.#confirms.add(receipt);
    if (!standing) throw new XcoreError('REFUSED', 'the bridge does not count this receipt');
    return { mirrors: standing.mirrors, durable: standing.durable };
  }

  /** The mirrors of one shard, best first, none for a shard that the bridge does not know; and how many hashed keys it could do with. */
  async locate(id: Uint8Array): Promise<Pick<wire.Location, 'mirrors' | 'keysWanted'>> {
    return (await this.#locates.add(id)) ?? { mirrors: [], keysWanted: 0 };
  }

  /** Hands over a stock of hashed keys. */
  handOver(stock: wire.Signed): Promise<void> {
    return this.#handOvers.add(stock);
  }

  async report(host: PeerName, shardId: Uint8Array, code: string): Promise<void> {
    await this.#link.call({ case: 'report', value: { host, shardId, code } }, 'done');
  }

  /** Notes a transfer, to be told with the next receipts or by sendMeasurements(). */
  measured(measurement: Measurement): void {
    if (this.#measurements.length >= MAX_MEASUREMENTS) this.#measurements.shift();
    this.#measurements.push(measurement);
  }

  /** Tells the bridge what was measured since the last Confirm. */
  async sendMeasurements(): Promise<void> {
    if (this.#measurements.length > 0) await this.#confirmAll([]);
  }

  async append(entry: WireEntry, again: boolean): Promise<Head> {
    return headOf(await this.#link.call({ case: 'append', value: { entry: { ...entry }, again } }, 'head'));
  }

  async readLog(
    fromSeq: number,
    maxBytes: number,
    headersOnly: boolean,
  ): Promise<{ entries: WireEntry[]; head: Head }> {
    const answer = await this.#link.call(
      { case: 'readLog', value: { fromSeq: BigInt(fromSeq), maxBytes, headersOnly } },
      'logEntries',
    );
    if (!answer.head) throw new XcoreError('PROTOCOL', 'a log without a head');
    return {
      // Copies: the entries may be kept for longer than the message that they came in.
      entries: answer.entries.map(({ header, signature, body }) => ({
        header: Uint8Array.from(header),
        signature: Uint8Array.from(signature),
        body: Uint8Array.from(body),
      })),
      head: headOf(answer.head),
    };
  }

  async acquireLease(takeOver: boolean): Promise<Lease> {
    return leaseOf(await this.#link.call({ case: 'acquireLease', value: { takeOver } }, 'lease'));
  }

  async renewLease(epoch: number): Promise<Lease> {
    return leaseOf(await this.#link.call({ case: 'renewLease', value: { epoch: BigInt(epoch) } }, 'lease'));
  }

  async releaseLease(epoch: number): Promise<Lease> {
    return leaseOf(await this.#link.call({ case: 'releaseLease', value: { epoch: BigInt(epoch) } }, 'lease'));
  }

  async #placeAll(inputs: PlaceInput[]): Promise<Placed[]> {
    const excludeHosts = [...new Set(inputs.flatMap((input) => input.excludeHosts))];
    const answer = await this.#link.call(
      { case: 'place', value: { shards: inputs.map(({ shard }) => shard), excludeHosts } },
      'placements',
    );
    const policy = policyOf(answer.policy);
    return answer.placements.map(({ targets, receipts }) => ({ policy, targets, receipts }));
  }

  async #confirmAll(receipts: wire.Signed[]): Promise<(wire.ShardStanding | undefined)[]> {
    const transfers = this.#measurements.map(({ sizeBytes, durationMs, ...rest }) => ({
      ...rest,
      sizeBytes: BigInt(sizeBytes),
      durationMs: Math.max(1, Math.round(durationMs)),
    }));
    this.#measurements = [];
    const { shards } = await this.#link.call({ case: 'confirm', value: { receipts, transfers } }, 'confirmed');
    const standings = new Map(shards.map((shard) => [hexOf(shard.shardId), shard]));
    return receipts.map((receipt) => standings.get(hexOf(shardIdIn(receipt))));
  }

  async #handOverAll(stocks: wire.Signed[]): Promise<void[]> {
    await this.#link.call({ case: 'handOver', value: { stocks } }, 'done');
    return stocks.map(() => undefined);
  }

  async #locateAll(shardIds: Uint8Array[]): Promise<(wire.Location | undefined)[]> {
    const { locations } = await this.#link.call({ case: 'locate', value: { shardIds } }, 'locations');
    const known = new Map(locations.map((location) => [hexOf(location.shardId), location]));
    return shardIds.map((id) => known.get(hexOf(id)));
  }
}

/** A wire Head in the terms of network.ts. */
export function headOf(head: wire.Head): Head {
  return {
    seq: Number(head.seq),
    hash: Uint8Array.from(head.hash),
    checkpointEntrySeq: Number(head.checkpointEntrySeq),
  };
}

/** A wire Lease in the terms of network.ts. */
export function leaseOf(lease: wire.Lease): Lease {
  return {
    held: lease.held,
    epoch: Number(lease.epoch),
    holder: lease.holder,
    expiresInMs: Number(lease.expiresInMs),
  };
}

function policyOf(policy: wire.Policy | undefined): Policy {
  if (!policy) throw new XcoreError('PROTOCOL', 'an answer without a policy');
  const { shardSizeBytes, mirrors, minReceipts } = policy;
  if (shardSizeBytes < MIN_POLICY_SHARD_BYTES || shardSizeBytes > MAX_SHARD_BYTES || minReceipts < 1) {
    throw new XcoreError('PROTOCOL', 'a policy that makes no sense');
  }
  return { shardSizeBytes, mirrors, minReceipts };
}

function shardIdIn(receipt: wire.Signed): Uint8Array {
  return fromBinary(ReceiptSchema, receipt.body).shardId;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

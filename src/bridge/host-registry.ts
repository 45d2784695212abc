// What the bridge knows of hosts: where they are, their space, when they were last heard of, how fast
// and how reliable they are. Knows nothing of shards.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import { hostKey, ofKind } from './keys.ts';
import type { Candidate } from './placement.ts';
import type { HostRecord } from './proto/records_pb.ts';
import { hostRecord } from './records.ts';
import type { Store } from './store.ts';

/** Heartbeats that a host may miss before it counts as offline. */
const MISSED_HEARTBEATS = 3;
const FIRST_RELIABILITY = 0.8;
/** Weight of the newest event in the moving averages. */
const RELIABILITY_WEIGHT = 0.05;
const SPEED_WEIGHT = 0.2;
/** Transfers below this size say more about delay than about speed. */
const MIN_MEASURED_BYTES = 128 * 1024;
/** No client's word makes a host faster than this. */
const MAX_BYTES_PER_SECOND = 1_000_000_000;
const MAX_ADDRESSES = 16;
const MAX_ADDRESS_CHARACTERS = 256;

/** Times and bounds of a registry. */
export interface HostRegistryOptions {
  /** Between a host's heartbeats. */
  readonly heartbeatMs: number;
  /** A host counts for the policy for so long after it was last seen. */
  readonly existsForMs: number;
  readonly maxHosts: number;
}

/** A host's own figures. */
export interface HostSpace {
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
}

/** A host as placement, answers and status need it. */
export interface HostView extends Candidate, HostSpace {
  readonly addresses: readonly string[];
  readonly lastSeenMs: number;
}

interface Entry {
  readonly record: HostRecord;
  dirty: boolean;
}

/** All hosts of a bridge, in memory; changes reach the store by flush(). */
export class HostRegistry {
  readonly #hosts = new Map<PeerName, Entry>();
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #options: HostRegistryOptions;

  constructor(components: { readonly store: Store; readonly clock: Clock }, options: HostRegistryOptions) {
    this.#store = components.store;
    this.#clock = components.clock;
    this.#options = options;
  }

  /** Reads what is stored. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#store.range(ofKind('h'))) {
      const host = Buffer.from(key.subarray(1)).toString();
      this.#hosts.set(host, { record: hostRecord.decode(value), dirty: false });
    }
  }

  /** Writes what changed. */
  async flush(): Promise<void> {
    const dirty = [...this.#hosts].filter(([, entry]) => entry.dirty);
    for (const [, entry] of dirty) entry.dirty = false;
    if (dirty.length === 0) return;
    await this.#store.batch(
      dirty.map(([host, { record }]) => ({ key: hostKey(host), value: hostRecord.encode(record) })),
    );
  }

  /** Takes a host in, or its new addresses; PROTOCOL for malformed ones, REFUSED when there are too many hosts. */
  async register(
    host: PeerName,
    addresses: readonly string[],
    space: Pick<HostSpace, 'capacityBytes' | 'usedBytes'>,
  ): Promise<void> {
    if (addresses.length > MAX_ADDRESSES || addresses.some((address) => !isAddress(address))) {
      throw new XcoreError('PROTOCOL', 'malformed host addresses');
    }
    let entry = this.#hosts.get(host);
    if (!entry) {
      if (this.#hosts.size >= this.#options.maxHosts) {
        throw new XcoreError('REFUSED', 'this bridge takes no further hosts');
      }
      entry = { record: hostRecord.make({ reliability: FIRST_RELIABILITY }), dirty: true };
      this.#hosts.set(host, entry);
    }
    entry.record.addresses = [...addresses];
    this.heartbeat(host, { ...space, freeBytes: Math.max(0, space.capacityBytes - space.usedBytes) });
    await this.flush();
  }

  /** Notes that a host lives and its figures; NOT_FOUND when it has not registered. */
  heartbeat(host: PeerName, space: HostSpace): void {
    const entry = this.#hosts.get(host);
    if (!entry) throw new XcoreError('NOT_FOUND', 'this host has not registered');
    entry.record.capacityBytes = BigInt(space.capacityBytes);
    entry.record.usedBytes = BigInt(space.usedBytes);
    entry.record.freeBytes = BigInt(Math.min(space.freeBytes, space.capacityBytes));
    entry.record.lastSeenMs = BigInt(this.#clock.now());
    entry.dirty = true;
  }

  /** The host as it stands, or undefined. */
  get(host: PeerName): HostView | undefined {
    const entry = this.#hosts.get(host);
    return entry && this.#view(host, entry.record);
  }

  /** All hosts. */
  all(): HostView[] {
    return [...this.#hosts].map(([host, { record }]) => this.#view(host, record));
  }

  /** Number of hosts that count for the policy. */
  existing(): number {
    const since = this.#clock.now() - this.#options.existsForMs;
    let count = 0;
    for (const { record } of this.#hosts.values()) if (Number(record.lastSeenMs) >= since) count += 1;
    return count;
  }

  /** Notes that a transfer with the host went well. */
  succeeded(host: PeerName): void {
    this.#judge(host, 1);
  }

  /** Notes that the host failed or lied. */
  failed(host: PeerName): void {
    this.#judge(host, 0);
  }

  /** Notes what a client measured; small transfers are ignored. */
  measured(host: PeerName, sizeBytes: number, durationMs: number): void {
    const entry = this.#hosts.get(host);
    if (!entry || sizeBytes < MIN_MEASURED_BYTES) return;
    const speed = Math.min(MAX_BYTES_PER_SECOND, (sizeBytes * 1_000) / Math.max(1, durationMs));
    const before = entry.record.bytesPerSecond;
    entry.record.bytesPerSecond = before > 0 ? before + SPEED_WEIGHT * (speed - before) : speed;
    entry.dirty = true;
  }

  /** Takes bytes off a host's free space until its next heartbeat tells the truth. */
  took(host: PeerName, sizeBytes: number): void {
    const entry = this.#hosts.get(host);
    if (!entry) return;
    const free = entry.record.freeBytes - BigInt(sizeBytes);
    entry.record.freeBytes = free > 0n ? free : 0n;
  }

  #judge(host: PeerName, outcome: 0 | 1): void {
    const entry = this.#hosts.get(host);
    if (!entry) return;
    entry.record.reliability += RELIABILITY_WEIGHT * (outcome - entry.record.reliability);
    entry.dirty = true;
  }

  #view(host: PeerName, record: HostRecord): HostView {
    const lastSeenMs = Number(record.lastSeenMs);
    return {
      host,
      online: this.#clock.now() - lastSeenMs <= MISSED_HEARTBEATS * this.#options.heartbeatMs,
      addresses: record.addresses,
      lastSeenMs,
      capacityBytes: Number(record.capacityBytes),
      usedBytes: Number(record.usedBytes),
      freeBytes: Number(record.freeBytes),
      bytesPerSecond: record.bytesPerSecond,
      reliability: record.reliability,
    };
  }
}

function isAddress(address: string): boolean {
  return address.length <= MAX_ADDRESS_CHARACTERS && /^\/[\x21-\x7e]+$/.test(address);
}

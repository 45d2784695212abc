// What the bridge knows of hosts: where they are, their space, when they were last heard of, how fast
// and how reliable they are. Of shards it knows how many a host is to hold.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import { forgottenHosts } from './forgetting.ts';
import { creditFor, noteRest } from './host-rest.ts';
import { noteAudit, toldStanding, uptimeOf } from './host-standing.ts';
import { viewOf } from './host-view.ts';
import type { HostPlace, HostSpace, HostView } from './host-view.ts';
import { hostKey, ofKind } from './keys.ts';
import { NumberedHosts } from './numbered-hosts.ts';
import type { Place } from './placement.ts';
import { MAX_SHARD_BYTES } from './policy.ts';
import type { HostRecord } from './proto/records_pb.ts';
import type { Reachability } from './reachability.ts';
import { hostRecord } from './records.ts';
import type { Store } from '../lib/store.ts';

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
const MAX_COUNTED = 1_000_000;
/** How old the number of hosts may be. */
const COUNT_EVERY_MS = 1_000;
const MAX_ADDRESSES = 16;
const MAX_ADDRESS_CHARACTERS = 256;
const MAX_LABEL_CHARACTERS = 64;

/** Times and bounds of a registry. */
export interface HostRegistryOptions {
  /** Between a host's heartbeats. */
  readonly heartbeatMs: number;
  /** A host counts for the policy for so long after it was last seen. */
  readonly existsForMs: number;
  readonly maxHosts: number;
  /** A host that holds nothing and is silent for so long gives way to a new one. */
  readonly forgetAfterMs: number;
}

interface Entry {
  readonly host: PeerName;
  readonly record: HostRecord;
}

/** All hosts of a bridge, in memory; changes reach the store by flush(). */
export class HostRegistry {
  readonly #hosts = new Map<PeerName, Entry>();
  readonly #numbered = new NumberedHosts();
  readonly #dirty = new Set<Entry>();
  /** Hosts that count for the policy, and when they were counted; absent when there may be more by now. */
  #counted: { readonly atMs: number; readonly hosts: number } | undefined;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #reachability: Pick<Reachability, 'addressesOf' | 'forget'> | undefined;
  readonly #options: HostRegistryOptions;

  constructor(
    components: {
      readonly store: Store;
      readonly clock: Clock;
      readonly reachability?: Pick<Reachability, 'addressesOf' | 'forget'>;
    },
    options: HostRegistryOptions,
  ) {
    this.#store = components.store;
    this.#clock = components.clock;
    this.#reachability = components.reachability;
    this.#options = options;
  }

  /** Reads what is stored. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#store.range(ofKind('h'))) {
      const host = Buffer.from(key.subarray(1)).toString();
      this.#take({ host, record: hostRecord.decode(value) });
    }
    this.#dirty.clear();
    for (const entry of this.#hosts.values()) if (entry.record.number === 0) this.#number(entry);
    await this.flush();
  }

  /** Writes what changed. */
  async flush(): Promise<void> {
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    if (dirty.length === 0) return;
    await this.#store.batch(
      dirty.map(({ host, record }) => ({ key: hostKey(host), value: hostRecord.encode(record) })),
    );
  }

  /** Takes a host in, or its new addresses; PROTOCOL for malformed ones, REFUSED when there are too many hosts. */
  async register(
    host: PeerName,
    addresses: readonly string[],
    space: Pick<HostSpace, 'capacityBytes' | 'usedBytes'>,
    place: HostPlace = {},
  ): Promise<void> {
    if (addresses.length > MAX_ADDRESSES || addresses.some((address) => !isAddress(address))) {
      throw new XcoreError('PROTOCOL', 'malformed host addresses');
    }
    let entry = this.#hosts.get(host);
    if (!entry) {
      if (this.#hosts.size >= this.#options.maxHosts) await this.#makeRoom();
      const firstSeenMs = BigInt(this.#clock.now());
      entry = { host, record: hostRecord.make({ reliability: FIRST_RELIABILITY, firstSeenMs }) };
      this.#take(entry);
      this.#number(entry);
    }
    if (entry.record.firstSeenMs === 0n) entry.record.firstSeenMs = BigInt(this.#clock.now());
    entry.record.addresses = [...addresses];
    entry.record.network = place.network ?? '';
    entry.record.operator = labelOf(place.operator);
    entry.record.region = labelOf(place.region);
    this.heartbeat(host, { ...space, freeBytes: Math.max(0, space.capacityBytes - space.usedBytes) });
    await this.flush();
  }

  /** Notes that a host lives and its figures; NOT_FOUND when it has not registered. */
  heartbeat(host: PeerName, space: HostSpace): void {
    const entry = this.#known(host);
    entry.record.capacityBytes = BigInt(space.capacityBytes);
    entry.record.usedBytes = BigInt(space.usedBytes);
    entry.record.freeBytes = BigInt(Math.min(space.freeBytes, space.capacityBytes));
    const now = this.#clock.now();
    const lastMs = Number(entry.record.lastSeenMs);
    const there = now - lastMs <= this.#patienceMs ? Math.max(0, now - lastMs) : creditFor(entry.record, lastMs, now);
    entry.record.onlineMs += BigInt(there);
    entry.record.lastSeenMs = BigInt(now);
    if (now - lastMs > this.#options.existsForMs - COUNT_EVERY_MS) this.#counted = undefined;
    if (space.rest) noteRest(entry.record, space.rest);
    entry.record.paused = space.paused ?? false;
    entry.record.exiting ||= space.exiting ?? false;
    this.#dirty.add(entry);
  }

  /** The host's standing as it is told; NOT_FOUND when it has not registered. */
  standing(host: PeerName): ReturnType<typeof toldStanding> {
    const { record } = this.#known(host);
    const uptime = uptimeOf(record, this.#clock.now(), this.#isOnline(record));
    return toldStanding(record, uptime, () => this.#takersBesides(host));
  }

  /** Hosts that could take what this one holds. */
  #takersBesides(host: PeerName): number {
    const others = this.all().filter((view) => view.host !== host && view.online);
    return others.filter((view) => view.takesShards && view.freeBytes >= MAX_SHARD_BYTES).length;
  }

  /** Notes an audit that was answered, rightly or wrongly. */
  audited(host: PeerName, passed: boolean): void {
    this.#change(host, (record) => noteAudit(record, passed, this.#clock.now()));
  }

  /** Notes an audit that was answered with a good reason for not having the shard. */
  excused(host: PeerName): void {
    this.#change(host, (record) => {
      record.unanswered = 0;
      record.answeredMs = BigInt(this.#clock.now());
    });
  }

  /** Notes an audit without an answer. */
  unanswered(host: PeerName): void {
    this.#change(host, (record) => {
      record.unanswered = Math.min(MAX_COUNTED, record.unanswered + 1);
      if (record.answeredMs === 0n) record.answeredMs = BigInt(this.#clock.now());
    });
  }

  /** Notes that the host is to hold more shards, or fewer. */
  assigned(host: PeerName, shards: number, bytes: number): void {
    this.#change(host, (record) => {
      record.shards = atLeastZero(record.shards + BigInt(shards));
      record.shardBytes = record.shards === 0n ? 0n : atLeastZero(record.shardBytes + BigInt(bytes));
    });
  }

  /** Notes a complete inventory, and with it, if known, the true number of shards that the host is to hold. */
  inventoried(host: PeerName, shards: number | undefined): void {
    this.#change(host, (record) => {
      if (shards !== undefined) record.shards = BigInt(shards);
      record.inventoryMs = BigInt(this.#clock.now());
    });
  }

  /** Notes that the host is lost, its mirrors counting no more, or that it is back. */
  setLost(host: PeerName, lost: boolean): void {
    this.#change(host, (record) => (record.lostMs = lost ? BigInt(this.#clock.now()) : 0n));
  }

  /** The host as it stands, or undefined. */
  get(host: PeerName): HostView | undefined {
    const entry = this.#hosts.get(host);
    return entry && this.#view(host, entry.record);
  }

  /** Places of some hosts. */
  placesOf(hosts: readonly PeerName[]): Place[] {
    return hosts.flatMap((host) => this.get(host) ?? []);
  }

  /** Number of all hosts. */
  get size(): number {
    return this.#hosts.size;
  }

  /** The number of a host, or 0. */
  numberOf(host: PeerName): number {
    return this.#hosts.get(host)?.record.number ?? 0;
  }

  /** The host of a number, or undefined. */
  hostNumbered(number: number): PeerName | undefined {
    return this.#numbered.get(number);
  }

  /** All hosts. */
  all(): HostView[] {
    return [...this.#hosts].map(([host, { record }]) => this.#view(host, record));
  }

  /** Number of hosts that count for the policy. */
  existing(): number {
    const now = this.#clock.now();
    // Asked for with every shard; that a host has been away for long may be noticed a little late, but not that one is back.
    if (this.#counted && Math.abs(now - this.#counted.atMs) < COUNT_EVERY_MS) return this.#counted.hosts;
    const since = now - this.#options.existsForMs;
    let hosts = 0;
    for (const { record } of this.#hosts.values()) if (Number(record.lastSeenMs) >= since) hosts += 1;
    this.#counted = { atMs: now, hosts };
    return hosts;
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
    this.#dirty.add(entry);
  }

  /** Takes bytes off a host's free space until its next heartbeat tells the truth. */
  took(host: PeerName, sizeBytes: number): void {
    const entry = this.#hosts.get(host);
    if (!entry) return;
    const free = entry.record.freeBytes - BigInt(sizeBytes);
    entry.record.freeBytes = free > 0n ? free : 0n;
  }

  #take(entry: Entry): void {
    this.#hosts.set(entry.host, entry);
    if (entry.record.number > 0) this.#numbered.set(entry.record.number, entry.host);
    this.#dirty.add(entry);
    this.#counted = undefined;
  }

  /** Forgets hosts that hold nothing and were not heard of for long; REFUSED when there are none. */
  async #makeRoom(): Promise<void> {
    const sinceMs = this.#clock.now() - this.#options.forgetAfterMs;
    const { hosts, writes } = await forgottenHosts(this.#store, this.#hosts.values(), sinceMs);
    if (hosts.length === 0) throw new XcoreError('REFUSED', 'this bridge takes no further hosts');
    await this.#store.batch(writes);
    for (const host of hosts) {
      const entry = this.#hosts.get(host);
      // it may have come back meanwhile
      if (!entry || Number(entry.record.lastSeenMs) >= sinceMs) continue;
      this.#hosts.delete(host);
      this.#dirty.delete(entry);
      this.#numbered.delete(entry.record.number);
      this.#reachability?.forget(host);
    }
  }

  #number(entry: Entry): void {
    entry.record.number = this.#numbered.next();
    this.#numbered.set(entry.record.number, entry.host);
    this.#dirty.add(entry);
  }

  #isOnline(record: HostRecord): boolean {
    return this.#clock.now() - Number(record.lastSeenMs) <= this.#patienceMs;
  }

  #known(host: PeerName): Entry {
    const entry = this.#hosts.get(host);
    if (!entry) throw new XcoreError('NOT_FOUND', 'this host has not registered');
    return entry;
  }

  #change(host: PeerName, change: (record: HostRecord) => void): void {
    const entry = this.#hosts.get(host);
    if (!entry) return;
    change(entry.record);
    this.#dirty.add(entry);
  }

  get #patienceMs(): number {
    return MISSED_HEARTBEATS * this.#options.heartbeatMs;
  }

  #judge(host: PeerName, outcome: 0 | 1): void {
    const entry = this.#hosts.get(host);
    if (!entry) return;
    entry.record.reliability += RELIABILITY_WEIGHT * (outcome - entry.record.reliability);
    this.#dirty.add(entry);
  }

  #view(host: PeerName, record: HostRecord): HostView {
    const addresses = this.#reachability?.addressesOf(host, record.addresses) ?? record.addresses;
    return viewOf({ host, record, addresses, online: this.#isOnline(record), nowMs: this.#clock.now() });
  }
}

function atLeastZero(value: bigint): bigint {
  return value > 0n ? value : 0n;
}

function labelOf(text = ''): string {
  if (text.length <= MAX_LABEL_CHARACTERS && /^[\x21-\x7e]*$/.test(text)) return text;
  throw new XcoreError('PROTOCOL', 'malformed operator or region');
}

function isAddress(address: string): boolean {
  return address.length <= MAX_ADDRESS_CHARACTERS && /^\/[\x21-\x7e]+$/.test(address);
}

// One writer at a time: the lease of each volume. Holder and epoch are kept in the store; how long
// the lease still runs is not: after a restart a holder has the whole time to come back.

import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import type { Owner } from './authenticate.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { VolumeRecord } from './proto/records_pb.ts';
import { hexOf } from './records.ts';
import type { Store } from '../lib/store.ts';
import type { Volumes } from './volumes.ts';

const RAN_OUT = -1;

/** How one device sees the lease. */
export interface LeaseView {
  /** By this device. */
  readonly held: boolean;
  readonly epoch: bigint;
  /** Empty when free, also when it ran out. */
  readonly holder: PeerName;
  readonly expiresInMs: bigint;
}

/** Called after each change of the lease, with a view for any device. */
export type LeaseListener = (volume: Uint8Array, viewOf: (peer: PeerName) => LeaseView) => void;

/** What leases work with. */
export interface LeaseComponents {
  readonly store: Store;
  readonly volumes: Volumes;
  readonly volumeQueue: KeyedQueue;
  readonly clock: Clock;
  readonly onChange: LeaseListener;
}

/** Grants leases. A lease that ran out stays its holder's until somebody else asks for it. */
export class Leases {
  readonly #components: LeaseComponents;
  readonly #ttlMs: number;
  readonly #startedMs: number;
  /** When leases run out, by volume; one entry at most for each volume of the bridge. */
  readonly #expires = new Map<string, number>();

  constructor(components: LeaseComponents, options: { readonly ttlMs: number }) {
    this.#components = components;
    this.#ttlMs = options.ttlMs;
    this.#startedMs = components.clock.now();
  }

  /** Grants the lease if it is free, ran out, is the caller's already, or is taken over; else tells whose it is. */
  acquire(owner: Owner, takeOver: boolean): Promise<LeaseView> {
    return this.#change(owner, (record) => {
      const running = record.leaseHolder !== '' && this.#leftMs(owner.volume) > 0;
      if (running && record.leaseHolder !== owner.peer && !takeOver) return 'same';
      if (running && record.leaseHolder === owner.peer) return 'renewed';
      record.leaseEpoch += 1n;
      record.leaseHolder = owner.peer;
      record.touchedMs = BigInt(this.#components.clock.now());
      return 'granted';
    });
  }

  /** Makes the caller's lease run its whole time again; a view with held = false when it is another's by now. */
  renew(owner: Owner, epoch: bigint): Promise<LeaseView> {
    return this.#change(owner, (record) => (isHolder(record, owner.peer, epoch) ? 'renewed' : 'same'));
  }

  /** Lets go of the caller's lease; changes nothing when it is not the caller's. */
  release(owner: Owner, epoch: bigint): Promise<LeaseView> {
    return this.#change(owner, (record) => {
      if (!isHolder(record, owner.peer, epoch)) return 'same';
      record.leaseHolder = '';
      return 'released';
    });
  }

  /** The lease as a device sees it now. */
  view(volume: Uint8Array, record: VolumeRecord, peer: PeerName): LeaseView {
    const left = record.leaseHolder === '' ? 0 : Math.max(0, this.#leftMs(volume));
    const holder = left > 0 ? record.leaseHolder : '';
    return { held: holder === peer, epoch: record.leaseEpoch, holder, expiresInMs: BigInt(left) };
  }

  /** Tells watchers of leases that ran out since the last call. */
  async expire(): Promise<void> {
    const { clock, volumeQueue, volumes, onChange } = this.#components;
    const now = clock.now();
    const isDue = (expires: number | undefined): boolean => expires !== undefined && expires >= 0 && expires <= now;
    for (const [name, expires] of this.#expires) {
      if (!isDue(expires)) continue;
      const volume = Buffer.from(name, 'hex');
      // not while another device is granted the next one
      await volumeQueue
        .run(name, async () => {
          const record = await volumes.get(volume);
          if (!isDue(this.#expires.get(name))) return;
          this.#expires.set(name, RAN_OUT);
          onChange(volume, (peer) => this.view(volume, record, peer));
        })
        .catch(laterIfBusy);
    }
  }

  /** Makes sure that a lease from before the start is told of when it runs out. */
  track(volume: Uint8Array): void {
    const name = hexOf(volume);
    if (!this.#expires.has(name)) this.#expires.set(name, this.#startedMs + this.#ttlMs);
  }

  async #change(
    owner: Owner,
    decide: (record: VolumeRecord) => 'same' | 'renewed' | 'granted' | 'released',
  ): Promise<LeaseView> {
    const { volumeQueue, volumes, store, clock, onChange } = this.#components;
    const { volume } = owner;
    return volumeQueue.run(hexOf(volume), async () => {
      const record = await volumes.get(volume);
      const decision = decide(record);
      if (decision === 'granted') await volumes.ensure(volume);
      if (decision === 'granted' || decision === 'released') {
        await store.batch([volumes.put(volume, record)], { sync: true });
      }
      if (decision === 'granted' || decision === 'renewed') this.#expires.set(hexOf(volume), clock.now() + this.#ttlMs);
      if (decision === 'released') this.#expires.set(hexOf(volume), RAN_OUT);
      if (decision === 'granted' || decision === 'released') {
        onChange(volume, (peer) => this.view(volume, record, peer));
      }
      return this.view(volume, record, owner.peer);
    });
  }

  #leftMs(volume: Uint8Array): number {
    return (this.#expires.get(hexOf(volume)) ?? this.#startedMs + this.#ttlMs) - this.#components.clock.now();
  }
}

/** Throws LEASE_LOST unless an entry with this epoch and writer may be appended. */
export function checkWriter(record: VolumeRecord, peer: PeerName, epoch: bigint): void {
  if (isHolder(record, peer, epoch)) return;
  const holder = record.leaseHolder === '' ? 'nobody' : record.leaseHolder;
  throw new XcoreError('LEASE_LOST', `the volume is written by ${holder}, with epoch ${record.leaseEpoch}`);
}

function isHolder(record: VolumeRecord, peer: PeerName, epoch: bigint): boolean {
  return record.leaseHolder === peer && record.leaseEpoch === epoch;
}

/** Too many wait for the volume: it is looked at again soon. */
function laterIfBusy(error: unknown): void {
  if (!hasCode(error, 'REFUSED')) throw error;
}

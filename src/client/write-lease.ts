// Which device may write: the lease as this device knows it, and when it is to be asked for or renewed.
// Knows no volume and no log.

import type { Clock } from '../lib/clock.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Lease, Network } from '../net/network.ts';

/** A lease is asked for again this often while another device has it. */
const ACQUIRE_INTERVAL_MS = 5_000;
/** During what takes long, this is how often it is looked whether the lease is to be renewed. */
const KEEP_INTERVAL_MS = 500;

/** What a lease is kept with. */
export interface WriteLeaseComponents {
  readonly network: Network;
  /** Peer name of this device. */
  readonly device: string;
  readonly clock: Clock;
  /** This device writes from now on, or no longer. */
  readonly onRole: (writer: boolean) => void;
}

/** The lease of one volume on this device. */
export class WriteLease {
  readonly #c: WriteLeaseComponents;
  #writer = false;
  #epoch = 0;
  #holder = '';
  #takeOver: boolean;
  #untilMs = 0;
  #nextRenewMs = 0;
  #nextAcquireMs = 0;
  /** What the bridge said since the lease was last asked for. */
  #noted: Lease | null = null;

  constructor(components: WriteLeaseComponents, takeOver: boolean) {
    this.#c = components;
    this.#takeOver = takeOver;
  }

  /** Whether this device may change the volume now: with a lease, or going on from one while the bridge is away. */
  get writer(): boolean {
    return this.#writer;
  }

  /** Of the lease that was granted last; 0 while this device does not write. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Peer name of the device that holds the lease, as far as known. */
  get holder(): string {
    return this.#writer ? this.#c.device : this.#holder;
  }

  /** Whether the bridge granted it for a time that has not run out. */
  get isRunning(): boolean {
    return this.#untilMs > this.#c.clock.monotonicMs();
  }

  /** Writes from now on under `epoch`, as granted now or before a restart. */
  begin(epoch: number): void {
    this.#setWriter(true, epoch);
  }

  /** Only reads from now on; the lease, if there is one, stays this device's. */
  end(): void {
    this.#setWriter(false, 0);
  }

  #setWriter(writer: boolean, epoch: number): void {
    this.#epoch = epoch;
    if (this.#writer === writer) return;
    this.#writer = writer;
    this.#c.onRole(writer);
  }

  /** Another device has it: only reads from now on, and asks again in a while. */
  lose(): void {
    this.end();
    this.#untilMs = 0;
    this.#nextAcquireMs = this.#c.clock.monotonicMs() + ACQUIRE_INTERVAL_MS;
  }

  /** The bridge says who has it; true when this device has lost it thereby, and is to lose() it. */
  note(lease: Lease): boolean {
    // said before what is known by now
    if (this.#writer && lease.epoch < this.#epoch) return false;
    this.#noted = lease;
    this.#holder = lease.holder;
    if (lease.holder === '') this.#nextAcquireMs = 0;
    return this.#writer && lease.holder !== '' && lease.holder !== this.#c.device;
  }

  /** It is asked for or renewed at the next hold(). */
  hurry(): void {
    this.#nextRenewMs = 0;
    this.#nextAcquireMs = 0;
  }

  /** Is taken at the next hold() even if another device has it. */
  takeOver(): void {
    this.#takeOver = true;
    this.#nextAcquireMs = 0;
  }

  /**
   * Renews or asks for it when that is due. Returns a lease that is new, which grant() is to follow once all that
   * others published before is read; 'lost' when this device wrote and is to lose() it; null when nothing changed.
   */
  async hold(): Promise<Lease | 'lost' | null> {
    const now = this.#c.clock.monotonicMs();
    if (this.#writer && this.#untilMs > now) {
      if (now < this.#nextRenewMs) return null;
      const renewed = await this.#c.network.renewLease(this.#epoch).catch(nullIfNotOurs);
      if (renewed?.held === true) {
        this.grant(renewed);
        return null;
      }
      this.#nextAcquireMs = 0;
    }
    if (now < this.#nextAcquireMs) return null;
    this.#nextAcquireMs = now + ACQUIRE_INTERVAL_MS;
    this.#noted = null;
    const lease = await this.#c.network.acquireLease(this.#takeOver).catch(nullIfNotOurs);
    if (lease?.held !== true) {
      if (lease !== null) this.#holder = lease.holder;
      return this.#writer ? 'lost' : null;
    }
    this.#takeOver = false;
    this.#untilMs = 0;
    return lease;
  }

  /** Asks the bridge whether it is this device's still, and renews it. */
  async renew(): Promise<boolean> {
    const renewed = await this.#c.network.renewLease(this.#epoch).catch(nullIfNotOurs);
    if (renewed?.held !== true) return false;
    if (this.#writer) this.grant(renewed);
    return this.#writer;
  }

  /** Whether another device has taken over a lease that hold() has just returned. */
  isTaken(lease: Lease): boolean {
    const noted = this.#noted;
    return noted !== null && noted.epoch > lease.epoch && noted.holder !== '' && noted.holder !== this.#c.device;
  }

  /** Does what may take long, and renews the lease meanwhile; once it is gone, the work is told to end, and it is LEASE_LOST. */
  async keepDuring<T>(work: (signal: AbortSignal) => Promise<T>, stopping: AbortSignal): Promise<T> {
    const ending = new AbortController();
    const over = new AbortController();
    const end = (): void => over.abort();
    const result = work(AbortSignal.any([ending.signal, stopping]));
    result.then(end, end);
    for (;;) {
      await this.#c.clock.sleep(KEEP_INTERVAL_MS, over.signal).catch(() => undefined);
      if (over.signal.aborted) return result;
      // while the bridge is away, nobody else gets it either
      if (await this.#keep().catch(() => true)) continue;
      ending.abort();
      await result.catch(() => undefined);
      throw new XcoreError('LEASE_LOST', 'another device has the lease');
    }
  }

  /** Renews it if that is due; false when it is this device's no more. */
  async #keep(): Promise<boolean> {
    if (!this.#writer) return false;
    return this.#c.clock.monotonicMs() < this.#nextRenewMs || (await this.renew());
  }

  /** A lease is this device's from now until it runs out. */
  grant(lease: Lease): void {
    const now = this.#c.clock.monotonicMs();
    this.#untilMs = now + lease.expiresInMs;
    this.#nextRenewMs = now + lease.expiresInMs / 3;
    this.#epoch = lease.epoch;
    this.#holder = lease.holder;
  }
}

function nullIfNotOurs(error: unknown): null {
  if (hasCode(error, 'LEASE_LOST', 'LEASE_HELD')) return null;
  throw error;
}

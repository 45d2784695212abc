// Which hosts failed lately, so that not every transfer waits for a dead one first.

import { LRUCache } from 'lru-cache';
import type { PeerName } from './network.ts';

const MAX_FAILING_HOSTS = 256;
const FIRST_AVOID_MS = 5_000;
const MAX_AVOID_MS = 120_000;

interface Failing {
  readonly failures: number;
  readonly untilMs: number;
}

/** For how long to avoid a host after a first failure, and at most. */
export interface AvoidTimes {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Hosts to avoid: 5 s after a first failure unless told, doubling to 2 minutes while they go on failing. */
export class FailingHosts {
  readonly #hosts = new LRUCache<PeerName, Failing>({ max: MAX_FAILING_HOSTS });
  readonly #now: () => number;
  readonly #times: AvoidTimes;

  constructor(now: () => number = Date.now, times: AvoidTimes = { firstMs: FIRST_AVOID_MS, maxMs: MAX_AVOID_MS }) {
    this.#now = now;
    this.#times = times;
  }

  /** A transfer with this host failed. */
  failed(host: PeerName): void {
    const known = this.#hosts.get(host);
    const now = this.#now();
    // Many transfers fail at once when a host dies: that is one failure.
    if (known && known.untilMs > now) return;
    const failures = (known?.failures ?? 0) + 1;
    const avoidMs = Math.min(this.#times.maxMs, this.#times.firstMs * 2 ** (failures - 1));
    this.#hosts.set(host, { failures, untilMs: now + avoidMs });
  }

  /** A transfer with this host succeeded. */
  succeeded(host: PeerName): void {
    this.#hosts.delete(host);
  }

  /** Whether to prefer any other host now. */
  avoids(host: PeerName): boolean {
    const known = this.#hosts.peek(host);
    return known !== undefined && known.untilMs > this.#now();
  }

  /** All hosts to avoid now. */
  avoided(): PeerName[] {
    return [...this.#hosts.keys()].filter((host) => this.avoids(host));
  }
}

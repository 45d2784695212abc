// How often each peer asks, over all of its connections and streams.

import { LRUCache } from 'lru-cache';
import { RateLimit } from './rate-limit.ts';

/** Peers whose requests are counted, some tens of bytes each; one that has asked nothing for longest is forgotten beyond. */
const MAX_RATED_PEERS = 16_384;

/** A token bucket for each peer, full when it first asks. */
export class PeerRates {
  readonly #perSecond: number;
  readonly #limits = new LRUCache<string, RateLimit>({ max: MAX_RATED_PEERS });

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** The bucket of a peer. */
  of(peer: string, nowMs: number): RateLimit {
    let limit = this.#limits.get(peer);
    if (!limit) {
      limit = new RateLimit(this.#perSecond, nowMs);
      this.#limits.set(peer, limit);
    }
    return limit;
  }
}

// How long this client's own reads from each host took: which mirror is near, and when a read is slower than usual.

import { LRUCache } from 'lru-cache';
import type { PeerName } from './network.ts';

/** Hosts whose figures are kept. */
const MAX_HOSTS = 256;
/** Newest reads of each kind that count. */
const SAMPLES = 64;
/** Reads after which a host is ranked. */
const MIN_RANKED = 3;
/** Reads after which it is known what is slow for a host. */
const MIN_JUDGED = 20;
const SLOW_QUANTILE = 0.95;
/** Nothing is slow that takes less. */
const MIN_SLOW_MS = 50;
/** Reads above this size are compared by speed, smaller ones by time alone. */
const LARGE_BYTES = 256 * 1024;
const SHARD_BYTES = 2 * 1024 * 1024;

interface Figures {
  readonly small: Times;
  /** As if each had been a full shard. */
  readonly large: Times;
}

/** The last SAMPLES times, by age and by length. */
class Times {
  readonly #byAge: number[] = [];
  readonly #sorted: number[] = [];

  add(ms: number): void {
    this.#byAge.push(ms);
    this.#sorted.splice(this.#placeOf(ms), 0, ms);
    const oldest = this.#byAge.length > SAMPLES ? this.#byAge.shift() : undefined;
    if (oldest !== undefined) this.#sorted.splice(this.#placeOf(oldest), 1);
  }

  /** Undefined for fewer than `least`. */
  quantile(quantile: number, least: number): number | undefined {
    const { length } = this.#sorted;
    return length < least ? undefined : this.#sorted[Math.floor(quantile * (length - 1))];
  }

  /** Of the first that is not shorter. */
  #placeOf(ms: number): number {
    const place = this.#sorted.findIndex((other) => other >= ms);
    return place < 0 ? this.#sorted.length : place;
  }
}

/** Times of reads, in milliseconds. */
export class HostFigures {
  readonly #hosts = new LRUCache<PeerName, Figures>({ max: MAX_HOSTS });

  /** Notes a read; one that was given up because another mirror was quicker took at least so long. */
  took(host: PeerName, sizeBytes: number, durationMs: number): void {
    let figures = this.#hosts.get(host);
    if (!figures) this.#hosts.set(host, (figures = { small: new Times(), large: new Times() }));
    const times = sizeBytes > LARGE_BYTES ? figures.large : figures.small;
    times.add(sizeBytes > LARGE_BYTES ? (durationMs * SHARD_BYTES) / sizeBytes : durationMs);
  }

  /** How long a read of this size usually takes; undefined for a host that is hardly known. */
  usualMs(host: PeerName, sizeBytes: number): number | undefined {
    return this.#quantile(host, sizeBytes, 0.5, MIN_RANKED);
  }

  /** After how long a read of this size is slow for this host; undefined while that is not known. */
  slowMs(host: PeerName, sizeBytes: number): number | undefined {
    const slow = this.#quantile(host, sizeBytes, SLOW_QUANTILE, MIN_JUDGED);
    return slow === undefined ? undefined : Math.max(MIN_SLOW_MS, slow);
  }

  #quantile(host: PeerName, sizeBytes: number, quantile: number, least: number): number | undefined {
    const large = sizeBytes > LARGE_BYTES;
    const figures = this.#hosts.get(host);
    const time = (large ? figures?.large : figures?.small)?.quantile(quantile, least);
    return large && time !== undefined ? (time * sizeBytes) / SHARD_BYTES : time;
  }
}

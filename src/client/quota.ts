// The room on the network as the bridge last told it, less what went there or waits to go there since: what `df` shows,
// and what writes are refused by. Knows no store; the bridge has the last word, when bytes are uploaded.

import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { formatBytes } from '../lib/units.ts';
import type { Network, NetworkSpace } from '../net/network.ts';
import type { Problems } from './problems.ts';

/** While writes are refused, the bridge is asked this often whether there is room again. */
const REFUSED_REFRESH_MS = 1_000;

/** What a quota is known with. */
export interface QuotaComponents {
  readonly network: Network;
  readonly clock: Clock;
  readonly log: Logger;
  readonly problems: Problems;
  readonly isConnected: () => boolean;
  /** Bytes that are to be uploaded. */
  readonly stagedBytes: () => number;
  /** The same or a little more, quickly told. */
  readonly stagedBytesAtMost: () => number;
}

/** The quota of one volume. */
export class Quota {
  readonly #c: QuotaComponents;
  #space: NetworkSpace | null = null;
  /** Since the bridge was asked for the figures of `#space`. */
  #uploadedBytes = 0;
  /** Size of the last write that there was no room for. */
  #refusedBytes = 0;
  #refreshedMs = 0;

  constructor(components: QuotaComponents) {
    this.#c = components;
  }

  /** What the bridge said last; null before. */
  get space(): NetworkSpace | null {
    return this.#space;
  }

  /** Bytes that can still be written, as far as is known here; null before the bridge said anything. */
  get freeBytes(): number | null {
    if (this.#space === null) return null;
    const networkBytes = Math.floor(this.#space.networkFreeBytes / Math.max(1, this.#space.mirrors));
    return Math.max(0, Math.min(this.#left(this.#space, this.#c.stagedBytes()), networkBytes));
  }

  /** A shard has become durable. */
  noteUploaded(sizeBytes: number): void {
    this.#uploadedBytes += sizeBytes;
  }

  #left({ quotaBytes, usedBytes }: NetworkSpace, stagedBytes: number): number {
    return quotaBytes - usedBytes - this.#uploadedBytes - stagedBytes;
  }

  /** Refuses (EDQUOT) what there is no room for before it is taken: once staged, it would be in the way of all that follows. */
  admit(sizeBytes: number): void {
    const space = this.#space;
    if (space === null || sizeBytes <= this.#left(space, this.#c.stagedBytesAtMost())) return;
    if (sizeBytes <= this.#left(space, this.#c.stagedBytes())) return;
    this.#refusedBytes = sizeBytes;
    const quota = formatBytes(space.quotaBytes);
    const advice = 'remove files, or ask whoever runs the bridge for more room';
    this.#c.problems.set('quota', 'QUOTA', `the volume’s quota of ${quota} is used up, writes fail (EDQUOT)`, advice);
    // what was removed meanwhile makes room
    if (this.#c.clock.monotonicMs() - this.#refreshedMs > REFUSED_REFRESH_MS) void this.refresh();
    throw new XcoreError('EDQUOT', `the volume's quota of ${quota} is used up`);
  }

  /** Asks the bridge; keeps what was known when it does not answer. */
  async refresh(): Promise<void> {
    if (!this.#c.isConnected()) return;
    const uploadedBytes = this.#uploadedBytes;
    this.#refreshedMs = this.#c.clock.monotonicMs();
    try {
      this.#space = await this.#c.network.space();
      this.#uploadedBytes -= uploadedBytes;
      if (this.#left(this.#space, this.#c.stagedBytes()) >= this.#refusedBytes) this.#c.problems.clear('quota');
    } catch (error) {
      this.#c.log.debug({ error: asError(error) }, 'the bridge gave no figures');
    }
  }
}

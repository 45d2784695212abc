// Compares what a host says it holds with what it is to hold, page by page. What is missing is audited; what nobody
// knows is deleted only after it was unknown for long, since it may be the bridge that forgot.

import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { XcoreError } from '../lib/errors.ts';
import type { HostCalls } from '../net/connected-hosts.ts';
import type { PeerName } from '../net/network.ts';
import type { Auditor } from './auditor.ts';
import type { JobProgress } from './host-jobs.ts';
import type { HostRegistry } from './host-registry.ts';
import { decodeNumber, encodeNumber, nextId, shardAtEndOf, strayKey, straysOf } from './keys.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import type { OrderBook } from './order-book.ts';
import { hexOf } from './records.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** Ids that a host is asked for at once. */
const PAGE_IDS = 2_048;
/** Of the bridge's own ids beside them. */
const KNOWN_IDS = 4_096;
const LIST_TIMEOUT_MS = 30_000;
const SHARD_ID_BYTES = 32;

/** What an inventory works with. */
export interface InventoryComponents {
  readonly store: Store;
  readonly registry: HostRegistry;
  readonly index: MirrorIndex;
  readonly mirrors: Mirrors;
  readonly book: OrderBook;
  readonly auditor: Pick<Auditor, 'recheck' | 'recheckRoom'>;
  readonly calls: HostCalls;
  readonly clock: Clock;
}

/** Times of an inventory. */
export interface InventoryOptions {
  /** A shard that the bridge does not know is deleted after so long. */
  readonly strayAfterMs: number;
}

/** Takes inventories of hosts. */
export class Inventory {
  readonly #components: InventoryComponents;
  readonly #options: InventoryOptions;
  /** Shards counted so far, for each host whose inventory is under way. */
  readonly #counts = new Map<PeerName, number>();

  constructor(components: InventoryComponents, options: InventoryOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** One page of a host; a step of a job. */
  async step(host: PeerName, after: Uint8Array, stopping: AbortSignal): Promise<JobProgress> {
    const { registry, calls, auditor, clock } = this.#components;
    const view = registry.get(host);
    if (!view) return { after: undefined };
    if (!view.online || auditor.recheckRoom < KNOWN_IDS) return { after };
    if (after.length === 0) this.#counts.set(host, 0);
    const signal = deadline(clock, LIST_TIMEOUT_MS, stopping);
    const page = await calls.list(host, after, PAGE_IDS, signal);
    const told = checked(page.shardIds, after);
    const { known, to } = await this.#known(host, after, page.last ? undefined : told.at(-1));
    const there = new Set(told.filter((id) => !to || Buffer.compare(id, to) <= 0).map(hexOf));
    for (const shardId of known) {
      if (!there.delete(hexOf(shardId))) auditor.recheck(host, shardId);
    }
    const writes = await this.#strays(host, after, to, there);
    const count = this.#counts.get(host);
    if (count !== undefined) this.#counts.set(host, count + known.length);
    if (to) return { after: to, writes };
    // After a restart in the middle the number is not known.
    registry.inventoried(host, this.#counts.get(host));
    this.#counts.delete(host);
    return { after: undefined, writes };
  }

  /** What the host is to hold up to `to`, or as far as it fits; then up to where. */
  async #known(
    host: PeerName,
    after: Uint8Array,
    to: Uint8Array | undefined,
  ): Promise<{ known: Uint8Array[]; to: Uint8Array | undefined }> {
    const known = await this.#components.index.list(host, after, KNOWN_IDS, to);
    return { known, to: known.length < KNOWN_IDS ? to : known.at(-1) };
  }

  /** Notes strays that are new, forgets those that are none any more, and has old ones deleted. */
  async #strays(
    host: PeerName,
    after: Uint8Array,
    to: Uint8Array | undefined,
    unknown: ReadonlySet<string>,
  ): Promise<StoreWrite[]> {
    const { store, book, mirrors, clock } = this.#components;
    const now = clock.now();
    const writes: StoreWrite[] = [];
    const noted = new Set<string>();
    const from = after.length > 0 ? nextId(after) : after;
    for await (const [key, value] of store.range(straysOf(host, KNOWN_IDS, from, to && nextId(to)))) {
      const shardId = shardAtEndOf(key);
      const isStray = unknown.has(hexOf(shardId)) && !book.hostsOf(shardId).includes(host);
      const isOld = now - Number(decodeNumber(value)) >= this.#options.strayAfterMs;
      if (isStray) noted.add(hexOf(shardId));
      if (isStray && isOld) await mirrors.deleteStray(shardId, host);
      if (!isStray || isOld) writes.push({ key });
    }
    for (const id of unknown) {
      const shardId = Buffer.from(id, 'hex');
      if (noted.has(id) || book.hostsOf(shardId).includes(host)) continue;
      writes.push({ key: strayKey(host, shardId), value: encodeNumber(BigInt(now)) });
    }
    return writes;
  }
}

/** PROTOCOL unless the ids are well-formed, ascend, and come after `after`. */
function checked(shardIds: readonly Uint8Array[], after: Uint8Array): readonly Uint8Array[] {
  let last = after;
  for (const id of shardIds) {
    if (id.length !== SHARD_ID_BYTES || shardIds.length > PAGE_IDS || Buffer.compare(id, last) <= 0) {
      throw new XcoreError('PROTOCOL', 'a malformed inventory');
    }
    last = id;
  }
  return shardIds;
}

// Which hosts are to get a shard. Where there are many, they are drawn from a table of those that could take one, which is
// made anew now and then: a placement costs the same however many hosts there are.

import type { Clock } from '../lib/clock.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import type { OrderBook } from './order-book.ts';
import { chooseHosts, isFit, keepApart, weigherFor } from './placement.ts';
import type { PlacementRequest } from './placement.ts';
import { MAX_SHARD_BYTES } from './policy.ts';

/** Hosts up to which each placement looks at all of them. */
const MAX_CANDIDATES = 256;
/** Draws from the table for one placement. */
const MAX_DRAWS = 1_024;
/** How old the table may be. Whom it shows is looked at before it gets anything; who is new waits for the next one. */
const REBUILD_MS = 5_000;

/** What a pool works with. */
export interface HostPoolComponents {
  readonly registry: HostRegistry;
  readonly book: OrderBook;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
}

/** Hosts by their chances: the sum of weights up to and including each of them. */
interface Table {
  readonly madeMs: number;
  readonly hosts: readonly string[];
  readonly sums: Float64Array;
}

/** The hosts of a bridge, to choose from. */
export class HostPool {
  readonly #components: HostPoolComponents;
  #table: Table | undefined;

  constructor(components: HostPoolComponents) {
    this.#components = components;
  }

  /** Up to `count` distinct hosts, those of `prefer` first; `prefer` has the hosts with an order for this very shard. */
  choose(request: PlacementRequest): HostView[] {
    const { registry, random } = this.#components;
    if (request.count <= 0) return [];
    if (registry.size <= MAX_CANDIDATES) {
      return chooseHosts(
        registry.all().map((host) => this.#lessPromised(host, request)),
        request,
        random,
      );
    }
    const table = this.#current();
    if (table.hosts.length <= MAX_CANDIDATES) {
      return chooseHosts(this.#views(new Set([...(request.prefer ?? []), ...table.hosts]), request), request, random);
    }
    return keepApart(this.#draw(table, request), request);
  }

  *#draw(table: Table, request: PlacementRequest): Generator<HostView> {
    const prefer = request.prefer ?? new Set();
    yield* this.#views(prefer, request);
    const seen = new Set(prefer);
    // Drawing again after one that was drawn before is drawing without putting back.
    for (let draws = 0; draws < MAX_DRAWS; draws += 1) {
      const host = drawFrom(table, this.#components.random());
      if (seen.has(host)) continue;
      seen.add(host);
      yield* this.#views([host], request);
    }
  }

  /** Those of some hosts that are fit. */
  *#views(hosts: Iterable<string>, request: PlacementRequest): Generator<HostView> {
    for (const host of hosts) {
      const known = this.#components.registry.get(host);
      const view = known && this.#lessPromised(known, request);
      if (view && isFit(view, request)) yield view;
    }
  }

  /** The host with promised bytes taken off, but for those of the shard that is being placed again. */
  #lessPromised(host: HostView, { prefer, sizeBytes }: Pick<PlacementRequest, 'prefer' | 'sizeBytes'>): HostView {
    const promised = this.#components.book.promisedTo(host.host) - (prefer?.has(host.host) ? sizeBytes : 0);
    return promised > 0 ? { ...host, freeBytes: host.freeBytes - promised } : host;
  }

  #current(): Table {
    const { registry, clock } = this.#components;
    const now = clock.monotonicMs();
    if (this.#table && now - this.#table.madeMs < REBUILD_MS) return this.#table;
    const request = { sizeBytes: MAX_SHARD_BYTES, exclude: new Set<string>() };
    const fit = registry
      .all()
      .map((host) => this.#lessPromised(host, request))
      .filter((host) => isFit(host, request));
    const weigh = weigherFor(fit);
    const sums = new Float64Array(fit.length);
    let sum = 0;
    fit.forEach((host, at) => (sums[at] = sum += weigh(host)));
    this.#table = { madeMs: now, hosts: fit.map(({ host }) => host), sums };
    return this.#table;
  }
}

/** The host at a point of the table, 0 to 1. */
function drawFrom({ hosts, sums }: Table, point: number): string {
  const sought = point * sums[sums.length - 1]!;
  let [low, high] = [0, sums.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle]! > sought) high = middle;
    else low = middle + 1;
  }
  return hosts[low]!;
}

// Chooses hosts for one shard: distinct, random, the better ones more often. Knows no network and no store.

import type { PeerName } from '../net/network.ts';

/** Where a host is, as far as mirrors are to be kept apart; empty: not known. */
export interface Place {
  /** Seen by the bridge. */
  readonly network: string;
  readonly operator: string;
  readonly region: string;
  /** It rests now and then. */
  readonly partTime: boolean;
}

/** What a choice needs to know of a host. */
export interface Candidate extends Place {
  readonly host: PeerName;
  readonly online: boolean;
  /** What it can still take, promised bytes already taken off. */
  readonly freeBytes: number;
  /** Measured; 0 when never measured. */
  readonly bytesPerSecond: number;
  /** 0 to 1. */
  readonly reliability: number;
  /** Share of the time in which it was there, 0 to 1. */
  readonly uptime: number;
  /** Neither suspended nor leaving, paused or lost. */
  readonly takesShards: boolean;
  /** Has passed its first audits. */
  readonly vetted: boolean;
}

/** What is to be placed. */
export interface PlacementRequest {
  readonly sizeBytes: number;
  /** Hosts wanted; fewer come when fewer are fit. */
  readonly count: number;
  /** Hosts that hold the shard already or that just failed the client. */
  readonly exclude: ReadonlySet<PeerName>;
  /** Taken first where fit: they may hold the bytes from an earlier try. */
  readonly prefer?: ReadonlySet<PeerName>;
  /** Places that hold a mirror already; others are taken where there are some. */
  readonly holders?: readonly Place[];
}

const MIN_FREE_SHARE = 0.05;
const MIN_RELIABILITY = 0.05;
const MIN_UPTIME = 0.1;
const MAX_SPEED_ADVANTAGE = 4;
/** How much less often a host gets a shard before it is vetted. */
const VETTING_WEIGHT = 0.1;

/** Up to `count` distinct hosts, best luck first. `random` gives numbers in [0, 1). */
export function chooseHosts<C extends Candidate>(
  candidates: Iterable<C>,
  request: PlacementRequest,
  random: () => number,
): C[] {
  const fit = [...candidates].filter((candidate) => isFit(candidate, request));
  const weigh = weigherFor(fit);
  // Weighted sampling without replacement: Efraimidis and Spirakis, 2006, as exponential waiting times.
  const inOrder = fit
    .map((candidate) => ({
      candidate,
      preferred: request.prefer?.has(candidate.host) ?? false,
      wait: -Math.log(1 - random()) / weigh(candidate),
    }))
    .sort((a, b) => Number(b.preferred) - Number(a.preferred) || a.wait - b.wait)
    .map(({ candidate }) => candidate);
  return keepApart(inOrder, request);
}

/** Whether a host can be given what is to be placed. */
export function isFit(candidate: Candidate, request: Pick<PlacementRequest, 'sizeBytes' | 'exclude'>): boolean {
  return (
    candidate.online &&
    candidate.takesShards &&
    candidate.freeBytes >= request.sizeBytes &&
    !request.exclude.has(candidate.host)
  );
}

/**
 * Up to `count` hosts of those that come, luckiest first and preferred ones before all others: places apart before luck,
 * so the next one is the luckiest of those that share the least with earlier choices. Reads no further than it has to.
 */
export function keepApart<C extends Candidate>(inOrder: Iterable<C>, request: PlacementRequest): C[] {
  const { count, prefer } = request;
  const chosen: C[] = [];
  if (count <= 0) return chosen;
  const taken = new TakenPlaces(request.holders ?? []);
  const sharing: C[] = [];
  for (const candidate of inOrder) {
    if (prefer?.has(candidate.host) || taken.sharedBy(candidate) === 0) {
      taken.add(candidate);
      if (chosen.push(candidate) === count) return chosen;
    } else sharing.push(candidate);
  }
  while (chosen.length < count && sharing.length > 0) {
    const shares = sharing.map((candidate) => taken.sharedBy(candidate));
    const [next] = sharing.splice(shares.indexOf(Math.min(...shares)), 1);
    taken.add(next!);
    chosen.push(next!);
  }
  return chosen;
}

/** How often each of some candidates is to be chosen, as against the others. */
export function weigherFor(candidates: readonly Candidate[]): (candidate: Candidate) => number {
  const mostFree = candidates.reduce((most, { freeBytes }) => Math.max(most, freeBytes), 1);
  const usualSpeed = medianSpeed(candidates);
  return (candidate) => weightOf(candidate, mostFree, usualSpeed);
}

/** Places of mirrors, and how bad it is to share them. */
class TakenPlaces {
  readonly #networks = new Set<string>();
  readonly #operators = new Set<string>();
  readonly #regions = new Set<string>();
  #partTime = false;

  constructor(places: readonly Place[]) {
    for (const place of places) this.add(place);
  }

  add({ network, operator, region, partTime }: Place): void {
    if (network !== '') this.#networks.add(network);
    if (operator !== '') this.#operators.add(operator);
    if (region !== '') this.#regions.add(region);
    this.#partTime ||= partTime;
  }

  /** 0: nothing is shared. One operator is worst, then one network, two that may rest at once, one region. */
  sharedBy({ network, operator, region, partTime }: Place): number {
    return (
      8 * Number(this.#operators.has(operator)) +
      4 * Number(this.#networks.has(network)) +
      2 * Number(partTime && this.#partTime) +
      Number(this.#regions.has(region))
    );
  }
}

function weightOf(candidate: Candidate, mostFree: number, usualSpeed: number): number {
  const free = Math.max(MIN_FREE_SHARE, candidate.freeBytes / mostFree);
  const advantage = candidate.bytesPerSecond > 0 ? candidate.bytesPerSecond / usualSpeed : 1;
  const speed = Math.min(MAX_SPEED_ADVANTAGE, Math.max(1 / MAX_SPEED_ADVANTAGE, advantage));
  const reliability = Math.max(MIN_RELIABILITY, candidate.reliability);
  const uptime = Math.max(MIN_UPTIME, candidate.uptime);
  return free * speed * reliability * reliability * uptime * uptime * (candidate.vetted ? 1 : VETTING_WEIGHT);
}

function medianSpeed(candidates: readonly Candidate[]): number {
  const speeds = candidates
    .map((candidate) => candidate.bytesPerSecond)
    .filter((speed) => speed > 0)
    .sort((a, b) => a - b);
  return speeds[Math.floor(speeds.length / 2)] ?? 1;
}

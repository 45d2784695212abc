// In which order the mirrors of a shard are asked: what the bridge says, corrected by what this client knows itself.

import { LRUCache } from 'lru-cache';
import type { FailingHosts } from './failing-hosts.ts';
import type { HostFigures } from './host-figures.ts';
import type { PeerName } from './network.ts';

/** Mirrors that proved bad here and are asked last. */
const MAX_BAD_MIRRORS = 4_096;
/** Hosts whose times differ by less share the reads. */
const SIMILAR_FACTOR = 1.5;
/** Share of the reads that go in the bridge's order, so that a host that has become quicker is noticed. */
const EXPLORING_SHARE = 1 / 32;

/** What a ranking works with. */
export interface MirrorRankingComponents {
  readonly failing: FailingHosts;
  readonly figures: HostFigures;
  /** Numbers in [0, 1). */
  readonly random: () => number;
}

/** Ranks mirrors. */
export class MirrorRanking {
  readonly #components: MirrorRankingComponents;
  readonly #bad = new LRUCache<string, true>({ max: MAX_BAD_MIRRORS });

  constructor(components: MirrorRankingComponents) {
    this.#components = components;
  }

  /** A mirror is not what it should be. */
  bad(host: PeerName, shard: string): void {
    this.#bad.set(`${host} ${shard}`, true);
  }

  /** A mirror is what it should be, also if it was not once. */
  good(host: PeerName, shard: string): void {
    this.#bad.delete(`${host} ${shard}`);
  }

  /**
   * The targets, nearest first. Those that failed lately come last. A host that is not known yet and that the bridge
   * names first stays there: the bridge shuffles good hosts, so that each is tried in time.
   */
  rank<T extends { readonly host: PeerName }>(targets: readonly T[], shard: string, sizeBytes: number): T[] {
    const { failing, figures, random } = this.#components;
    const usual = new Map(targets.map(({ host }) => [host, figures.usualMs(host, sizeBytes)]));
    const known = [...usual.values()].filter((time) => time !== undefined).sort((a, b) => a - b);
    const median = known[Math.floor(known.length / 2)];
    const asTold = median === undefined || random() < EXPLORING_SHARE;
    const gradeOf = (host: PeerName, at: number): number => {
      const time = usual.get(host);
      if (asTold || (at === 0 && time === undefined)) return 0;
      return Math.max(1, Math.round(Math.log(1 + (time ?? median)) / Math.log(SIMILAR_FACTOR)));
    };
    return targets
      .map((target, at) => {
        const avoided = Number(failing.avoids(target.host)) + 2 * Number(this.#bad.has(`${target.host} ${shard}`));
        return { target, avoided, grade: gradeOf(target.host, at) };
      })
      .sort((a, b) => a.avoided - b.avoided || a.grade - b.grade)
      .map(({ target }) => target);
  }
}

// How many leaves a random read from the network fetches: its neighbours too, as long as they are read as well. Knows
// leaves by number only.

/** Leaves that are fetched together; a multiple of this begins each such group. */
export const RANGE_LEAVES = 4;
/** Groups of which it is known whether another of their leaves was read. */
const MAX_GROUPS = 64;
/** Of one group in the share of them. */
const WEIGHT = 1 / 16;
/** Share of groups below which a round trip is cheaper now and then than their bytes each time. */
const MIN_SHARE = 1 / 8;

interface Group {
  readonly leaf: number;
  isUsed: boolean;
}

/** Learns from what is read. */
export class RangeWidth {
  /** By number, oldest first. */
  readonly #groups = new Map<number, Group>();
  #share = 1;

  /** Leaves that the next read is to fetch: RANGE_LEAVES, or only its own. */
  get leaves(): number {
    return this.#share < MIN_SHARE ? 1 : RANGE_LEAVES;
  }

  /** A leaf is fetched for a reader. */
  fetched(leaf: number): void {
    const number = Math.floor(leaf / RANGE_LEAVES);
    this.used(leaf);
    if (this.#groups.has(number)) return;
    this.#groups.set(number, { leaf, isUsed: false });
    const [oldest] = this.#groups;
    if (this.#groups.size <= MAX_GROUPS || oldest === undefined) return;
    this.#groups.delete(oldest[0]);
    this.#share += (Number(oldest[1].isUsed) - this.#share) * WEIGHT;
  }

  /** A leaf is read. */
  used(leaf: number): void {
    const group = this.#groups.get(Math.floor(leaf / RANGE_LEAVES));
    if (group !== undefined && group.leaf !== leaf) group.isUsed = true;
  }
}

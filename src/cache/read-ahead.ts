// Guesses what one handle reads next. A sequential reader gets more and more shards fetched ahead
// of it; a random one nothing.

/** Shards ahead at most. */
const MAX_AHEAD_SHARDS = 8;
const SHARD_SIZE_BYTES = 2_097_152;
/** The kernel's own read-ahead may deliver requests a little out of order. */
const SLACK_BYTES = 1024 * 1024;

/** What is known of a read. */
export interface Reading {
  readonly sequential: boolean;
  readonly ahead: { readonly from: number; readonly to: number } | null;
  readonly steps: boolean;
}

/** The reading of one handle. */
export class ReadAhead {
  #next = 0;
  #aheadShards = 1;
  #asked = 0;

  /**
   * Notes a read; tells whether it goes on where earlier ones ended, which range should be here soon, and whether the
   * reader has come by the size of a shard again.
   */
  note(offset: number, sizeBytes: number): Reading {
    const end = offset + sizeBytes;
    const sequential = offset >= this.#next - SLACK_BYTES && offset <= this.#next + SLACK_BYTES;
    if (!sequential) {
      this.#next = end;
      this.#aheadShards = 1;
      this.#asked = end;
      return { sequential: false, ahead: null, steps: false };
    }
    const steps = Math.floor(end / SHARD_SIZE_BYTES) > Math.floor(this.#next / SHARD_SIZE_BYTES);
    this.#next = Math.max(this.#next, end);
    const target = this.#next + this.#aheadShards * SHARD_SIZE_BYTES;
    // ask again only when half of the last range is used up
    if (this.#asked > 0 && this.#asked - this.#next > (this.#aheadShards * SHARD_SIZE_BYTES) / 2) {
      return { sequential, ahead: null, steps };
    }
    const from = Math.max(this.#asked, this.#next);
    this.#asked = target;
    this.#aheadShards = Math.min(this.#aheadShards * 2, MAX_AHEAD_SHARDS);
    return { sequential, ahead: { from, to: target }, steps };
  }
}

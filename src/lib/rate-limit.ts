// Slows down who asks or moves too much, or turns it away.

/** A token bucket that holds one second's worth. */
export class RateLimit {
  readonly #perSecond: number;
  #tokens: number;
  #lastMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
    this.#lastMs = nowMs;
  }

  /** Counts one request, or so many units, and returns how long it has to wait, in milliseconds. */
  take(nowMs: number, units = 1): number {
    this.#earn(nowMs);
    this.#tokens -= units;
    return this.#tokens >= 0 ? 0 : Math.ceil((-this.#tokens * 1_000) / this.#perSecond);
  }

  /** Counts one request unless it would have to wait; whether it may go on. */
  takeNow(nowMs: number): boolean {
    this.#earn(nowMs);
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  #earn(nowMs: number): void {
    const earned = (Math.max(0, nowMs - this.#lastMs) * this.#perSecond) / 1_000;
    this.#lastMs = nowMs;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + earned);
  }
}

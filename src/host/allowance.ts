// What a host's owner allows it to move: how fast, how much a month, and when. Knows no shards and no peers.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { RateLimit } from '../lib/rate-limit.ts';
import { isOpen, nextChange } from './schedule.ts';
import type { Schedule } from './schedule.ts';
import { TrafficMeter } from './traffic-meter.ts';
import type { Direction, MonthTraffic } from './traffic-meter.ts';

/** Slower than this, a shard takes longer than its reader waits. */
export const MIN_BYTES_PER_SECOND = 64_000;
/** Under a limit, so many seconds are enough for all shards that are under way in one direction. */
const SECONDS_UNDER_WAY = 60;
const SHARD_BYTES = 2 * 1024 * 1024;
/** Under a limit, bytes leave in parts of this size: a reader must see something move. */
const PART_BYTES = 32 * 1024;

/** The owner's limits; 0 is none. */
export interface AllowanceOptions {
  /** Bytes a second to others and from them; at least MIN_BYTES_PER_SECOND. */
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
  /** Shard bytes of a calendar month, both ways together. */
  readonly monthlyBytes: number;
  readonly schedule?: Schedule | undefined;
}

/** A time in which the host moves no shards. */
export interface Rest {
  readonly reason: 'hours' | 'monthly';
  readonly fromMs: number;
  readonly untilMs: number;
}

/** The allowance of one host. Audits count and never wait. */
export class Allowance {
  readonly #options: AllowanceOptions;
  readonly #clock: Clock;
  readonly #meter: TrafficMeter;
  readonly #limits: Partial<Record<Direction, RateLimit>> = {};

  private constructor(meter: TrafficMeter, clock: Clock, options: AllowanceOptions) {
    this.#options = options;
    this.#clock = clock;
    this.#meter = meter;
    const now = clock.monotonicMs();
    if (options.upBytesPerSecond > 0) this.#limits.out = new RateLimit(options.upBytesPerSecond, now);
    if (options.downBytesPerSecond > 0) this.#limits.in = new RateLimit(options.downBytesPerSecond, now);
  }

  /** Reads what was moved this month; BAD_FORMAT. */
  static async open(
    dir: string,
    components: { readonly clock: Clock; readonly log: Logger },
    options: AllowanceOptions,
  ): Promise<Allowance> {
    const meter = await TrafficMeter.open(dir, components, options.monthlyBytes);
    return new Allowance(meter, components.clock, options);
  }

  start(): void {
    this.#meter.start();
  }

  /** Writes down what was moved. */
  stop(): Promise<void> {
    return this.#meter.stop();
  }

  get options(): AllowanceOptions {
    return this.#options;
  }

  get month(): MonthTraffic {
    return this.#meter.month;
  }

  /** Whether there are times in which the host rests, or may come to rest. */
  get partTime(): boolean {
    return this.#options.schedule !== undefined || this.#options.monthlyBytes > 0;
  }

  /** Transfers of one direction that may be under way so that none of them is too slow. */
  maxAtOnce(direction: Direction): number {
    const { upBytesPerSecond, downBytesPerSecond } = this.#options;
    const rate = direction === 'out' ? upBytesPerSecond : downBytesPerSecond;
    return rate === 0 ? Infinity : Math.max(1, Math.floor((rate * SECONDS_UNDER_WAY) / SHARD_BYTES));
  }

  /** The rest that is on now, or undefined. */
  resting(): Rest | undefined {
    const now = this.#clock.now();
    const { schedule } = this.#options;
    if (schedule && !isOpen(schedule, now)) {
      return { reason: 'hours', fromMs: now, untilMs: nextChange(schedule, now) };
    }
    if (this.#meter.fits(SHARD_BYTES)) return undefined;
    return { reason: 'monthly', fromMs: now, untilMs: this.#meter.turnsMs };
  }

  /** The rest that is on now, or else the next one that is known beforehand. */
  nextRest(): Rest | undefined {
    const resting = this.resting();
    const { schedule } = this.#options;
    if (resting || !schedule) return resting;
    const fromMs = nextChange(schedule, this.#clock.now());
    return fromMs === Infinity ? undefined : { reason: 'hours', fromMs, untilMs: nextChange(schedule, fromMs) };
  }

  /** Throws EAGAIN when the owner allows nothing to move now. */
  check(): void {
    const rest = this.resting();
    if (rest) throw new XcoreError('EAGAIN', `this host rests until ${new Date(rest.untilMs).toISOString()}`);
  }

  /** Counts bytes that are about to move; EAGAIN as check(). */
  take(direction: Direction, bytes: number): void {
    this.check();
    this.#meter.count(direction, bytes);
  }

  /** Counts bytes of an audit, which go before all others. */
  takeAudit(bytes: number): void {
    this.#meter.count('out', bytes);
    this.#limits.out?.take(this.#clock.monotonicMs(), bytes);
  }

  /** Whether the owner limits the speed of a direction. */
  paces(direction: Direction): boolean {
    return this.#limits[direction] !== undefined;
  }

  /** Waits until so many bytes may go, or have been allowed to come. */
  async pace(direction: Direction, bytes: number, signal: AbortSignal): Promise<void> {
    const waitMs = this.#limits[direction]?.take(this.#clock.monotonicMs(), bytes) ?? 0;
    if (waitMs > 0) await this.#clock.sleep(waitMs, signal);
  }

  /** The same bytes, each part when it may go. */
  async *pacedOut(
    parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    for await (const part of parts) {
      const step = this.#limits.out ? PART_BYTES : part.length;
      for (let at = 0; at < part.length; at += step) {
        const slice = part.subarray(at, at + step);
        await this.pace('out', slice.length, signal);
        yield slice;
      }
    }
  }

  /** The same bytes; the next part is asked for when this one was allowed to come. */
  async *pacedIn(parts: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
    for await (const part of parts) {
      await this.pace('in', part.length, signal);
      yield part;
    }
  }
}

// Counts the shard bytes that a host moves in a calendar month, over restarts, and says when the owner's cap is reached.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import type { Clock } from '../lib/clock.ts';
import { asError, XcoreError } from '../lib/errors.ts';
import { levelFailure } from '../lib/level-failure.ts';
import type { Logger } from '../lib/log.ts';

const FILE = 'traffic.json';
const VERSION = 1;
/** A crash forgets at most what was moved in so long, or so many bytes. */
const SAVE_INTERVAL_MS = 30_000;
const SAVE_BYTES = 64 * 1024 * 1024;
/** Left for audits, which are answered beyond the cap: this share of it, or a month of audits if that is less. */
const AUDIT_SHARE = 0.05;
const AUDIT_BYTES = 300_000_000;

/** Which way, as the host sees it. */
export type Direction = 'in' | 'out';

/** Bytes of one month. */
export interface MonthTraffic {
  /** As in 2026-11, in UTC. */
  readonly month: string;
  readonly inBytes: number;
  readonly outBytes: number;
}

/** What a meter works with. */
export interface TrafficMeterComponents {
  readonly clock: Clock;
  readonly log: Logger;
}

/** The traffic of one host, in its folder. */
export class TrafficMeter {
  readonly #path: string;
  readonly #components: TrafficMeterComponents;
  readonly #capBytes: number;
  readonly #stopping = new AbortController();
  #saving: Promise<void> | null = null;
  #soon = new AbortController();
  #month: MonthTraffic;
  #unsavedBytes = 0;
  #complaint = '';

  private constructor(path: string, components: TrafficMeterComponents, month: MonthTraffic, capBytes: number) {
    this.#path = path;
    this.#components = components;
    this.#month = month;
    this.#capBytes = capBytes;
  }

  /** Reads what is stored; `capBytes` 0 is no cap. BAD_FORMAT for what is not ours. */
  static async open(dir: string, components: TrafficMeterComponents, capBytes: number): Promise<TrafficMeter> {
    const path = join(dir, FILE);
    const month = (await read(path)) ?? emptyMonth(components.clock.now());
    return new TrafficMeter(path, components, month, capBytes);
  }

  /** Saves now and then, until stop(). */
  start(): void {
    this.#saving ??= this.#keepSaving();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#saving;
    await this.#save();
  }

  /** What was moved this month. */
  get month(): MonthTraffic {
    const now = this.#components.clock.now();
    // A clock that was set back does not give the cap anew.
    if (monthOf(now) > this.#month.month) this.#month = emptyMonth(now);
    return this.#month;
  }

  /** Whether so many bytes still fit under the cap. */
  fits(bytes: number): boolean {
    if (this.#capBytes === 0) return true;
    const { inBytes, outBytes } = this.month;
    const reserve = Math.min(AUDIT_BYTES, this.#capBytes * AUDIT_SHARE);
    return inBytes + outBytes + bytes <= this.#capBytes - reserve;
  }

  /** When the month ends, in milliseconds since 1970. */
  get turnsMs(): number {
    const [year = 0, month = 0] = this.month.month.split('-').map(Number);
    return Date.UTC(year, month);
  }

  /** Counts bytes that are about to move. */
  count(direction: Direction, bytes: number): void {
    const { month, inBytes, outBytes } = this.month;
    this.#month = {
      month,
      inBytes: inBytes + (direction === 'in' ? bytes : 0),
      outBytes: outBytes + (direction === 'out' ? bytes : 0),
    };
    this.#unsavedBytes += bytes;
    if (this.#unsavedBytes >= SAVE_BYTES) this.#soon.abort();
  }

  async #keepSaving(): Promise<void> {
    const { clock } = this.#components;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await clock.sleep(SAVE_INTERVAL_MS, AbortSignal.any([signal, this.#soon.signal])).catch(() => {});
      this.#soon = new AbortController();
      await this.#save();
    }
  }

  async #save(): Promise<void> {
    const unsaved = this.#unsavedBytes;
    if (unsaved === 0) return;
    try {
      const content = JSON.stringify({ version: VERSION, ...this.#month });
      await writeFileAtomic(this.#path, `${content}\n`, { mode: 0o600 });
      this.#unsavedBytes -= unsaved;
      this.#complaint = '';
    } catch (error) {
      const { message } = levelFailure('the traffic of this month could not be saved', asError(error));
      // once, not each time
      if (this.#complaint === '') this.#components.log.warn({}, message);
      this.#complaint = message;
    }
  }
}

function monthOf(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 7);
}

function emptyMonth(timeMs: number): MonthTraffic {
  return { month: monthOf(timeMs), inBytes: 0, outBytes: 0 };
}

async function read(path: string): Promise<MonthTraffic | null> {
  let stored: Record<string, unknown>;
  try {
    stored = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    if (!(error instanceof SyntaxError)) throw error;
    throw new XcoreError('BAD_FORMAT', `${path} is damaged; remove it`, { cause: error });
  }
  const { version, month, inBytes, outBytes } = stored;
  if (version !== VERSION) throw new XcoreError('BAD_FORMAT', `${path} is of another version; update xcore`);
  const whole = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;
  if (typeof month !== 'string' || !/^\d{4}-\d{2}$/.test(month) || !whole(inBytes) || !whole(outBytes)) {
    throw new XcoreError('BAD_FORMAT', `${path} is damaged; remove it`);
  }
  return { month, inBytes, outBytes };
}

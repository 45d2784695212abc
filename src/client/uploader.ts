// Brings sealed shards to hosts, in the background, several at once, for as long as it takes.

import { asError, hasCode } from '../lib/errors.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import type { Network } from '../net/network.ts';
import type { LocalVolume } from './local-volume.ts';
import type { Problems } from './problems.ts';

const PARALLEL_UPLOADS = 4;
const RETRY_DELAY_MS = 2_000;
const MAX_RETRY_DELAY_MS = 60_000;
/** Programs that write come first: uploads wait until they have paused for this long ... */
const QUIET_MS = 1_000;
/** ... but not longer than this, and not while so much of the cache is staged. */
const MAX_YIELD_MS = 10_000;
const MAX_YIELD_SHARE = 0.25;
const YIELD_CHECK_MS = 250;

/** What an uploader is built from. */
export interface UploaderComponents {
  readonly network: Network;
  readonly clock: Clock;
  readonly log: Logger;
  readonly problems: Problems;
  /** Enough hosts hold this shard now. */
  readonly onDurable: (shard: number) => void;
  /** The local bytes of a shard that hosts had are damaged, and go. */
  readonly onDamaged: (shard: number) => void;
}

/** The uploads of one local volume. */
export class Uploader {
  readonly #c: UploaderComponents;
  readonly #volume: LocalVolume;
  /** Waiting shards in order, with their sizes. */
  readonly #waiting = new Map<number, number>();
  readonly #active = new Map<number, Promise<void>>();
  /** Of uploads under way. */
  readonly #ends = new Map<number, AbortController>();
  readonly #activeBytes = new Map<number, number>();
  /** Shards that are uploaded all the same though they are dead, or hosts had them once. */
  readonly #needed = new Set<number>();
  readonly #stopping = new AbortController();
  /** Of uploads that failed and wait to be tried again. */
  readonly #pauses = new Set<AbortController>();
  #started = false;
  #urgent = 0;
  #yieldingSinceMs = 0;
  #timer: Timer | null = null;

  constructor(volume: LocalVolume, components: UploaderComponents) {
    this.#volume = volume;
    this.#c = components;
  }

  /** Takes up what an earlier run left. */
  async start(): Promise<void> {
    for (const { shard, upload } of await this.#volume.tree.uploads()) if (!upload.durable) this.add(shard);
    this.#started = true;
    this.#next();
  }

  /** Takes on a sealed shard; an open one is added when it is sealed. */
  add(shard: number): void {
    const entry = this.#volume.tree.shard(shard);
    if (entry === undefined || entry.id.length === 0 || this.#active.has(shard)) return;
    if (entry.liveBytes === 0 && !this.#needed.has(shard)) return;
    this.#waiting.set(shard, entry.sizeBytes);
    this.#next();
  }

  /** Takes on dead shards, too, and those that hosts had once. */
  need(shards: readonly number[]): void {
    for (const shard of shards) {
      this.#needed.add(shard);
      this.add(shard);
    }
  }

  /** Uploads at full speed, and tries again at once what failed, until the returned function is called. */
  hurry(): () => void {
    this.#urgent++;
    for (const pause of this.#pauses) pause.abort();
    this.#next();
    return () => this.#urgent--;
  }

  /** Ends the uploads of shards that nothing needs any more; resolves when none of them is under way. */
  async cease(shards: readonly number[]): Promise<void> {
    const under: Promise<void>[] = [];
    for (const shard of shards) {
      this.#waiting.delete(shard);
      this.#needed.delete(shard);
      this.#ends.get(shard)?.abort();
      under.push(this.#active.get(shard) ?? Promise.resolve());
    }
    await Promise.all(under);
  }

  /** Whether a shard is on its way. */
  isBusyWith(shard: number): boolean {
    return this.#active.has(shard);
  }

  /** Whether a shard is on its way, or waits for it. */
  has(shard: number): boolean {
    return this.#active.has(shard) || this.#waiting.has(shard);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get active(): number {
    return this.#active.size;
  }

  /** Bytes of all shards that wait or are under way. */
  get bytes(): number {
    let sum = 0;
    for (const size of this.#waiting.values()) sum += size;
    for (const size of this.#activeBytes.values()) sum += size;
    return sum;
  }

  #next(): void {
    if (!this.#started || this.#stopping.signal.aborted) return;
    for (const [shard, sizeBytes] of this.#waiting) {
      if (this.#active.size >= this.#limit()) return;
      this.#waiting.delete(shard);
      this.#activeBytes.set(shard, sizeBytes);
      const work = this.#upload(shard).finally(() => {
        this.#active.delete(shard);
        this.#activeBytes.delete(shard);
        this.#ends.delete(shard);
        // also what died while it waited is no problem any more
        if (this.#active.size === 0 && this.#waiting.size === 0) this.#c.problems.clear('upload');
        this.#next();
      });
      this.#active.set(shard, work);
    }
  }

  /** How many uploads may run now. */
  #limit(): number {
    const { files, segments, reader } = this.#volume;
    const now = this.#c.clock.monotonicMs();
    const isBusy = now - segments.lastAppendMs < QUIET_MS || reader.isFetching;
    const isFull = files.stagedBytes > files.capBytes * MAX_YIELD_SHARE;
    if (this.#urgent > 0 || isFull || !isBusy) {
      this.#yieldingSinceMs = 0;
      return PARALLEL_UPLOADS;
    }
    if (this.#yieldingSinceMs === 0) this.#yieldingSinceMs = now;
    this.#timer ??= this.#c.clock.after(YIELD_CHECK_MS, () => {
      this.#timer = null;
      this.#next();
    });
    return now - this.#yieldingSinceMs > MAX_YIELD_MS ? 1 : 0;
  }

  async #upload(shard: number): Promise<void> {
    const { tree, files, reader, store } = this.#volume;
    const end = new AbortController();
    this.#ends.set(shard, end);
    const signal = AbortSignal.any([this.#stopping.signal, end.signal]);
    for (let delayMs = RETRY_DELAY_MS; !signal.aborted; delayMs = Math.min(delayMs * 2, MAX_RETRY_DELAY_MS)) {
      const entry = tree.shard(shard);
      if (tree.isLost(shard)) this.#needed.delete(shard);
      if (entry === undefined || (entry.liveBytes === 0 && !this.#needed.has(shard))) return;
      const upload = tree.upload(shard);
      const hadHosts = upload === undefined || upload.durable;
      // the bridge looks for what hosts had
      if (hadHosts && !files.has(shard)) {
        this.#needed.delete(shard);
        return;
      }
      try {
        if (!files.has(shard)) await reader.prefetch(shard);
        const { id, sizeBytes } = entry;
        await this.#c.network.upload({ id, sizeBytes, path: files.path(shard) }, signal);
        this.#needed.delete(shard);
        this.#c.problems.clear('upload');
        if (tree.upload(shard) !== undefined) tree.putUpload(shard, { durable: true });
        // from then on its file may be let go of, and a power cut must not make it the only place again
        await store.commit(true);
        files.setStaged(shard, false);
        this.#c.onDurable(shard);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (hadHosts && hasCode(error, 'CORRUPT_SHARD')) await this.#dropDamaged(shard);
        else this.#tell(shard, asError(error));
        await this.#pause(delayMs, signal);
      }
    }
  }

  /** Its bytes are on hosts, and are fetched from there. */
  async #dropDamaged(shard: number): Promise<void> {
    this.#c.onDamaged(shard);
    await this.#volume.files.drop(shard);
  }

  async #pause(delayMs: number, ended: AbortSignal): Promise<void> {
    const pause = new AbortController();
    this.#pauses.add(pause);
    const signal = AbortSignal.any([pause.signal, ended]);
    await this.#c.clock.sleep(delayMs, signal).catch(() => undefined);
    this.#pauses.delete(pause);
  }

  #tell(shard: number, error: Error): void {
    this.#c.log.warn({ shard, error }, 'an upload failed; trying again');
    if (hasCode(error, 'CORRUPT_SHARD')) {
      const message = `staged bytes (shard ${shard}) were damaged on this disk before any host had them`;
      this.#c.problems.set(`damaged:${shard}`, 'CORRUPT_SHARD', message, 'check this disk; copy the files again');
    } else if (hasCode(error, 'QUOTA')) {
      const advice = 'remove what was written last, or ask whoever runs the bridge for more room';
      this.#c.problems.set('upload', 'QUOTA', 'the volume is at its quota; new bytes stay on this machine', advice);
    } else if (hasCode(error, 'NO_HOSTS')) {
      const message = 'the network has too few hosts with room; new bytes stay on this machine';
      this.#c.problems.set(
        'upload',
        'NO_HOSTS',
        message,
        'wait for hosts to come back, make room on their disks, or start another one: xcore serve',
      );
    } else {
      const message = `uploads fail: ${error.message}`;
      this.#c.problems.set('upload', 'UNREACHABLE', message, 'nothing to do: tried again until it works');
    }
  }

  /** Ends transfers; what was not durable is taken up at the next start. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#timer?.cancel();
    await Promise.all(this.#active.values());
  }
}

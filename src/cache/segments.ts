// The segments of a volume that are not sealed yet: where writes go, when they are sealed, and what
// happens to those that a crash left behind. One is open at a time, whatever files are written.

import { randomBytes } from 'node:crypto';
import { shardKey } from '../crypto/keys.ts';
import { MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { alignedMemory } from '../lib/direct-file.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import { SegmentBarrier } from './segment-barrier.ts';
import { recoverSegments, restoreSegments } from './segment-recovery.ts';
import type { RecoveryComponents, SegmentTail } from './segment-recovery.ts';
import { Segment } from './segment.ts';
import type { Hasher } from './hasher.ts';
import { FILE_SIZE_MAX_BYTES, fileSizeOf } from './shard-files.ts';

/** Unsealed segments at once; each holds its bytes in memory. */
const MAX_UNSEALED = 8;
/** Bytes that may wait in memory before a write to the file begins by itself. */
const WRITE_BEHIND_BYTES = 512 * 1024;
const CHECK_INTERVAL_MS = 500;
/** Room made before a segment begins: for it and the write that it takes. */
const RESERVE_BYTES = 2 * FILE_SIZE_MAX_BYTES;
/** How long a writer waits for uploads to make room, without any progress, before it gets ENOSPC. */
const ROOM_DEADLINE_MS = 10_000;
const POLL_MS = 500;

/** Bytes that lie in one shard. */
export interface Piece {
  readonly shard: number;
  readonly shardOffset: number;
  readonly lengthBytes: number;
}

/** When segments are sealed. */
export interface SegmentOptions {
  /** Sealed this long after the last write. */
  readonly idleMs: number;
  /** Sealed this long after the first write, however busy. */
  readonly maxAgeMs: number;
}

/** What segments are built from. */
export interface SegmentComponents extends RecoveryComponents {
  readonly dataKey: Buffer;
  readonly hasher: Pick<Hasher, 'hash'>;
  readonly clock: Clock;
  /** Salts of keys; the system's unless told. */
  readonly randomBytes?: RandomBytes;
  /** A shard was sealed and can be uploaded. */
  readonly onSealed: (shard: number) => void;
}

/** Takes what is written, encrypts it at once and lets go of it only when it is a sealed shard on disk. */
export class Segments {
  readonly #c: SegmentComponents;
  readonly #options: SegmentOptions;
  /** Oldest first; the last one may be open. */
  readonly #unsealed = new Map<number, Segment>();
  readonly #sealing = new Map<number, Promise<void>>();
  /** What the barriers of commits are made of. */
  readonly barrier: SegmentBarrier;
  readonly #spare: Uint8Array<SharedArrayBuffer>[] = [];
  #open: Segment | null = null;
  #sizeBytes = MAX_SHARD_SIZE_BYTES;
  #reserved = false;
  #lastAppendMs = -Infinity;
  #admission: Promise<void> | null = null;
  /** What sealing failed with, until some segment is sealed again. */
  #failure: unknown = null;
  #timer: Timer | null = null;

  constructor(components: SegmentComponents, options: SegmentOptions) {
    this.#c = components;
    this.#options = options;
    this.barrier = new SegmentBarrier(components.files, components.table, this.#unsealed);
  }

  start(): void {
    const timer = this.#c.clock.after(CHECK_INTERVAL_MS, () => {
      this.#check();
      if (this.#timer === timer) timer.restart();
    });
    this.#timer = timer;
  }

  /** Size at which the next segments are sealed, as the bridge decided. */
  setSize(sizeBytes: number): void {
    if (sizeBytes > 0 && sizeBytes <= MAX_SHARD_SIZE_BYTES) this.#sizeBytes = sizeBytes;
  }

  /** Bytes that are not in sealed shards yet. */
  get unsealedBytes(): number {
    let sum = 0;
    for (const segment of this.#unsealed.values()) sum += segment.length;
    return sum;
  }

  /** When bytes were last appended, by the monotonic clock; -Infinity before the first. */
  get lastAppendMs(): number {
    return this.#lastAppendMs;
  }

  #check(): void {
    const segment = this.#open;
    if (segment === null || segment.length === 0) return;
    const now = this.#c.clock.monotonicMs();
    const due = now - segment.lastAppendMs >= this.#options.idleMs || now - segment.startedMs >= this.#options.maxAgeMs;
    if (due) this.#close();
  }

  /**
   * Makes sure that append() can take `sizeBytes` (at most 1 MiB): waits while too many segments
   * are unsealed or the cache is full of staged bytes. ENOSPC when it stays full.
   */
  admit(sizeBytes: number): Now<void> {
    const open = this.#open;
    if (open !== null && open.roomBytes >= sizeBytes && this.#admission === null) return;
    if (this.#admission === null && this.#unsealed.size < MAX_UNSEALED) {
      this.#reserved ||= this.#c.files.reserveNow(RESERVE_BYTES);
      if (this.#reserved) return;
    }
    const turn = (this.#admission ?? Promise.resolve()).catch(() => undefined).then(() => this.#makeRoom(sizeBytes));
    this.#admission = turn;
    const clear = (): void => {
      if (this.#admission === turn) this.#admission = null;
    };
    turn.then(clear, clear);
    return turn;
  }

  async #makeRoom(sizeBytes: number): Promise<void> {
    if (this.#open !== null && this.#open.roomBytes >= sizeBytes) return;
    await this.#waitForSeals();
    if (this.#reserved) return;
    let deadline = this.#c.clock.monotonicMs() + ROOM_DEADLINE_MS;
    let staged = this.#c.files.stagedBytes;
    for (;;) {
      try {
        await this.#c.files.reserve(RESERVE_BYTES);
        this.#reserved = true;
        return;
      } catch (error) {
        // the open segment may be all that could be uploaded
        this.#close();
        if (this.#c.files.stagedBytes < staged) {
          staged = this.#c.files.stagedBytes;
          deadline = this.#c.clock.monotonicMs() + ROOM_DEADLINE_MS;
        }
        if (this.#c.clock.monotonicMs() > deadline) throw error;
        await this.#c.files.waitForRoom(POLL_MS);
      }
    }
  }

  /** Waits while too many segments are unsealed; EIO when they cannot be written. */
  async #waitForSeals(): Promise<void> {
    let deadline = 0;
    let waitsFor = -1;
    while (this.#unsealed.size >= MAX_UNSEALED) {
      const [oldest] = this.#sealing;
      if (oldest === undefined) return;
      const [shard, work] = oldest;
      const now = this.#c.clock.monotonicMs();
      if (shard !== waitsFor) deadline = now + ROOM_DEADLINE_MS;
      else if (now > deadline && this.#failure !== null) {
        throw new XcoreError('EIO', 'nothing can be written to the cache folder', { cause: this.#failure });
      }
      waitsFor = shard;
      await Promise.race([work, this.#c.files.waitForRoom(POLL_MS)]);
    }
  }

  /**
   * Encrypts `data` at the end of the open segment, going on in a new one where it is full. Each
   * piece must be given an extent in the same turn, so that one commit holds both.
   */
  append(data: Buffer): Piece[] {
    const pieces: Piece[] = [];
    const now = this.#c.clock.monotonicMs();
    this.#lastAppendMs = now;
    for (let done = 0; done < data.length;) {
      const segment = this.#open ?? this.#begin(now);
      const part = data.subarray(done, done + segment.roomBytes);
      const shardOffset = segment.append(part, now);
      pieces.push({ shard: segment.shard, shardOffset, lengthBytes: part.length });
      const entry = this.#c.table.requireShard(segment.shard);
      entry.sizeBytes = segment.length;
      entry.crc32 = segment.crc32;
      this.#c.table.putShard(segment.shard, entry);
      done += part.length;
      if (segment.roomBytes === 0) this.#close();
      else if (segment.unwrittenBytes >= WRITE_BEHIND_BYTES) segment.flush(false).catch(() => undefined);
    }
    return pieces;
  }

  #begin(nowMs: number): Segment {
    const salt = (this.#c.randomBytes ?? randomBytes)(32);
    const shard = this.#c.table.createShard(salt);
    const memory = this.#spare.pop() ?? alignedMemory(MAX_SHARD_SIZE_BYTES);
    const key = shardKey(this.#c.dataKey, salt);
    const prepare = (): Promise<string> => this.#c.files.prepare(shard);
    const segment = new Segment(shard, key, memory, this.#sizeBytes, prepare, this.#c.files.disk, nowMs);
    if (this.#reserved) this.#c.files.release(RESERVE_BYTES);
    this.#reserved = false;
    this.#c.files.add(shard, FILE_SIZE_MAX_BYTES, true);
    this.#unsealed.set(shard, segment);
    this.#open = segment;
    return segment;
  }

  /** Ends the open segment and seals it in the background. */
  #close(): void {
    const segment = this.#open;
    if (segment === null || segment.length === 0) return;
    this.#open = null;
    const work = this.#seal(segment).finally(() => this.#sealing.delete(segment.shard));
    this.#sealing.set(segment.shard, work);
  }

  /** Tries until it is done: a segment that cannot be written stays readable in memory. */
  async #seal(segment: Segment): Promise<void> {
    for (;;) {
      try {
        const { id, sizeBytes } = await segment.seal(this.#c.hasher);
        const entry = this.#c.table.requireShard(segment.shard);
        // the commit that comes by itself takes it: until then a start seals the same bytes again
        this.#c.table.putShard(segment.shard, { ...entry, id, sizeBytes });
        this.#failure = null;
        break;
      } catch (error) {
        this.#failure = error;
        this.#c.log.warn({ shard: segment.shard, error }, 'a segment could not be sealed; trying again');
        if (this.#timer === null) return; // stopping: it is found again at the next start
        await this.#c.clock.sleep(1_000);
      }
    }
    this.#c.files.add(segment.shard, fileSizeOf(segment.length), true);
    this.#unsealed.delete(segment.shard);
    await this.barrier.add(segment);
    await segment.letGoOfMemory();
    if (this.#spare.length < MAX_UNSEALED) this.#spare.push(segment.memory);
    this.#c.onSealed(segment.shard);
  }

  /** Seals what is open and resolves when everything written before is in sealed shards. */
  async seal(): Promise<void> {
    this.#close();
    await Promise.all(this.#sealing.values());
  }

  /** Whether the bytes of a shard are still in memory. */
  holds(shard: number): boolean {
    return this.#unsealed.has(shard);
  }

  /** Fills `target` with plaintext of a shard that is still in memory; false for another one. */
  read(shard: number, offset: number, target: Buffer): boolean {
    const segment = this.#unsealed.get(shard);
    segment?.read(offset, target);
    return segment !== undefined;
  }

  /** Puts ends of segments that a journal kept back into their files, before recover(). */
  restore(tails: readonly SegmentTail[], isStaged: (shard: number) => boolean): Promise<void> {
    return restoreSegments(this.#c, tails, isStaged);
  }

  /** Seals what an earlier run left open; such a segment is never continued. */
  recover(staged: readonly number[]): Promise<void> {
    return recoverSegments(this.#c, staged);
  }

  /** Seals what is open and closes all files; what cannot be sealed now is sealed at the next start. */
  async stop(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    await this.seal();
    try {
      await this.barrier.wait(true);
    } finally {
      for (const segment of this.#unsealed.values()) await segment.close();
    }
  }
}

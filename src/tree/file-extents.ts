// Which bytes of which shard a file shows at each offset, with the counts that each change entails:
// stored bytes of inode and volume, live bytes of shards. Knows windows and shards, not what they hold.

import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import { cut, emptyWindow, place, spansOf, WINDOW_SIZE_BYTES } from './extents.ts';
import type { Span, Window } from './extents.ts';
import { COUNTERS_KEY, decodeNumber, keyBytes, shardKeyOf, windowKey } from './keys.ts';
import type { Counters, Inode, Shard } from './records.ts';
import type { RecordStore } from './record-store.ts';

/** Windows of a file that are looked for one by one; past that their keys are listed from disk. */
const PROBED_WINDOWS = 256;
/** Extents after which share() stops at the end of a window, so that one request does not hold up all others. */
const MAX_SHARED_EXTENTS = 16_384;

/** The part of a tree that extents work on. */
export interface ExtentTable {
  readonly store: RecordStore;
  readonly counters: Counters;
  inode(ino: number): Inode | undefined;
  touch(inode: Inode): void;
  requireShard(shard: number): Shard;
}

/** The extents of all files of one volume. Methods without a promise take effect at once. */
export class FileExtents {
  readonly #table: ExtentTable;

  constructor(table: ExtentTable) {
    this.#table = table;
  }

  get #store(): RecordStore {
    return this.#table.store;
  }

  #window(ino: number, index: number): Window | undefined {
    return this.#store.get(windowKey(ino, index)) as Window | undefined;
  }

  /** Where the bytes [offset, offset + lengthBytes) of a file lie; Span offsets are file offsets here. */
  spans(ino: number, offset: number, lengthBytes: number): Span[] {
    const result: Span[] = [];
    const end = offset + lengthBytes;
    for (let at = offset; at < end;) {
      const index = Math.floor(at / WINDOW_SIZE_BYTES);
      const base = index * WINDOW_SIZE_BYTES;
      const to = Math.min(end - base, WINDOW_SIZE_BYTES);
      const window = this.#window(ino, index);
      if (window === undefined) {
        result.push({ offset: at, lengthBytes: base + to - at, shard: 0, shardOffset: 0 });
      } else {
        for (const span of spansOf(window, at - base, to)) result.push({ ...span, offset: base + span.offset });
      }
      at = base + to;
    }
    return result;
  }

  /** Lets bytes of a shard appear at `offset` of a file, over what was there; the caller touches the inode. */
  put(inode: Inode, offset: number, lengthBytes: number, shard: number, shardOffset: number): void {
    let done = 0;
    while (done < lengthBytes) {
      const at = offset + done;
      const index = Math.floor(at / WINDOW_SIZE_BYTES);
      const inside = at - index * WINDOW_SIZE_BYTES;
      const part = Math.min(lengthBytes - done, WINDOW_SIZE_BYTES - inside);
      const window = this.#window(inode.ino, index) ?? emptyWindow();
      const removed = place(window, { offset: inside, lengthBytes: part, shard, shardOffset: shardOffset + done });
      this.#store.put(windowKey(inode.ino, index), window);
      this.#account(inode, part);
      this.#release(inode, removed);
      done += part;
    }
    const record = this.#table.requireShard(shard);
    record.liveBytes += lengthBytes;
    this.#store.put(shardKeyOf(shard), record);
  }

  #account(inode: Inode, bytes: number): void {
    inode.storedBytes += bytes;
    const { counters } = this.#table;
    counters.storedBytes += bytes;
    this.#store.put(COUNTERS_KEY, counters);
  }

  #release(inode: Inode, spans: readonly Span[]): void {
    for (const span of spans) {
      this.#account(inode, -span.lengthBytes);
      const shard = this.#table.requireShard(span.shard);
      shard.liveBytes -= span.lengthBytes;
      this.#store.put(shardKeyOf(span.shard), shard);
    }
  }

  /**
   * Lets `to` show at `toOffset` what `from` shows at [fromOffset, fromOffset + lengthBytes), holes
   * included, without a byte being copied; the caller touches `to`. The ranges must not overlap.
   * Returns how many bytes it did, at least one: fewer than asked for where extents are many.
   */
  share(from: Inode, fromOffset: number, to: Inode, toOffset: number, lengthBytes: number): number {
    let done = 0;
    let extents = 0;
    while (done < lengthBytes && extents < MAX_SHARED_EXTENTS) {
      const at = fromOffset + done;
      const part = Math.min(lengthBytes - done, WINDOW_SIZE_BYTES - (at % WINDOW_SIZE_BYTES));
      for (const span of this.spans(from.ino, at, part)) {
        const target = toOffset + (span.offset - fromOffset);
        if (span.shard === 0) this.#cut(to, target, target + span.lengthBytes);
        else this.put(to, target, span.lengthBytes, span.shard, span.shardOffset);
        extents++;
      }
      done += part;
    }
    return done;
  }

  /** Makes [from, to) a hole, looking at each window of it. */
  #cut(inode: Inode, from: number, to: number): void {
    for (let index = Math.floor(from / WINDOW_SIZE_BYTES); index * WINDOW_SIZE_BYTES < to; index++) {
      this.#cutWindow(inode, index, from, to);
    }
  }

  #cutWindow(inode: Inode, index: number, from: number, to: number): void {
    const window = this.#window(inode.ino, index);
    if (window === undefined) return;
    const base = index * WINDOW_SIZE_BYTES;
    const removed = cut(window, Math.max(0, from - base), Math.min(WINDOW_SIZE_BYTES, to - base));
    if (removed.length === 0) return;
    this.#release(inode, removed);
    if (window.offsets.length === 0) this.#store.delete(windowKey(inode.ino, index));
    else this.#store.put(windowKey(inode.ino, index), window);
  }

  /** Indexes of the windows of a file from `first` up to, not including, `end` that exist; at once when they are few. */
  #windowsIn(ino: number, first: number, end: number): Now<number[]> {
    if (end - first > PROBED_WINDOWS) return this.#listWindows(ino, first, end);
    const found: number[] = [];
    for (let i = first; i < end; i++) if (this.#window(ino, i) !== undefined) found.push(i);
    return found;
  }

  async #listWindows(ino: number, first: number, end: number): Promise<number[]> {
    // the operation that asks must end first, so that one commit holds all of it
    await Promise.resolve();
    await this.#store.commit();
    const found: number[] = [];
    for await (const index of this.#indexes(ino, first)) {
      if (index >= end) break;
      found.push(index);
    }
    return found;
  }

  /** Indexes of the committed windows of a file from `first` on. */
  async *#indexes(ino: number, first: number): AsyncGenerator<number> {
    const prefix = windowKey(ino, 0).slice(0, 9);
    for await (const { key } of this.#store.plaintexts(prefix, { from: keyBytes(windowKey(ino, first)) })) {
      yield decodeNumber(key, 9);
    }
  }

  /**
   * Makes [from, to) of a file a hole and touches its inode, in one turn, so that it lies in one
   * commit; where `to` is the end or beyond, the file is cut to `from` unless `keepSize`. Writes to
   * the file must not run meanwhile. EROFS when this device stopped being the writer while it waited.
   */
  free(inode: Inode, from: number, to: number, keepSize: boolean): Now<void> {
    const end = Math.min(to, inode.sizeBytes);
    const free = (indexes: readonly number[]): void => {
      const current = this.#table.inode(inode.ino);
      if (current === undefined) return;
      for (const index of indexes) this.#cutWindow(current, index, from, to);
      if (!keepSize && to >= current.sizeBytes) current.sizeBytes = Math.min(current.sizeBytes, from);
      this.#table.touch(current);
    };
    if (inode.storedBytes === 0 || end <= from) return free([]);
    const indexes = this.#windowsIn(
      inode.ino,
      Math.floor(from / WINDOW_SIZE_BYTES),
      Math.ceil(end / WINDOW_SIZE_BYTES),
    );
    if (!(indexes instanceof Promise)) return free(indexes);
    return indexes.then((listed) => {
      if (!this.#store.recording) throw new XcoreError('EROFS', 'another device writes this volume now');
      free(listed);
    });
  }

  /** The first offset from `from` on that is not in a hole, or null when only a hole follows. */
  nextData(inode: Inode, from: number): Now<number | null> {
    const end = Math.ceil(inode.sizeBytes / WINDOW_SIZE_BYTES);
    const first = Math.floor(from / WINDOW_SIZE_BYTES);
    for (let index = first; index < Math.min(end, first + PROBED_WINDOWS); index++) {
      const found = this.#dataIn(inode.ino, index, from);
      if (found !== null) return found;
    }
    return end <= first + PROBED_WINDOWS ? null : this.#listData(inode.ino, first + PROBED_WINDOWS);
  }

  async #listData(ino: number, first: number): Promise<number | null> {
    await this.#store.commit();
    for await (const index of this.#indexes(ino, first)) {
      const found = this.#dataIn(ino, index, 0);
      if (found !== null) return found;
    }
    return null;
  }

  #dataIn(ino: number, index: number, from: number): number | null {
    const window = this.#window(ino, index);
    if (window === undefined) return null;
    const base = index * WINDOW_SIZE_BYTES;
    const data = spansOf(window, Math.max(0, from - base), WINDOW_SIZE_BYTES).find(({ shard }) => shard !== 0);
    return data === undefined ? null : base + data.offset;
  }

  /** The first offset from `from` on that is in a hole; the end of the file counts as one. */
  nextHole(inode: Inode, from: number): number {
    for (let at = from; at < inode.sizeBytes;) {
      const index = Math.floor(at / WINDOW_SIZE_BYTES);
      const base = index * WINDOW_SIZE_BYTES;
      const window = this.#window(inode.ino, index);
      if (window === undefined) return at;
      const hole = spansOf(window, at - base, WINDOW_SIZE_BYTES).find(({ shard }) => shard === 0);
      if (hole !== undefined) return Math.min(base + hole.offset, inode.sizeBytes);
      at = base + WINDOW_SIZE_BYTES;
    }
    return inode.sizeBytes;
  }
}

// How the bytes of a volume's segments reach their files and the disk: at the barrier of each commit, or by way of a
// journal. Holds the sealed segments whose files no sync has brought to the disk yet; knows nothing of writers.

import type { SegmentTail } from './segment-recovery.ts';
import type { Segment } from './segment.ts';
import type { ShardFiles } from './shard-files.ts';
import type { ShardTable } from './shard-table.ts';

/** Sealed segments that may wait for a sync. */
const MAX_UNSYNCED = 16;
/** Bytes that may go into a journal with one sync: to write more of them twice costs more than to sync their file. */
const MAX_TAIL_BYTES = 128 * 1024;

/** What commits ask of the bytes that they refer to. */
export class SegmentBarrier {
  readonly #files: Pick<ShardFiles, 'syncFolders'>;
  readonly #table: ShardTable;
  /** Not sealed yet; its owner's. */
  readonly #unsealed: ReadonlyMap<number, Segment>;
  /** Sealed, their files complete but perhaps not on the disk yet. */
  readonly #unsynced = new Map<number, Segment>();
  /** Files were synced and let go of, but not their names. */
  #hasUnsyncedNames = false;

  constructor(files: Pick<ShardFiles, 'syncFolders'>, table: ShardTable, unsealed: ReadonlyMap<number, Segment>) {
    this.#files = files;
    this.#table = table;
    this.#unsealed = unsealed;
  }

  *#segments(): Generator<Segment> {
    yield* this.#unsealed.values();
    yield* this.#unsynced.values();
  }

  /** Takes a segment that was sealed just now; resolves soon, or when some were synced because too many wait. */
  async add(segment: Segment): Promise<void> {
    this.#unsynced.set(segment.shard, segment);
    if (this.#unsynced.size <= MAX_UNSYNCED) return;
    this.#hasUnsyncedNames = true;
    await this.#syncSealed().catch(() => undefined); // a barrier will say it
  }

  /** All bytes written so far are in their files; `sync`: on the disk. */
  async wait(sync: boolean): Promise<void> {
    const pending: Promise<void>[] = [];
    const lengths = [...this.#segments()].map((segment) => [segment, segment.length] as const);
    for (const segment of this.#unsealed.values()) {
      if (sync || segment.unwrittenBytes > 0) pending.push(segment.flush(sync));
    }
    if (sync) pending.push(this.#syncSealed());
    await Promise.all(pending);
    if (!sync) return;
    // after the files are made
    this.#hasUnsyncedNames = false;
    try {
      await this.#files.syncFolders();
    } catch (error) {
      this.#hasUnsyncedNames = true;
      throw error;
    }
    for (const [segment, length] of lengths) segment.noteSafe(length);
  }

  /** As wait() without a sync, at once; false where that would take longer. */
  now(): boolean {
    for (const segment of this.#unsealed.values()) {
      if (segment.unwrittenBytes > 0 && !segment.flushNow()) return false;
    }
    return true;
  }

  /** Notes in the table what the wait(true) that comes now brings to the disk. */
  beforeSync(): void {
    for (const segment of this.#segments()) {
      const entry = this.#table.shard(segment.shard);
      if (entry === undefined || entry.syncedBytes >= segment.length) continue;
      this.#table.putShard(segment.shard, { ...entry, syncedBytes: segment.length, syncedCrc32: segment.crc32 });
    }
  }

  /**
   * Ends of segments that no wait(true) brought to the disk, for a journal that does; they count as safe from now on,
   * so that whoever fails with them calls wait(true) next. Null when only that helps.
   */
  takeTails(): SegmentTail[] | null {
    if (this.#hasUnsyncedNames) return null;
    const tails: SegmentTail[] = [];
    let bytes = 0;
    for (const segment of this.#segments()) {
      const tail = segment.tail();
      if (tail === null) return null;
      if (tail.length === 0) continue;
      bytes += tail.length;
      tails.push({ shard: segment.shard, offset: segment.safeBytes, bytes: tail, crc32: segment.crc32 });
    }
    if (bytes > MAX_TAIL_BYTES) return null;
    for (const { shard, offset, bytes: tail } of tails) {
      (this.#unsealed.get(shard) ?? this.#unsynced.get(shard))?.noteSafe(offset + tail.length);
    }
    return tails;
  }

  /** Lets sealed segments reach the disk and closes their files. */
  async #syncSealed(): Promise<void> {
    await Promise.all(
      [...this.#unsynced].map(async ([shard, segment]) => {
        await segment.flush(true);
        this.#unsynced.delete(shard);
        await segment.forgetPages();
        await segment.close();
      }),
    );
  }
}

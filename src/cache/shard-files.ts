// Ciphertext on the local disk, a file for each shard number, with a hard cap. A file is the
// shard's bytes, followed once it is sealed by its leaf hashes. What is staged is never evicted.

import { dirname, join } from 'node:path';
import { HASH_SIZE_BYTES, leafCountOf, MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import { syncFolder } from '../lib/atomic-file.ts';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';

/** Left free on the disk for the index, so that a full disk stays readable and can be cleaned up. */
const DISK_FLOOR_BYTES = 64 * 1024 * 1024;
/** Below so much room new handles write through, so that write(2) itself reports ENOSPC. */
const TIGHT_BYTES = 96 * 1024 * 1024;
/** What isTight found of the disk holds for so long: each file that is opened asks. */
const FREE_FOR_MS = 20;
const FILES_PER_FOLDER = 1024;

/** Bytes that the file of a sealed shard takes. */
export function fileSizeOf(sizeBytes: number): number {
  return sizeBytes + (sizeBytes > 0 ? leafCountOf(sizeBytes) * HASH_SIZE_BYTES : 0);
}

/** The most that one file takes. */
export const FILE_SIZE_MAX_BYTES: number = fileSizeOf(MAX_SHARD_SIZE_BYTES);

interface CachedFile {
  sizeBytes: number;
  staged: boolean;
}

/** The cache folder. Sizes are accounted in memory; the folder is read once, when it is opened. */
export class ShardFiles {
  readonly #dir: string;
  readonly #capBytes: number;
  readonly #log: Logger;
  /** Where the files are. */
  readonly disk: Disk;
  readonly #clock: Clock;
  /** By time of last use, oldest first. */
  readonly #files = new Map<number, CachedFile>();
  readonly #folders = new Set<number>();
  readonly #unsyncedFolders = new Set<string>();
  #usedBytes = 0;
  #stagedBytes = 0;
  #reservedBytes = 0;
  /** Of the disk, when isTight last looked. */
  #freeBytes = 0;
  #freeAtMs = -Infinity;
  #dropListener: (shard: number) => void = () => undefined;
  readonly #roomWaiters = new Set<() => void>();

  private constructor(dir: string, capBytes: number, log: Logger, disk: Disk, clock: Clock) {
    this.#dir = dir;
    this.#capBytes = capBytes;
    this.#log = log;
    this.disk = disk;
    this.#clock = clock;
  }

  /** Opens the folder and takes inventory; leftovers of broken transfers are removed. */
  static async open(
    dir: string,
    capBytes: number,
    log: Logger,
    disk: Disk = systemDisk,
    clock: Clock = systemClock,
  ): Promise<ShardFiles> {
    await disk.mkdir(dir, { recursive: true, mode: 0o700 });
    const files = new ShardFiles(dir, capBytes, log, disk, clock);
    const found: { shard: number; sizeBytes: number; usedMs: number }[] = [];
    for (const folder of disk.readdirSync(dir)) {
      if (!/^[0-9a-f]+$/.test(folder)) continue;
      files.#folders.add(Number.parseInt(folder, 16));
      // the name that a killed process gave it may not be on the disk
      files.#unsyncedFolders.add(dir);
      for (const name of disk.readdirSync(join(dir, folder))) {
        const path = join(dir, folder, name);
        if (/^[0-9a-f]+$/.test(name)) {
          const stat = disk.statSync(path);
          found.push({ shard: Number.parseInt(name, 16), sizeBytes: stat.size, usedMs: stat.mtimeMs });
        } else {
          await disk.rm(path, { force: true });
        }
      }
    }
    found.sort((a, b) => a.usedMs - b.usedMs);
    for (const { shard, sizeBytes } of found) files.add(shard, sizeBytes, false);
    return files;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get stagedBytes(): number {
    return this.#stagedBytes;
  }

  get capBytes(): number {
    return this.#capBytes;
  }

  /** Numbers of all files. */
  shards(): number[] {
    return [...this.#files.keys()];
  }

  has(shard: number): boolean {
    return this.#files.has(shard);
  }

  /** Where the file of a shard lies, whether it exists or not. */
  path(shard: number): string {
    return join(this.#dir, Math.floor(shard / FILES_PER_FOLDER).toString(16), shard.toString(16));
  }

  /** Makes the folder in which a shard's file goes. */
  async prepare(shard: number): Promise<string> {
    const folder = Math.floor(shard / FILES_PER_FOLDER);
    if (!this.#folders.has(folder)) {
      await this.disk.mkdir(join(this.#dir, folder.toString(16)), { recursive: true, mode: 0o700 });
      this.#folders.add(folder);
      this.#unsyncedFolders.add(this.#dir);
    }
    this.#unsyncedFolders.add(join(this.#dir, folder.toString(16)));
    return this.path(shard);
  }

  /** Names that an earlier run gave a file and its folder may not be on the disk: the next syncFolders() is for them, too. */
  doubtNames(shard: number): void {
    this.#unsyncedFolders.add(this.#dir);
    this.#unsyncedFolders.add(dirname(this.path(shard)));
  }

  /** Lets the names of new files reach the disk. */
  async syncFolders(): Promise<void> {
    for (const path of [...this.#unsyncedFolders]) {
      // names that come from now on are for the next time
      this.#unsyncedFolders.delete(path);
      try {
        await syncFolder(path, this.disk);
      } catch (error) {
        this.#unsyncedFolders.add(path);
        throw error;
      }
    }
  }

  /** Notes that a shard was used. */
  touch(shard: number): void {
    const file = this.#files.get(shard);
    if (file === undefined) return;
    this.#files.delete(shard);
    this.#files.set(shard, file);
  }

  /** Accounts for a file, or for its new size; `staged` files stay until settle(). */
  add(shard: number, sizeBytes: number, staged: boolean): void {
    this.#forget(shard);
    this.#files.set(shard, { sizeBytes, staged });
    this.#usedBytes += sizeBytes;
    if (staged) this.#stagedBytes += sizeBytes;
  }

  /** Marks a file as needed here, because nobody else has it, or as one that may be evicted. */
  setStaged(shard: number, staged: boolean): void {
    const file = this.#files.get(shard);
    if (file === undefined || file.staged === staged) return;
    file.staged = staged;
    this.#stagedBytes += staged ? file.sizeBytes : -file.sizeBytes;
    if (!staged) this.#wake();
  }

  /** Who is told of each file that goes, and must close it: only then its bytes are free. */
  setDropListener(listener: (shard: number) => void): void {
    this.#dropListener = listener;
  }

  /** Removes a file. */
  async drop(shard: number): Promise<void> {
    if (!this.#files.has(shard)) return;
    this.#forget(shard);
    this.#dropListener(shard);
    await this.disk.unlink(this.path(shard)).catch((error: unknown) => {
      this.#log.warn({ shard, error }, 'a cached shard could not be removed');
    });
    this.#wake();
  }

  #forget(shard: number): void {
    const file = this.#files.get(shard);
    if (file === undefined) return;
    this.#files.delete(shard);
    this.#usedBytes -= file.sizeBytes;
    if (file.staged) this.#stagedBytes -= file.sizeBytes;
  }

  #wake(): void {
    for (const waiter of this.#roomWaiters) waiter();
    this.#roomWaiters.clear();
  }

  /** Bytes that can still be staged. */
  get roomBytes(): number {
    return this.#roomOf(this.#diskFree());
  }

  #roomOf(freeBytes: number): number {
    const byCap = this.#capBytes - this.#stagedBytes;
    return Math.max(0, Math.min(byCap, freeBytes - DISK_FLOOR_BYTES + this.#evictableBytes()));
  }

  /** Whether so little room is left that writers should learn of the end at once. */
  get isTight(): boolean {
    return this.#roomOf(this.#recentlyFree()) < TIGHT_BYTES;
  }

  #evictableBytes(): number {
    return this.#usedBytes - this.#stagedBytes;
  }

  #diskFree(): number {
    const { bavail, bsize } = this.disk.statfsSync(this.#dir);
    return bavail * bsize;
  }

  #recentlyFree(): number {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#freeAtMs >= FREE_FOR_MS) {
      this.#freeBytes = this.#diskFree();
      this.#freeAtMs = nowMs;
    }
    return this.#freeBytes;
  }

  /**
   * Evicts until `sizeBytes` more fit, and keeps them free until release(); ENOSPC when what is
   * staged leaves no room for them.
   */
  async reserve(sizeBytes: number): Promise<void> {
    this.#reservedBytes += sizeBytes;
    try {
      for (const [shard, file] of this.#files) {
        if (this.#fitsCap() && this.#fitsDisk()) return;
        if (!file.staged) await this.drop(shard);
      }
      if (!this.#fitsCap()) throw new XcoreError('ENOSPC', 'the cache is full of bytes that no host has yet');
      if (!this.#fitsDisk()) throw new XcoreError('ENOSPC', 'the local disk is full');
    } catch (error) {
      this.release(sizeBytes);
      throw error;
    }
  }

  /** As reserve(), at once; false when something would have to be evicted or nothing helps. */
  reserveNow(sizeBytes: number): boolean {
    this.#reservedBytes += sizeBytes;
    if (this.#fitsCap() && this.#fitsDisk()) return true;
    this.release(sizeBytes);
    return false;
  }

  /** Ends a reservation: its bytes are accounted for by add(), or not needed. */
  release(sizeBytes: number): void {
    this.#reservedBytes -= sizeBytes;
  }

  #fitsCap(): boolean {
    return this.#usedBytes + this.#reservedBytes <= this.#capBytes;
  }

  #fitsDisk(): boolean {
    return this.#diskFree() - this.#reservedBytes >= DISK_FLOOR_BYTES;
  }

  /** Resolves when a file became evictable or was removed, or after `timeoutMs`. */
  waitForRoom(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.#roomWaiters.delete(done);
        resolve();
      };
      const timer = this.#clock.after(timeoutMs, done);
      this.#roomWaiters.add(done);
    });
  }
}

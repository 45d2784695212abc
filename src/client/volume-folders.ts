// Where a volume lies on this disk: the folder in use, the one being built to replace it, and those
// that were set aside. A crash at any point leaves one whole folder in use.

import { join } from 'node:path';
import { syncFolder } from '../lib/atomic-file.ts';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import { SetAsideFolder } from './set-aside.ts';

/** The folders of one volume. */
export class VolumeFolders {
  readonly setAside: SetAsideFolder;
  /** The volume in use. */
  readonly current: string;
  /** Its replacement, under way. */
  readonly next: string;
  /** Checkpoint shards in transfer. */
  readonly checkpoint: string;
  /** Newest entries of the log, which outlive a replacement. */
  readonly log: string;
  readonly #dir: string;
  readonly #disk: Disk;
  readonly #old: string;

  constructor(dir: string, disk: Disk = systemDisk) {
    this.#dir = dir;
    this.#disk = disk;
    this.current = join(dir, 'current');
    this.next = join(dir, 'next');
    this.checkpoint = join(dir, 'checkpoint');
    this.log = join(dir, 'log');
    this.#old = join(dir, 'old');
    this.setAside = new SetAsideFolder(join(dir, 'set-aside'), disk);
  }

  /** Ends a replacement that a crash cut short. */
  async open(): Promise<void> {
    await this.setAside.open();
    await this.#disk.rm(this.#old, { recursive: true, force: true });
    // the one in use is only moved away once its replacement is complete
    if (!(await this.#has(this.current)) && (await this.#has(this.next)))
      await this.#disk.rename(this.next, this.current);
    // also where a killed process moved them: no power cut may bring another volume back under what is synced from now on
    if (await this.#has(this.current)) await syncFolder(this.#dir, this.#disk);
    await this.clearNext();
  }

  #has(path: string): Promise<boolean> {
    return this.#disk.stat(path).then(
      () => true,
      () => false,
    );
  }

  /** Removes what an earlier try of a replacement left. */
  async clearNext(): Promise<void> {
    await this.#disk.rm(this.next, { recursive: true, force: true });
  }

  /** Removes the closed volume in use, whole or, after a crash, not at all. */
  async discard(): Promise<void> {
    await this.#disk.rename(this.current, this.#old);
    await this.#disk.rm(this.#old, { recursive: true, force: true });
  }

  /** Puts the replacement, closed and complete, in the place of the closed volume; the path of that one if it is kept. */
  async replace(keep: boolean, nowMs: number): Promise<string | null> {
    let kept: string | null = null;
    await syncFolder(this.next, this.#disk);
    if (keep) kept = await this.setAside.keep(this.current, nowMs);
    else await this.#disk.rename(this.current, this.#old);
    await this.#disk.rename(this.next, this.current);
    // what is removed now must not outlive, after a power cut, what takes its place
    await syncFolder(this.#dir, this.#disk);
    await this.#disk.rm(this.#old, { recursive: true, force: true });
    return kept;
  }
}

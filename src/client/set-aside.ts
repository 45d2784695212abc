// Work that lost its place in the log, because another device wrote the volume: kept whole on this
// disk, listed in status, never published and never removed by us.

import { join } from 'node:path';
import { systemDisk } from '../lib/disk.ts';
import type { Disk } from '../lib/disk.ts';
import type { SetAside } from './control-api.ts';

/** The folder of local volumes that were set aside. */
export class SetAsideFolder {
  readonly #dir: string;
  readonly #disk: Disk;
  #list: SetAside[] = [];

  constructor(dir: string, disk: Disk = systemDisk) {
    this.#dir = dir;
    this.#disk = disk;
  }

  /** Takes inventory. */
  async open(): Promise<void> {
    await this.#disk.mkdir(this.#dir, { recursive: true, mode: 0o700 });
    this.#list = [];
    for (const name of (await this.#disk.readdir(this.#dir)).sort()) {
      const path = join(this.#dir, name);
      this.#list.push({ path, sizeBytes: await this.#sizeOf(path), timeMs: (await this.#disk.stat(path)).mtimeMs });
    }
  }

  /** Of the files below a folder. */
  async #sizeOf(dir: string): Promise<number> {
    let sum = 0;
    for (const name of await this.#disk.readdir(dir)) {
      const path = join(dir, name);
      const facts = await this.#disk.stat(path);
      sum += facts.isDirectory() ? await this.#sizeOf(path) : facts.size;
    }
    return sum;
  }

  /** Moves a closed local volume here. */
  async keep(volumeDir: string, nowMs: number): Promise<string> {
    const path = join(this.#dir, new Date(nowMs).toISOString().replaceAll(':', '-'));
    await this.#disk.rename(volumeDir, path);
    await this.open();
    return path;
  }

  list(): readonly SetAside[] {
    return this.#list;
  }
}

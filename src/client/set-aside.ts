// Work that lost its place in the log, because another device wrote the volume: kept whole on this
// disk, listed in status, never published and never removed by us.

import { readdir, stat } from 'node:fs/promises';
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
    for (const name of (await readdir(this.#dir)).sort()) {
      const path = join(this.#dir, name);
      this.#list.push({ path, sizeBytes: await sizeOf(path), timeMs: (await stat(path)).mtimeMs });
    }
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

async function sizeOf(dir: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(dir, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return sum;
}

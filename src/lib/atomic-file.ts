// Replaces a small file whole or not at all. Knows nothing of what is in it.

import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { systemDisk } from './disk.ts';
import type { Disk } from './disk.ts';

/**
 * Writes a file so that after any crash it holds the old or the new content, never a mix: temporary
 * file, fsync, rename, fsync of the folder. With `exclusive` the call fails with EEXIST when the
 * file is there already.
 */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { mode: number; exclusive?: boolean; disk?: Disk },
): Promise<void> {
  const disk = options.disk ?? systemDisk;
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const file = await disk.open(temporary, 'wx', options.mode);
    try {
      await file.chmod(options.mode);
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    if (options.exclusive === true) await linkExclusive(disk, temporary, path);
    else await disk.rename(temporary, path);
  } catch (error) {
    await disk.rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(folder, disk);
}

/** Makes renames, links and removals in a folder durable. */
export async function syncFolder(path: string, disk: Disk = systemDisk): Promise<void> {
  const folder = await disk.open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Gives the temporary file its name unless that name is taken; link(2) is atomic where a check would race. */
async function linkExclusive(disk: Disk, temporary: string, path: string): Promise<void> {
  await disk.link(temporary, path);
  await disk.rm(temporary, { force: true });
}

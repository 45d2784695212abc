// The folder that a mount covers, named and judged without touching a mount that may be dead.

import { lstat, readdir, readlink, realpath, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { XcoreError } from '../lib/errors.ts';
import { makeFolders } from '../lib/paths.ts';
import type { Paths } from '../lib/paths.ts';

const MAX_LINKS = 8;

/**
 * The absolute path of a mount point as the kernel names it, links resolved; the folder itself, which may
 * be a dead mount or absent, is not looked into.
 */
export async function mountPointPath(dir: string): Promise<string> {
  let path = resolve(dir);
  for (let links = 0; ; links++) {
    const parent = await realpath(dirname(path)).catch(() => dirname(path));
    path = join(parent, basename(path));
    const target = await readlink(path).catch(() => null);
    if (target === null) return path;
    if (links >= MAX_LINKS) throw new XcoreError('USAGE', `${dir} is a link that leads in circles`);
    path = resolve(parent, target);
  }
}

/** Throws USAGE for a mount point inside the folders where xcore keeps its own state: it would hide them from itself. */
export async function refuseOwnFolders(path: string, paths: Paths): Promise<void> {
  const { home, config, volume, run, log, localNetwork, bridge, host } = paths;
  for (const own of home === null ? [config, volume, run, log, localNetwork, bridge, host] : [home]) {
    const real = await realpath(own).catch(() => own);
    if (path !== real && !path.startsWith(`${real}${sep}`)) continue;
    throw new XcoreError('USAGE', `${path} is inside ${own}, where xcore keeps its own files; mount somewhere else`);
  }
}

/**
 * Makes the folder if it is absent and checks that it is an empty one; tells whether it was made.
 * USAGE, ENOTDIR, EACCES or MOUNT_BUSY.
 */
export async function prepareMountPoint(path: string): Promise<boolean> {
  const info = await lstat(path).catch((error: unknown) => {
    if (isSystemError(error, 'ENOENT')) return null;
    if (isSystemError(error, 'ENOTDIR'))
      throw new XcoreError('ENOTDIR', `${path} lies below something that is no folder`);
    throw closed(path, error);
  });
  if (info === null) {
    try {
      makeFolders(path);
    } catch (error) {
      if (!isSystemError(error, 'ENOENT', 'EPERM')) throw closed(path, error);
      throw new XcoreError('EACCES', `${path} cannot be made there; mount on a folder of your own, say ~/XCloud`);
    }
    return true;
  }
  if (!info.isDirectory()) throw new XcoreError('ENOTDIR', `${path} is not a folder; name one to mount on`);
  const names = await readdir(path).catch((error: unknown) => {
    throw closed(path, error);
  });
  if (names.length > 0) {
    throw new XcoreError('MOUNT_BUSY', `${path} is not empty; mount on an empty folder`);
  }
  return false;
}

/** Removes a folder that prepareMountPoint made and nothing was mounted on. */
export async function removeMountPoint(path: string): Promise<void> {
  await rmdir(path).catch(() => undefined);
}

/** The error of a folder that this user may not use, or as it was. */
function closed(path: string, error: unknown): unknown {
  if (!isSystemError(error, 'EACCES')) return error;
  return new XcoreError('EACCES', `${path} is closed to this user; mount on a folder of your own, say ~/XCloud`);
}

function isSystemError(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

// Mounts that are at a folder already: dead ones of ours are removed, all others refused.

import { detachStale, isMounted, isOurMount } from '../fuse/stale.ts';
import { XcoreError } from '../lib/errors.ts';

/** Detaches a mount of ours whose daemon is dead; tells whether there was one. */
export async function clearStaleMount(dir: string): Promise<boolean> {
  return await absentIsFalse(detachStale(dir));
}

/** Whether a mount of xcore is at a folder, of whichever home. */
export async function isOurs(dir: string): Promise<boolean> {
  return await absentIsFalse(isOurMount(dir));
}

/** Clears a dead mount of ours; MOUNT_BUSY when something else is mounted there. */
export async function requireUnmounted(dir: string): Promise<void> {
  await clearStaleMount(dir);
  if (await absentIsFalse(isMounted(dir))) {
    throw new XcoreError('MOUNT_BUSY', `something is mounted on ${dir} already; unmount it, or choose another folder`);
  }
}

async function absentIsFalse(answer: Promise<boolean>): Promise<boolean> {
  try {
    return await answer;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    // where this user may not look, nothing of this user is mounted
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(code)) return false;
    throw error;
  }
}

// Finds and clears mounts of ours whose process has died.

import { statfs } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { detachMount } from './unmount.ts';
import { MOUNT_TYPE, mountAt, resolveMountPoint } from './mount-table.ts';

/** A server that is alive answers statfs within this time, or at least keeps the call waiting. */
const ANSWER_TIMEOUT_MS = 2000;

/** Whether anything is mounted at exactly this directory; the mount itself is not touched. */
export async function isMounted(directory: string): Promise<boolean> {
  return mountAt(await resolveMountPoint(directory)) !== null;
}

/** Whether an xcore mount, alive or dead, is at exactly this directory; the mount itself is not touched. */
export async function isOurMount(directory: string): Promise<boolean> {
  return mountAt(await resolveMountPoint(directory))?.type === MOUNT_TYPE;
}

/**
 * Detaches a mount of ours whose process is gone; true when there was one. Never call it for a mount
 * that this process serves.
 */
export async function detachStale(directory: string): Promise<boolean> {
  const place = await resolveMountPoint(directory);
  if (mountAt(place)?.type !== MOUNT_TYPE || !(await isDead(place))) return false;
  await detachMount(place, true);
  return true;
}

/** The kernel answers ENOTCONN for a connection without a server; statfs is never answered from a cache. */
async function isDead(place: string): Promise<boolean> {
  const abort = new AbortController();
  const late = delay(ANSWER_TIMEOUT_MS, 'late' as const, { signal: abort.signal }).catch(() => 'late' as const);
  const answer = statfs(place).then(
    () => 'alive' as const,
    (error: NodeJS.ErrnoException) => (error.code === 'ENOTCONN' ? ('dead' as const) : ('alive' as const)),
  );
  const verdict = await Promise.race([answer, late]);
  abort.abort();
  return verdict === 'dead';
}

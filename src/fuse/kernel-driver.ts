// The `kernel` driver: speaks the FUSE kernel protocol on /dev/fuse itself. Entry point of this room.

import type { DriverComponents, MountOptions, Session } from './driver.ts';
import { attachMount, checkMountPoint } from './mount.ts';
import { resolveMountPoint } from './mount-table.ts';
import { KernelSession } from './session.ts';
import { detachStale } from './stale.ts';
import { tuneMount } from './tuning.ts';
import { detachMount } from './unmount.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Filesystem } from '../vfs/filesystem.ts';

/**
 * Mounts a filesystem and serves it from this process; resolves once it is usable. A dead mount of
 * ours at the place is cleared first. The process must never touch its own mount.
 */
export async function mountKernel(
  filesystem: Filesystem,
  options: MountOptions,
  components: DriverComponents,
): Promise<Session> {
  const place = await resolveMountPoint(options.mountPoint).catch((error: NodeJS.ErrnoException) => {
    throw new XcoreError(
      error.code === 'ENOENT' ? 'ENOENT' : 'EACCES',
      `cannot use ${options.mountPoint}: ${error.message}`,
    );
  });
  if (await detachStale(place)) components.log.info({}, 'cleared a dead mount at the mount point');
  await checkMountPoint(place);
  const fd = await attachMount(place, options);
  const session = new KernelSession(
    { fd, filesystem, log: components.log, detach: (lazy) => detachMount(place, lazy) },
    options,
  );
  try {
    await session.start();
  } catch (error) {
    await session.unmount({ lazy: true }).catch(() => undefined);
    throw error;
  }
  await tuneMount(place, components);
  return session;
}

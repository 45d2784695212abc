// Takes a mount away: umount2(2) as root, fusermount3 as anybody else.

import { runFusermount } from './fusermount.ts';
import { namesOfMountUsers } from './mount-users.ts';
import { umount } from './native.ts';
import { XcoreError } from '../lib/errors.ts';

const MNT_DETACH = 2;
const EBUSY = 16;
const EINVAL = 22;

/**
 * Detaches the mount at a directory. EBUSY, naming who, while something uses it, unless lazy; NOT_MOUNTED when
 * nothing is mounted there.
 */
export async function detachMount(mountPoint: string, lazy: boolean): Promise<void> {
  if (process.geteuid?.() === 0) {
    const result = await umount(mountPoint, lazy ? MNT_DETACH : 0);
    if (result < 0) throw await failure(mountPoint, -result, `errno ${-result}`);
    return;
  }
  const { exitCode, message } = await runFusermount(['-u', ...(lazy ? ['-z'] : []), '--', mountPoint]);
  if (exitCode === 0) return;
  const errno = /busy/i.test(message) ? EBUSY : /not found|not mounted|invalid argument/i.test(message) ? EINVAL : 0;
  throw await failure(mountPoint, errno, message);
}

async function failure(mountPoint: string, errno: number, detail: string): Promise<XcoreError> {
  if (errno === EBUSY) {
    const names = await namesOfMountUsers(mountPoint);
    const by = names === '' ? '' : ` by ${names}`;
    return new XcoreError('EBUSY', `${mountPoint} is in use${by}: close what is open there and try again`);
  }
  if (errno === EINVAL) return new XcoreError('NOT_MOUNTED', `nothing of ours is mounted at ${mountPoint}`);
  return new XcoreError('EPERM', `cannot unmount ${mountPoint}: ${detail}`);
}

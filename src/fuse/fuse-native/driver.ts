// The `fuse-native` driver: the package runs in a process of its own, this side answers it and clears up after it.

import { fork } from 'node:child_process';
import { FuseNativeSession } from './session.ts';
import { PathFilesystem } from './path-filesystem.ts';
import type { ChildSettings } from './protocol.ts';
import type { DriverComponents, MountOptions, Session } from '../driver.ts';
import { checkMountPoint } from '../mount.ts';
import { resolveMountPoint } from '../mount-table.ts';
import { detachStale } from '../stale.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { Filesystem } from '../../vfs/filesystem.ts';

const CHILD = new URL(import.meta.url.endsWith('.ts') ? './child.ts' : './child.js', import.meta.url);
/** A request is EIO after so long; longer than the filesystem's own deadlines. */
const DEADLINE_MS = 120_000;
/** Nothing tells the kernel of a change from outside, so it may trust a name no longer than this. */
const MAX_ENTRY_TIMEOUT_MS = 1000;
/** fuse-native.c copies the mount point into so much. */
const MAX_MOUNT_POINT_BYTES = 1023;

/** What a test may set. */
export interface FuseNativeOptions {
  readonly deadlineMs?: number | undefined;
}

/**
 * Mounts through the fuse-native package; as mountKernel(), within the limits of
 * native-notes/fuse-native.md. FUSE_MISSING when the package or libfuse 2 is not installed; USAGE for
 * allowOther, since the package does not tell who asks.
 */
export async function mountFuseNative(
  filesystem: Filesystem,
  options: MountOptions,
  components: DriverComponents,
  { deadlineMs = DEADLINE_MS }: FuseNativeOptions = {},
): Promise<Session> {
  if (options.allowOther) {
    throw new XcoreError(
      'USAGE',
      'the fuse-native driver cannot tell users apart; use --driver kernel for allow-other',
    );
  }
  const place = await resolveMountPoint(options.mountPoint).catch((error: NodeJS.ErrnoException) => {
    throw new XcoreError(
      error.code === 'ENOENT' ? 'ENOENT' : 'EACCES',
      `cannot use ${options.mountPoint}: ${error.message}`,
    );
  });
  if (Buffer.byteLength(place) > MAX_MOUNT_POINT_BYTES) throw new XcoreError('ENAMETOOLONG', `${place} is too long`);
  if (await detachStale(place)) components.log.info({}, 'cleared a dead mount at the mount point');
  await checkMountPoint(place);
  const settings: ChildSettings = { mountPoint: place, words: wordsOf(options), deadlineMs };
  const child = fork(CHILD, [JSON.stringify(settings)], {
    cwd: '/',
    detached: true,
    execArgv: [],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  const session = new FuseNativeSession({ child, place, log: components.log, files: new PathFilesystem(filesystem) });
  await session.start();
  return session;
}

/** Words for libfuse 2's -o; the first is the rest of `fsname=`. */
function wordsOf(options: MountOptions): string[] {
  const entryTimeoutMs = Math.min(options.entryTimeoutMs, MAX_ENTRY_TIMEOUT_MS);
  return [
    options.fsName,
    'subtype=xcore',
    options.readOnly ? 'ro' : 'rw',
    'nosuid',
    'nodev',
    ...(options.noExec === true ? ['noexec'] : []),
    'default_permissions',
    'big_writes',
    'use_ino',
    `entry_timeout=${entryTimeoutMs / 1000}`,
    // every name of an inode is one of its own to libfuse: what one changes, the others must ask for
    'attr_timeout=0',
    'negative_timeout=0',
  ];
}

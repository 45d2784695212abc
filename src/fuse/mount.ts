// Attaches a FUSE connection to a directory: mount(2) as root, fusermount3 as anybody else.

import { closeSync, constants, openSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { MAX_IO_BYTES } from './abi.ts';
import type { MountOptions } from './driver.ts';
import { runFusermount } from './fusermount.ts';
import { MOUNT_TYPE, mountAt } from './mount-table.ts';
import { mount, receiveDescriptor, socketPair } from './native.ts';
import { XcoreError } from '../lib/errors.ts';

const DEVICE = '/dev/fuse';
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const EPERM = 1;

/** Refuses a mount point that is missing, no directory, taken or not empty. `place` is its real path. */
export async function checkMountPoint(place: string): Promise<void> {
  if (mountAt(place) !== null) throw new XcoreError('MOUNT_BUSY', `${place} is already a mount point`);
  const stats = await stat(place).catch((error: NodeJS.ErrnoException) => {
    throw new XcoreError(error.code === 'ENOENT' ? 'ENOENT' : 'EACCES', `cannot use ${place}: ${error.message}`, {
      cause: error,
    });
  });
  if (!stats.isDirectory()) throw new XcoreError('ENOTDIR', `${place} is not a directory`);
  if ((await readdir(place)).length > 0) throw new XcoreError('MOUNT_BUSY', `${place} is not empty`);
}

/** Mounts and gives the descriptor of the connection, non-blocking once it is watched. FUSE_MISSING when it cannot. */
export async function attachMount(place: string, options: MountOptions): Promise<number> {
  return process.geteuid?.() === 0 ? mountAsRoot(place, options) : mountAsUser(place, options);
}

async function mountAsRoot(place: string, options: MountOptions): Promise<number> {
  const fd = openDevice();
  const settings = [
    `fd=${fd}`,
    'rootmode=40000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    'default_permissions',
    `max_read=${MAX_IO_BYTES}`,
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  const flags = MS_NOSUID | MS_NODEV | (options.readOnly ? MS_RDONLY : 0) | (options.noExec === true ? MS_NOEXEC : 0);
  const result = await mount(options.fsName, place, MOUNT_TYPE, flags, settings.join(','));
  if (result === 0) return fd;
  closeSync(fd);
  throw new XcoreError(
    'FUSE_MISSING',
    result === -EPERM
      ? 'mounting is not permitted: root lacks CAP_SYS_ADMIN here (in a container, run it with --privileged or --cap-add SYS_ADMIN --device /dev/fuse)'
      : `mounting at ${place} failed with errno ${-result}`,
  );
}

function openDevice(): number {
  try {
    return openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceFailure(error instanceof Error && 'code' in error ? String(error.code) : '');
  }
}

function deviceFailure(code: string): XcoreError {
  if (code === 'EACCES' || code === 'EPERM') {
    return new XcoreError(
      'FUSE_MISSING',
      `no access to ${DEVICE}: allow it with "chmod 666 ${DEVICE}" as root (a udev rule KERNEL=="fuse", MODE="0666" keeps it)`,
    );
  }
  return new XcoreError('FUSE_MISSING', `${DEVICE} is missing: load the kernel module with "modprobe fuse" as root`);
}

async function mountAsUser(place: string, options: MountOptions): Promise<number> {
  await stat(DEVICE).catch(() => {
    throw deviceFailure('ENOENT');
  });
  const pair = socketPair();
  if (typeof pair === 'number') throw new XcoreError('FUSE_MISSING', `no socket pair: errno ${-pair}`);
  const [ours, theirs] = pair;
  try {
    const settings = [
      options.readOnly ? 'ro' : 'rw',
      'nosuid',
      'nodev',
      ...(options.noExec === true ? ['noexec'] : []),
      `fsname=${options.fsName}`,
      'subtype=xcore',
      'default_permissions',
      `max_read=${MAX_IO_BYTES}`,
      ...(options.allowOther ? ['allow_other'] : []),
    ];
    const { exitCode, message } = await runFusermount(['-o', settings.join(','), '--', place], theirs);
    if (exitCode !== 0) throw helperFailure(place, message);
    const fd = receiveDescriptor(ours);
    if (fd < 0) throw new XcoreError('FUSE_MISSING', `fusermount3 handed over no descriptor: errno ${-fd}`);
    return fd;
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

function helperFailure(place: string, message: string): XcoreError {
  if (message.includes('user_allow_other')) {
    return new XcoreError(
      'FUSE_MISSING',
      'other users may not be let in: add the line "user_allow_other" to /etc/fuse.conf as root, or mount without --allow-other',
    );
  }
  if (message.includes('no write access') || message.includes('not owned by')) {
    return new XcoreError('EACCES', `${place} must be a directory of your own that you can write to`);
  }
  if (message.includes(DEVICE)) {
    return deviceFailure(
      message.includes('Permission denied') || message.includes('not permitted') ? 'EACCES' : 'ENOENT',
    );
  }
  if (message.includes('Operation not permitted')) {
    return new XcoreError(
      'FUSE_MISSING',
      `fusermount3 may not mount (${message}): it must be setuid root ("chmod u+s /usr/bin/fusermount3") and the container must allow mounts`,
    );
  }
  return new XcoreError('FUSE_MISSING', `fusermount3 failed: ${message === '' ? 'no reason given' : message}`);
}

// Whether this machine lets this user mount.

import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { XcoreError } from '../lib/errors.ts';
import { missing, ok, warning, type Check } from './check.ts';

const DEVICE = '/dev/fuse';
const CONFIG = '/etc/fuse.conf';
const SETUID = 0o4000;

/** Throws FUSE_MISSING, with the fix, when a mount cannot work here. */
export async function requireFuse(options: { allowOther: boolean }): Promise<void> {
  const checks = [await checkDevice(), await checkFusermount()];
  const failed = checks.find((check) => check.state === 'missing');
  if (failed) throw new XcoreError('FUSE_MISSING', `${failed.detail}; ${failed.fix}`);
  if (!options.allowOther) return;
  const other = await checkAllowOther();
  if (other.state !== 'ok') throw new XcoreError('FUSE_MISSING', `--allow-other: ${other.detail}; ${other.fix}`);
}

/** The device that carries the kernel's requests. */
export async function checkDevice(): Promise<Check> {
  const name = 'fuse device';
  try {
    await access(DEVICE, constants.R_OK | constants.W_OK);
    return ok(name, `${DEVICE} can be opened`);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
      return missing(
        name,
        `there is no ${DEVICE}`,
        'load it with: sudo modprobe fuse (in a container: run it with --device /dev/fuse)',
      );
    }
    return missing(name, `${DEVICE} is closed to this user`, `open it with: sudo chmod 666 ${DEVICE}`);
  }
}

/** The helper that mounts for ordinary users; root needs none. */
export async function checkFusermount(): Promise<Check> {
  const name = 'fusermount3';
  if (process.getuid?.() === 0) return ok(name, 'not needed by root');
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, name);
    const info = await stat(path).catch(() => null);
    if (info === null || !info.isFile()) continue;
    if (info.uid === 0 && (info.mode & SETUID) !== 0) return ok(name, path);
    return missing(name, `${path} is not setuid root`, `type: sudo chown root ${path} && sudo chmod 4755 ${path}`);
  }
  return missing(
    name,
    'fusermount3 is not installed',
    'type: sudo apt-get install fuse3 (or your system’s package fuse3)',
  );
}

/** Whether an ordinary user may use --allow-other. */
export async function checkAllowOther(): Promise<Check> {
  const name = 'user_allow_other';
  if (process.getuid?.() === 0) return ok(name, 'not needed by root');
  const text = await readFile(CONFIG, 'utf8').catch(() => '');
  if (/^\s*user_allow_other\s*$/m.test(text)) return ok(name, `set in ${CONFIG}`);
  return warning(
    name,
    `${CONFIG} does not allow ordinary users to share a mount`,
    `for --allow-other type: echo user_allow_other | sudo tee -a ${CONFIG}`,
  );
}

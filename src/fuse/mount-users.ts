// Which processes keep a mount busy, read from /proc: links there are only read, so that the mount itself is not touched.

import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

/** Processes that are named at most. */
const MAX_NAMED = 5;

/**
 * Names and ids of processes with an open file, a working directory, a root or a program below a mount, as in
 * "bash (1234), vim (1240)"; empty when none is found. Those of other users are seen by root only.
 */
export async function namesOfMountUsers(mountPoint: string): Promise<string> {
  const named: string[] = [];
  for (const pid of (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name))) {
    if (!(await isUser(pid, mountPoint))) continue;
    if (named.length === MAX_NAMED) return `${named.join(', ')} and others`;
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'process');
    named.push(`${name.trim()} (${pid})`);
  }
  return named.join(', ');
}

async function isUser(pid: string, mountPoint: string): Promise<boolean> {
  const folder = join('/proc', pid);
  const descriptors = await readdir(join(folder, 'fd')).catch(() => []);
  for (const link of ['cwd', 'root', 'exe', ...descriptors.map((fd) => `fd/${fd}`)]) {
    const target = await readlink(join(folder, link)).catch(() => '');
    if (target === mountPoint || target.startsWith(`${mountPoint}/`)) return true;
  }
  return false;
}

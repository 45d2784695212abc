// What is mounted where, read from /proc without touching the mounts: a dead one would hang or fail whoever touches it.

import { readFileSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/** File system type of our mounts in /proc/self/mountinfo. */
export const MOUNT_TYPE = 'fuse.xcore';

/** One line of /proc/self/mountinfo (proc(5)). */
export interface MountEntry {
  /** Major and minor of the device, as in "0:52". */
  readonly device: string;
  readonly mountPoint: string;
  readonly type: string;
}

/** Parses mountinfo; octal escapes stand for blanks, tabs, newlines and backslashes. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [device, mountPoint, type] = [fields[2], fields[4], fields[separator + 1]];
    if (separator < 0 || device === undefined || mountPoint === undefined || type === undefined) continue;
    entries.push({ device, mountPoint: unescape(mountPoint), type });
  }
  return entries;
}

function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_match, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

/** The mount on top at exactly this place, or null. `place` must be as resolveMountPoint() gives it. */
export function mountAt(place: string): MountEntry | null {
  const entries = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return entries.findLast((entry) => entry.mountPoint === place) ?? null;
}

/**
 * The real path of a directory, without touching what may be mounted on it: only its parent is
 * looked up, unless the place itself is a symbolic link to somewhere else.
 */
export async function resolveMountPoint(directory: string): Promise<string> {
  const path = resolve(directory);
  if (path === '/') return path;
  const parent = await realpath(dirname(path));
  const place = join(parent, basename(path));
  return mountAt(place) === null ? realpath(place) : place;
}

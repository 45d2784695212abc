// A LevelDB whose file CURRENT is gone: LevelDB takes its folder for a new one, and removes what is in it.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** What there is in a database that has been used; one that a crash cut short while it was made has the first manifest only. */
const USED = /^MANIFEST-(?!000001$)|\.(?:ldb|sst)$/;

/** Whether a folder holds a database without its CURRENT, which must not be opened. */
export function isHeadless(dir: string): boolean {
  const names = namesIn(dir);
  return !names.includes('CURRENT') && names.some((name) => USED.test(name));
}

/** What is wrong with such a folder, and how to mend it. */
export function headlessMessage(dir: string): string {
  const manifests = namesIn(dir).filter((name) => name.startsWith('MANIFEST-'));
  const newest = manifests.sort().at(-1);
  const mend = newest === undefined ? '' : `put it back: echo ${newest} > '${join(dir, 'CURRENT')}'; or `;
  return `the file CURRENT in ${dir} is gone, and nothing was changed: ${mend}restore the whole folder from a backup`;
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

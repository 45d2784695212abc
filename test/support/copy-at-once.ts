// Copies of folders in which threads of LevelDB make, lengthen and remove files of their own: as they are at one moment.

import { cpSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { asError } from '../../src/lib/errors.ts';

/** Copies a folder as a killed process leaves it: anew if other files are there behind the copy than were before. */
export function copyAtOnce(from: string, to: string): void {
  for (let before = stateOf(from); ;) {
    let failure: Error | null = null;
    try {
      cpSync(from, to, { recursive: true });
    } catch (error) {
      failure = asError(error);
    }
    const after = stateOf(from);
    if (after === before) {
      if (failure !== null) throw failure;
      return;
    }
    rmSync(to, { recursive: true, force: true });
    before = after;
  }
}

/** Names and sizes of all files. */
function stateOf(dir: string): string {
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort();
  return names.map((name) => `${name} ${statSync(join(dir, name), { throwIfNoEntry: false })?.size}`).join('\n');
}

// What LevelDB says when the disk fails it. It has no numbers for what the system says, only its words.

import { XcoreError } from './errors.ts';

const CODES = [
  ['ENOSPC', 'No space left', 'the local disk is full'],
  ['ENOSPC', 'Disk quota exceeded', 'the local disk is full'],
  ['EROFS', 'Read-only file system', 'the local disk is read-only'],
] as const;

/** The failure of what was tried: ENOSPC, EROFS, or EIO with LevelDB's words. */
export function levelFailure(what: string, cause: Error): XcoreError {
  for (const [code, words, meaning] of CODES) {
    if (cause.message.includes(words) || ('code' in cause && cause.code === code)) {
      return new XcoreError(code, `${what}: ${meaning}`, { cause });
    }
  }
  return new XcoreError('EIO', `${what}: ${cause.message}`, { cause });
}

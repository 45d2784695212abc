// How log entries are named and signed; the same for those who write them and those who keep them.

import { createHash } from 'node:crypto';

/** Label of the owner's signature over an encoded EntryHeader. */
export const ENTRY_LABEL = 'xcore/entry/1';
/** The only version of log entries. */
export const ENTRY_VERSION = 1;

/** Hash by which the next entry refers to this one: SHA-256 of the signed bytes. */
export function entryHash(header: Uint8Array): Buffer {
  return createHash('sha256').update(`${ENTRY_LABEL}\0`).update(header).digest();
}

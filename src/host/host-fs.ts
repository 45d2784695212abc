// What a host asks of the filesystem that it lends space of; tests hand in one that fails.

import type * as promises from 'node:fs/promises';

/** A part of node:fs/promises. */
export type HostFs = Pick<
  typeof promises,
  'mkdir' | 'open' | 'readdir' | 'rename' | 'rm' | 'stat' | 'statfs' | 'unlink'
>;

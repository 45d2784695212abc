// Reads the file of a whole shard into memory and checks it. Knows no keys, and not who asks.

import { closeSync, constants, openSync, read } from 'node:fs';
import { verifyShard } from '../crypto/merkle.ts';
import { hugePageIn, HUGE_MEMORY_BYTES } from '../lib/huge-page.ts';
import { isResident } from '../lib/resident-read.ts';

/** What a disk that is read past the kernel's memory wants of places and lengths, and of addresses, which a huge page's is. */
const ALIGNMENT_BYTES = 4096;

/** Memory for one shard, which is loaded to where a huge page of it begins. */
export const LOAD_MEMORY_BYTES = HUGE_MEMORY_BYTES;

/** Where the file of a whole shard is to go. */
export interface ShardLoad {
  readonly path: string;
  /** Shard id, 32 bytes. */
  readonly id: Uint8Array;
  readonly sizeBytes: number;
  /** LOAD_MEMORY_BYTES. */
  readonly memory: SharedArrayBuffer;
}

/** Where in the memory the shard begins; null when the file is not there or not what its id says. */
export async function loadShard({ path, id, sizeBytes, memory }: ShardLoad): Promise<number | null> {
  const start = hugePageIn(memory);
  const pages = Math.ceil(sizeBytes / ALIGNMENT_BYTES);
  const target = new Uint8Array(memory, start, pages * ALIGNMENT_BYTES);
  if ((await fill(path, target)) < sizeBytes) return null;
  return verifyShard(id, target.subarray(0, sizeBytes)) === null ? null : start;
}

/**
 * Reads the beginning of a file, as much as there is; past the kernel's memory, unless it is there already: pages that
 * are read once cost more than all else of a read, and the mount has pages of its own.
 */
async function fill(path: string, target: Uint8Array): Promise<number> {
  const fd = openFile(path, 0);
  if (fd === null) return 0;
  try {
    const direct = isResident(fd, target.length) ? null : openFile(path, constants.O_DIRECT);
    if (direct === null) return await readOnce(fd, target);
    try {
      // a file system may refuse it only now
      return (await readOnce(direct, target)) || (await readOnce(fd, target));
    } finally {
      closeSync(direct);
    }
  } finally {
    closeSync(fd);
  }
}

function openFile(path: string, flags: number): number | null {
  try {
    return openSync(path, constants.O_RDONLY | flags);
  } catch {
    return null;
  }
}

function readOnce(fd: number, target: Uint8Array): Promise<number> {
  return new Promise((resolve) => {
    read(fd, target, 0, target.length, 0, (error, bytesRead) => resolve(error === null ? bytesRead : 0));
  });
}

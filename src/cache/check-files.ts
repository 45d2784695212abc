// Whether the local file of a shard holds what it should, byte by byte.

import { crc32 } from 'node:zlib';
import { leafHashes, shardIdOf } from '../crypto/merkle.ts';
import type { Disk } from '../lib/disk.ts';
import { ERRNO, errnoOf } from '../lib/errors.ts';
import type { ShardEntry } from './shard-table.ts';

/** What a look at the file of a shard shows. */
export type FileState = 'whole' | 'damaged' | 'absent';

/** Reads a file to its end. An open segment is compared with the checksum of what was committed of it. */
export async function checkShardFile(disk: Disk, path: string, entry: ShardEntry): Promise<FileState> {
  let bytes: Buffer;
  try {
    bytes = await disk.readFile(path);
  } catch (error) {
    return errnoOf(error) === ERRNO.ENOENT ? 'absent' : 'damaged';
  }
  const { id, sizeBytes } = entry;
  if (bytes.length < sizeBytes) return 'damaged';
  const shard = bytes.subarray(0, sizeBytes);
  if (id.length === 0) return crc32(shard) === entry.crc32 ? 'whole' : 'damaged';
  return shardIdOf(leafHashes(shard), sizeBytes).equals(id) ? 'whole' : 'damaged';
}

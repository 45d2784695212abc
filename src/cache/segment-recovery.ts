// What happens to segments that a crash left behind: what a journal kept goes back into their files, and what is there of
// them is sealed. Knows files and the shards of a table, not how segments grow.

import { constants } from 'node:fs';
import { crc32 } from 'node:zlib';
import { leafHashes, shardIdOf } from '../crypto/merkle.ts';
import type { Disk } from '../lib/disk.ts';
import type { Logger } from '../lib/log.ts';
import { checkShardFile } from './check-files.ts';
import { FILE_SIZE_MAX_BYTES, fileSizeOf } from './shard-files.ts';
import type { ShardFiles } from './shard-files.ts';
import type { ShardEntry, ShardTable } from './shard-table.ts';

/** The end of a segment's ciphertext. */
export interface SegmentTail {
  readonly shard: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** CRC-32 of all ciphertext up to its end; null where nobody knows. */
  readonly crc32: number | null;
}

/** What a recovery works with. */
export interface RecoveryComponents {
  readonly table: ShardTable;
  readonly files: ShardFiles;
  readonly log: Logger;
  /** Commits the table. */
  readonly commit: () => Promise<void>;
  /** Bytes of a shard were lost with the power; said once for each. */
  readonly onLost: (shard: number, keptBytes: number) => void;
}

/** Cuts off what was never committed and adds the leaf hashes; a reader computes them anew should this break off. */
async function completeFile(disk: Disk, path: string, sizeBytes: number, leaves: Uint8Array): Promise<void> {
  const file = await disk.open(path, 'r+');
  try {
    await file.truncate(sizeBytes);
    await file.write(leaves, 0, leaves.length, sizeBytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Writes parts of a file, which is made where it is absent, and lets them reach the disk. */
async function restoreTails(
  disk: Disk,
  path: string,
  tails: readonly Pick<SegmentTail, 'bytes' | 'offset'>[],
): Promise<void> {
  const file = await disk.open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    for (const { bytes, offset } of tails) await file.write(bytes, 0, bytes.length, offset);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Puts ends of segments that a journal kept back into their files, before recover(). */
export async function restoreSegments(
  c: RecoveryComponents,
  tails: readonly SegmentTail[],
  isStaged: (shard: number) => boolean,
): Promise<void> {
  for (const [shard, all] of Map.groupBy(tails, (tail) => tail.shard)) {
    const entry = c.table.shard(shard);
    if (entry === undefined || !isStaged(shard)) continue;
    // what is behind the size was never committed, or is leaf hashes
    const known = all
      .map((tail) => ({
        ...tail,
        bytes: tail.bytes.subarray(0, Math.max(0, entry.sizeBytes - tail.offset)),
        whole: tail.bytes,
      }))
      .filter(({ bytes }) => bytes.length > 0);
    if (known.length === 0) continue;
    await restoreTails(c.files.disk, await c.files.prepare(shard), known);
    if (!c.files.has(shard)) c.files.add(shard, FILE_SIZE_MAX_BYTES, true);
    let { syncedBytes, syncedCrc32 } = entry;
    for (const { offset, bytes, whole, crc32: sum } of known) {
      const end = offset + bytes.length;
      if (sum === null || bytes.length < whole.length || syncedBytes >= end) continue;
      syncedBytes = end;
      syncedCrc32 = sum;
    }
    // the index may know of bytes behind them that the disk lost
    if (syncedBytes > entry.syncedBytes) c.table.putShard(shard, { ...entry, syncedBytes, syncedCrc32 });
  }
}

/** Seals what an earlier run left open; such a segment is never continued. */
export async function recoverSegments(c: RecoveryComponents, staged: readonly number[]): Promise<void> {
  for (const shard of staged) {
    c.files.setStaged(shard, true);
    const entry = c.table.shard(shard);
    if (entry === undefined || entry.sizeBytes === 0) continue;
    if (c.files.has(shard)) c.files.doubtNames(shard);
    const isSafe =
      entry.id.length > 0 ? await isHere(c, shard, entry) : await finish(c, shard, entry, entry.sizeBytes, entry.crc32);
    if (isSafe) continue;
    // what an fsync acknowledged is there, whatever came after it
    const { syncedBytes, syncedCrc32 } = entry;
    const keptBytes = (await finish(c, shard, entry, syncedBytes, syncedCrc32)) ? syncedBytes : 0;
    c.onLost(shard, keptBytes);
  }
  await c.files.syncFolders();
  await c.commit();
}

/**
 * Whether the file of a sealed shard is whole; lets it reach the disk, which may not have happened yet. A shard may
 * be sealed in the index before its bytes were synced, so that they are looked at unless a sync was noted.
 */
async function isHere(c: RecoveryComponents, shard: number, entry: ShardEntry): Promise<boolean> {
  const { sizeBytes, syncedBytes } = entry;
  const path = c.files.path(shard);
  const file = await c.files.disk.open(path, 'r').catch(() => null);
  if (file === null) return false;
  try {
    await file.datasync();
    if ((await file.stat()).size < sizeBytes) return false;
  } finally {
    await file.close();
  }
  if (syncedBytes >= sizeBytes) return true;
  if ((await checkShardFile(c.files.disk, path, entry)) !== 'whole') return false;
  c.table.putShard(shard, { ...entry, syncedBytes: sizeBytes, syncedCrc32: entry.crc32 });
  return true;
}

/** Seals the first `sizeBytes` of a segment that was left open; false when they are not there or not right. */
async function finish(
  c: RecoveryComponents,
  shard: number,
  entry: ShardEntry,
  sizeBytes: number,
  checksum: number,
): Promise<boolean> {
  const path = c.files.path(shard);
  const bytes = await c.files.disk.readFile(path).catch(() => Buffer.alloc(0));
  const committed = bytes.subarray(0, sizeBytes);
  if (sizeBytes === 0 || committed.length < sizeBytes || crc32(committed) !== checksum) return false;
  const leaves = leafHashes(committed);
  await completeFile(c.files.disk, path, sizeBytes, leaves).catch((error: unknown) => {
    c.log.warn({ shard, error }, 'a recovered shard could not be completed on disk; its bytes are there');
  });
  c.table.putShard(shard, { ...entry, sizeBytes, crc32: checksum, id: shardIdOf(leaves, sizeBytes) });
  c.files.add(shard, fileSizeOf(sizeBytes), true);
  return true;
}

// Decoded records that are kept in memory, by what they take.

import { LRUCache } from 'lru-cache';
import type { TreeRecord } from './records.ts';
import type { StoredRecord } from './tallied-index.ts';

/** Decoded records kept in memory, in units of one inode or dentry. */
const CACHED_RECORDS = 60_000;

function weigh(record: TreeRecord | null): number {
  if (record === null) return 1;
  if ('offsets' in record) return 1 + (record.offsets.length >> 3);
  if ('symlinkTarget' in record) return 1 + (record.symlinkTarget.length >> 8);
  if (!(record instanceof Map)) return 1;
  let bytes = 0;
  for (const [name, value] of record) bytes += name.length + value.length;
  return 1 + (bytes >> 8);
}

/** An empty cache of records by key, also of keys that have none. */
export function newRecordCache(): LRUCache<string, StoredRecord> {
  return new LRUCache({ maxSize: CACHED_RECORDS, sizeCalculation: ({ record }) => weigh(record) });
}

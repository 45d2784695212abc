// What is too large for one entry, as several: in an order in which a log that ends after any of them tells of a tree
// that is whole, since the device may end there, or another one take over.

import { COUNTERS_KEY, KIND, keyBytes, shardKeyOf } from '../tree/keys.ts';
import type { Change } from '../tree/proto/tree_pb.ts';
import type { Publication } from './outbox.ts';

/** Most shards that one entry adds or frees. */
const MAX_SHARDS = 4_000;

/** What goes into one entry. */
export interface Part {
  readonly changes: Partial<Change>[];
  readonly added: { id: Uint8Array; sizeBytes: number }[];
  readonly freed: { id: Uint8Array }[];
}

/** Sizes of entries. */
export interface SplitLimits {
  /** Changes above which one publication becomes several entries. */
  readonly maxBodyBytes: number;
  readonly entryTargetBytes: number;
}

/** A publication as parts, of which each becomes an entry. */
export function splitPublication({ changes, added, freed }: Publication, limits: SplitLimits): Part[] {
  let totalBytes = 0;
  for (const [key, value] of changes) totalBytes += key.length + (value?.length ?? 0) + 8;
  const isLarge = totalBytes > limits.maxBodyBytes || added.length > MAX_SHARDS || freed.length > MAX_SHARDS;
  const freedByKey = new Map(freed.map(({ shard, id }) => [shardKeyOf(shard), { id }]));
  const addedByKey = new Map(added.map(({ shard, id, sizeBytes }) => [shardKeyOf(shard), { id, sizeBytes }]));
  const ordered = isLarge ? inOrder(changes, addedByKey) : changes;
  const parts: Part[] = [];
  let sizeBytes = Infinity;
  for (const [key, value] of ordered) {
    let part = parts.at(-1);
    if (part === undefined || (isLarge && (sizeBytes > limits.entryTargetBytes || part.changes.length >= MAX_SHARDS))) {
      part = { changes: [], added: [], freed: [] };
      parts.push(part);
      sizeBytes = 0;
    }
    sizeBytes += key.length + (value?.length ?? 0) + 8;
    part.changes.push({ key: keyBytes(key), value: value ?? undefined });
    const dead = freedByKey.get(key);
    if (dead !== undefined) part.freed.push(dead);
    const fresh = addedByKey.get(key);
    if (fresh !== undefined) part.added.push(fresh);
  }
  return parts;
}

/** What others refer to comes before them, and goes after them. */
function inOrder(
  changes: ReadonlyMap<string, Uint8Array | null>,
  added: ReadonlyMap<string, unknown>,
): [string, Uint8Array | null][] {
  const rank = ([key, value]: [string, Uint8Array | null]): number => {
    // no number is given twice
    if (key === COUNTERS_KEY) return 0;
    // a shard of before counts what its windows no longer show until they say so: freed too late, never too early
    if (key.startsWith(KIND.shard)) return added.has(key) ? 1 : 5;
    // what is renamed has two names rather than none
    if (key.startsWith(KIND.dentry)) return value === null ? 4 : 3;
    return value === null ? 4 : 2;
  };
  return [...changes].sort((a, b) => rank(a) - rank(b));
}

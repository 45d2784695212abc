// How a volume's shards are stored: their size, the mirrors wanted and the receipts that make them durable.

import type { Policy } from '../net/network.ts';

/** Largest shard, and the size for large or unknown amounts. */
export const MAX_SHARD_BYTES = 2 * 1024 * 1024;
/** Smallest shard size that a policy names. */
export const MIN_SHARD_BYTES = 256 * 1024;

const USUAL_MIRRORS = 3;
const MANY_MIRRORS = 4;
/** From so many hosts on, one more mirror costs little. */
const MANY_HOSTS = 10;
const MAX_RECEIPTS = 3;

/** Most mirrors that a shard can be given; some of the hosts that are asked for one may fail. */
export const MAX_MIRRORS = 6;

/**
 * The policy for `sizeBytes` (0: unknown) on so many existing hosts, with so many mirrors if they are wished (0: as the
 * network allows); valid with no host at all.
 */
export function policyFor(sizeBytes: number, hosts: number, wished = 0): Policy {
  const existing = Math.max(1, hosts);
  const usual = hosts >= MANY_HOSTS ? MANY_MIRRORS : USUAL_MIRRORS;
  const mirrors = Math.min(wished > 0 ? wished : usual, existing);
  return {
    shardSizeBytes: shardSizeFor(sizeBytes, existing),
    mirrors,
    minReceipts: Math.min(MAX_RECEIPTS, mirrors),
  };
}

// Small amounts are cut so that each host can serve a part at once.
function shardSizeFor(sizeBytes: number, hosts: number): number {
  if (sizeBytes <= 0) return MAX_SHARD_BYTES;
  let size = MIN_SHARD_BYTES;
  while (size < MAX_SHARD_BYTES && size * hosts < sizeBytes) size *= 2;
  return size;
}

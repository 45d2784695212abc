// What the cache needs to know of a volume's tree: the shards by number. The tree is one of these.

/** One shard as the tree records it. */
export interface ShardEntry {
  /** 32 bytes from which the shard's key is derived. */
  readonly salt: Uint8Array;
  sizeBytes: number;
  /** Shard id, 32 bytes; empty while the segment is open. */
  id: Uint8Array;
  liveBytes: number;
  /** Of the first sizeBytes of an open segment. */
  crc32: number;
  /** Bytes that an fsync has brought to the disk, and their CRC-32. */
  syncedBytes: number;
  syncedCrc32: number;
}

/** Shards of a volume by number. Changes become durable with the tree's next commit. */
export interface ShardTable {
  shard(shard: number): ShardEntry | undefined;
  /** Throws CORRUPT_RECORD for an unknown number. */
  requireShard(shard: number): ShardEntry;
  /** Numbers a new open segment and marks it as staged. */
  createShard(salt: Uint8Array): number;
  putShard(shard: number, entry: ShardEntry): void;
  isStaged(shard: number): boolean;
  /** Whether this machine has lost the bytes of a shard before it was durable. */
  isLost(shard: number): boolean;
}

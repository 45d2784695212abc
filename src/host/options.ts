// Every time and bound of a host, with its default.

/** What may be set when a host is started; tests shorten the times. */
export interface HostOptions {
  /** Free space of the disk that a host never uses. */
  readonly floorBytes: number;
  /** For one shard to arrive. */
  readonly storeDeadlineMs: number;
  /** Shards that may arrive at once. */
  readonly maxStores: number;
  /** Shards that may be read at once. */
  readonly maxReads: number;
  /** Shards that may be fetched from other hosts at once, 2 MiB of memory each. */
  readonly maxCopies: number;
  /** Streams that may be open at once, over all clients. */
  readonly maxStreams: number;
  readonly maxStreamsPerConnection: number;
  readonly maxConnections: number;
  /** Shards whose leaf hashes stay in memory, 4 KiB each. */
  readonly maxKnownLeaves: number;
  /** How long startHost waits for the bridge; it goes on trying afterwards. */
  readonly registerWaitMs: number;
}

/** The defaults. */
export const HOST_DEFAULTS: HostOptions = {
  floorBytes: 256 * 1024 * 1024,
  storeDeadlineMs: 10 * 60_000,
  maxStores: 64,
  maxReads: 64,
  maxCopies: 8,
  maxStreams: 1_024,
  maxStreamsPerConnection: 32,
  maxConnections: 512,
  maxKnownLeaves: 4_096,
  registerWaitMs: 5_000,
};

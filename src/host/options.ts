// Every time and bound of a host, with its default.

import type { Schedule } from './schedule.ts';

/** What may be set when a host is started; tests shorten the times. */
export interface HostOptions {
  /** Free space of the disk that a host never uses. */
  readonly floorBytes: number;
  /** For one shard to arrive. */
  readonly storeDeadlineMs: number;
  /** Shards that may arrive at once. */
  readonly maxStores: number;
  /** Of them, from one client; a client of ours has sixteen streams to a host. */
  readonly maxStoresPerPeer: number;
  /** Shards that may be read at once. */
  readonly maxReads: number;
  /** Shards that may be fetched from other hosts at once, 2 MiB of memory each. */
  readonly maxCopies: number;
  /** Streams that may be open at once, over all clients. */
  readonly maxStreams: number;
  readonly maxStreamsPerConnection: number;
  /** Requests a second of one peer, over all its streams; more are told to come back later. Far above what a host can answer. */
  readonly maxRequestsPerSecond: number;
  readonly maxConnections: number;
  /** Shards whose leaf hashes stay in memory, 4 KiB each. */
  readonly maxKnownLeaves: number;
  /** Of shard bytes to others and from them, as AllowanceOptions says; 0: no limit. */
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
  /** Shard bytes of a calendar month; 0: no cap. */
  readonly monthlyBytes: number;
  /** When it moves shards; always unless told. */
  readonly schedule?: Schedule | undefined;
  /** Whether to ask the router for an open port (UPnP); never on loopback. */
  readonly mapsPorts: boolean;
  /** Who runs it; hosts of one operator count as one place. Empty: not told. */
  readonly operator: string;
  /** Where it is. Empty: not told. */
  readonly region: string;
  /** How long startHost waits for the bridge; it goes on trying afterwards. */
  readonly registerWaitMs: number;
}

/** The defaults. */
export const HOST_DEFAULTS: HostOptions = {
  floorBytes: 256 * 1024 * 1024,
  storeDeadlineMs: 10 * 60_000,
  maxStores: 64,
  maxStoresPerPeer: 16,
  maxReads: 64,
  maxCopies: 8,
  maxStreams: 1_024,
  maxStreamsPerConnection: 32,
  maxRequestsPerSecond: 5_000,
  maxConnections: 512,
  maxKnownLeaves: 4_096,
  upBytesPerSecond: 0,
  downBytesPerSecond: 0,
  monthlyBytes: 0,
  mapsPorts: true,
  operator: '',
  region: '',
  registerWaitMs: 5_000,
};

// What a client asks of the network. The real one lives in a worker thread (worker.ts); everything
// it returns is verified: shard bytes against the shard id, log entries are checked by the caller.

/** Peers, as libp2p peer ids in text form. */
export type PeerName = string;

/** How the network stores a volume's shards; decided by the bridge. */
export interface Policy {
  /** Segments are sealed at this size, at most 2,097,152. */
  readonly shardSizeBytes: number;
  readonly mirrors: number;
  /** Receipts that make a shard durable. */
  readonly minReceipts: number;
}

/** A sealed shard on the local disk that is to be stored on hosts. */
export interface ShardSource {
  readonly id: Uint8Array;
  readonly sizeBytes: number;
  /** The file's first sizeBytes bytes are the ciphertext. */
  readonly path: string;
}

/** How far a shard is stored. */
export interface ShardStanding {
  readonly mirrors: number;
  readonly durable: boolean;
}

/** One entry of a volume log, encoded as in wire.proto. */
export interface WireEntry {
  readonly header: Uint8Array;
  readonly signature: Uint8Array;
  /** Empty where a later checkpoint replaces it, or where headers only were asked for. */
  readonly body: Uint8Array;
}

/** Newest entry of a volume log; seq 0 is the empty log. */
export interface Head {
  readonly seq: number;
  readonly hash: Uint8Array;
  /** Newest entry that carries a checkpoint, or 0. */
  readonly checkpointEntrySeq: number;
}

/** State of a volume's lease as the bridge tells it. */
export interface Lease {
  readonly held: boolean;
  readonly epoch: number;
  readonly holder: PeerName;
  readonly expiresInMs: number;
}

/** One host as the bridge sees it. */
export interface HostInfo {
  readonly host: PeerName;
  readonly online: boolean;
  readonly lastSeenMs: number;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly reliability: number;
}

/** Room for a volume on the network. */
export interface NetworkSpace {
  readonly quotaBytes: number;
  readonly usedBytes: number;
  /** Before mirrors. */
  readonly networkFreeBytes: number;
  readonly mirrors: number;
  readonly hosts: readonly HostInfo[];
}

/** Something worth a line in `xcore status`; kept by the network, newest last, at most 100. */
export interface Problem {
  readonly timeMs: number;
  readonly code: string;
  readonly message: string;
}

/** Peers to which there are connections, the bridge left out, by the best one to each. */
export interface Routes {
  /** One of them could dial the other. */
  readonly direct: number;
  /** Direct as well, from behind routers that open no port: both dialled at once. */
  readonly punched: number;
  /** Through the bridge. */
  readonly relayed: number;
  /** Why the last try for a direct connection was in vain; empty: none was. */
  readonly reason: string;
}

/** Where there is no peer. */
export const NO_ROUTES: Routes = { direct: 0, punched: 0, relayed: 0, reason: '' };

/** A view of the connection, for status and metrics. */
export interface NetworkStatus {
  readonly connected: boolean;
  readonly bridge: string;
  readonly device: PeerName;
  readonly uploadedBytes: number;
  readonly downloadedBytes: number;
  readonly routes: Routes;
  readonly problems: readonly Problem[];
}

/** What happens without being asked for. */
export interface NetworkEvents {
  /** Connected and authenticated, or no longer. */
  connection: (connected: boolean) => void;
  head: (head: Head) => void;
  lease: (lease: Lease) => void;
}

/** Options of a network client. */
export interface NetworkOptions {
  /** Multiaddr with /p2p/ id. */
  readonly bridge: string;
  /** Ed25519 seed of this device's libp2p identity, 32 bytes. */
  readonly deviceSeed: Uint8Array;
  /** Ed25519 seed of the owner's signing key, 32 bytes. */
  readonly ownerSeed: Uint8Array;
  /** Mirrors wanted of each shard from now on; the bridge remembers it. 0 or absent: as it has it. */
  readonly mirrors?: number;
  /** Shards in transfer at once, each way; 4 unless told. */
  readonly parallelTransfers?: number;
}

/**
 * The network as one volume's client sees it. Calls to the bridge have a deadline and fail with UNREACHABLE or
 * TIMEOUT while it is away; the connection is made again in the background, with back-off, for as
 * long as this runs.
 */
export interface Network {
  start(): Promise<void>;
  /** Ends connections and background work, and waits for them. */
  stop(): Promise<void>;
  on<E extends keyof NetworkEvents>(event: E, listener: NetworkEvents[E]): void;
  status(): Promise<NetworkStatus>;

  announce(sizeBytes: number): Promise<Policy>;
  space(): Promise<NetworkSpace>;

  /**
   * Stores one shard on hosts that the bridge chooses and resolves once it is durable, going on to
   * the wanted number of mirrors where hosts allow. Tries other hosts, with back-off, until `signal`
   * aborts. Rejects with CORRUPT_SHARD if the file does not match the id, QUOTA, or ABORTED.
   */
  upload(shard: ShardSource, signal?: AbortSignal): Promise<ShardStanding>;

  /**
   * Fetches a whole shard, verifies it and writes `path` (temporary file, then rename): the
   * ciphertext followed by its leaf hashes (32 bytes each). The first sizeBytes bytes of `memory` become the verified
   * ciphertext, too; true if there is such memory. Once this has settled, nothing is written there any more. NO_MIRROR
   * when no host could give it before the deadline.
   */
  fetchShard(
    id: Uint8Array,
    sizeBytes: number,
    path: string,
    signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<boolean>;

  /** Fetches and verifies leaves [firstLeaf, firstLeaf + leafCount); the last leaf may be short. */
  fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array>;

  /** Asks the bridge, in one call, where shards are that will likely be read soon; the first 256 of them. Never fails. */
  expect(ids: readonly Uint8Array[]): Promise<void>;

  /** How many mirrors of a shard the bridge knows. */
  mirrors(id: Uint8Array): Promise<number>;

  /**
   * Appends by compare-and-swap; STALE_HEAD or LEASE_LOST when it is not the next one. An entry that comes `again` was
   * in the log before, which has lost it since: it needs no lease, and may be another device's. What it adds the bridge
   * looks for on all hosts, which also serves a new entry whose shards it has forgotten.
   */
  append(entry: WireEntry, again?: boolean): Promise<Head>;
  readLog(fromSeq: number, maxBytes: number, headersOnly?: boolean): Promise<{ entries: WireEntry[]; head: Head }>;

  acquireLease(takeOver: boolean): Promise<Lease>;
  renewLease(epoch: number): Promise<Lease>;
  releaseLease(epoch: number): Promise<Lease>;
}

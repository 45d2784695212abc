// What a bridge is given from outside: its store, identity, time, luck, and the way to its hosts.

import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { HostCalls } from '../net/connected-hosts.ts';
import type { PeerName } from '../net/network.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { Outside } from './reachability.ts';
import type { Store } from '../lib/store.ts';

/** What a bridge stands on. */
export interface BridgeGround {
  readonly store: Store;
  /** Ed25519 seed of the bridge's identity, 32 bytes. */
  readonly seed: Uint8Array;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly randomBytes: RandomBytes;
  readonly metrics: Metrics;
  /** The bridge's own peer. */
  readonly bridge: PeerName;
  readonly log: Logger;
  /** How hosts are dialled; not at all where there is none. */
  readonly outside?: Outside | undefined;
  /** How hosts are asked. */
  readonly calls: HostCalls;
}

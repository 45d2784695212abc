// Mints hashed keys of shards that are here as a whole and verified, and hands them to the bridge on the side: nothing
// waits for it, and what fails is made by whoever has the shard next.

import type { RandomBytes } from '../lib/random-bytes.ts';
import type { BridgeCalls } from './bridge-calls.ts';
import { mintStock } from './key-stock.ts';

/** Stocks on their way; more are left out. */
const MAX_PENDING = 64;

/** Mints for one device. */
export class KeyMinter {
  readonly #bridge: BridgeCalls;
  readonly #seed: Uint8Array;
  readonly #random: RandomBytes | undefined;
  readonly #pending = new Set<Promise<void>>();

  /** `seed`: of the device's identity, 32 bytes. */
  constructor(bridge: BridgeCalls, seed: Uint8Array, random?: RandomBytes) {
    this.#bridge = bridge;
    this.#seed = seed;
    this.#random = random;
  }

  /** Mints so many keys of a verified shard before it returns; the bytes are the caller's again. */
  mint(shardId: Uint8Array, data: Uint8Array, count: number): void {
    if (count <= 0 || this.#pending.size >= MAX_PENDING) return;
    const pending: Promise<void> = this.#bridge
      .handOver(mintStock(this.#seed, shardId, data, count, this.#random))
      .catch(() => {})
      .finally(() => this.#pending.delete(pending));
    this.#pending.add(pending);
  }

  /** Waits for what is on its way; the link is to be stopped first. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }
}

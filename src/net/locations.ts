// Where shards are: what the bridge said, remembered while its orders are good.

import { create } from '@bufbuild/protobuf';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../lib/clock.ts';
import type { BridgeCalls } from './bridge-calls.ts';
import { readOrder } from './orders.ts';
import { TargetSchema } from './proto/wire_pb.ts';
import type { Target } from './proto/wire_pb.ts';

const MAX_LOCATIONS = 16_384;
/** Orders are not used in their last seconds: clocks differ, and a host looks at them later. */
const EXPIRY_MARGIN_MS = 15_000;
/** Whatever the orders say: this machine's clock may be wrong. */
const MAX_TTL_MS = 60 * 60_000;
/** Shards without a mirror are asked for again after so long. */
const UNKNOWN_TTL_MS = 500;

interface Located {
  readonly targets: readonly Target[];
  keysWanted: number;
}

/** Locations of shards, asked for once. */
export class Locations {
  readonly #bridge: BridgeCalls;
  readonly #clock: Clock;
  readonly #known: LRUCache<string, Located>;
  readonly #asked = new Map<string, Promise<readonly Target[]>>();

  constructor(bridge: BridgeCalls, clock: Clock) {
    this.#bridge = bridge;
    this.#clock = clock;
    // Without a resolution: the cache would set timers of its own.
    this.#known = new LRUCache({ max: MAX_LOCATIONS, ttlResolution: 0, perf: { now: () => clock.monotonicMs() } });
  }

  /** As find(), of what the bridge has said lately. */
  known(id: Uint8Array): readonly Target[] | undefined {
    return this.#known.get(Buffer.from(id).toString('base64'))?.targets;
  }

  /** Mirrors of a shard, best first, with orders that are still good; fails as a call to the bridge. */
  async find(id: Uint8Array): Promise<readonly Target[]> {
    const name = Buffer.from(id).toString('base64');
    const known = this.#known.get(name);
    if (known) return known.targets;
    let asked = this.#asked.get(name);
    if (!asked) {
      asked = this.#ask(name, id).finally(() => this.#asked.delete(name));
      this.#asked.set(name, asked);
    }
    return asked;
  }

  /** How many hashed keys the bridge would like of a shard whose mirrors were found; the next caller is told none. */
  takeKeysWanted(id: Uint8Array): number {
    const known = this.#known.peek(Buffer.from(id).toString('base64'));
    const wanted = known?.keysWanted ?? 0;
    if (known) known.keysWanted = 0;
    return wanted;
  }

  /** Asks the bridge again next time. */
  forget(id: Uint8Array): void {
    this.#known.delete(Buffer.from(id).toString('base64'));
  }

  async #ask(name: string, id: Uint8Array): Promise<readonly Target[]> {
    const { mirrors, keysWanted } = await this.#bridge.locate(id);
    const targets = mirrors.map(detached);
    const expiries = targets.map((target) => Number(readOrder(target.order).expiresMs));
    const ttl = targets.length === 0 ? UNKNOWN_TTL_MS : Math.min(...expiries) - this.#clock.now() - EXPIRY_MARGIN_MS;
    if (ttl > 0) this.#known.set(name, { targets, keysWanted }, { ttl: Math.min(ttl, MAX_TTL_MS) });
    return targets;
  }
}

/** A copy that does not keep the message alive in which it came. */
function detached(target: Target): Target {
  const { host, addresses, order } = target;
  const copy = order && { body: Uint8Array.from(order.body), signature: Uint8Array.from(order.signature) };
  return create(TargetSchema, { host, addresses, order: copy });
}

// What it costs a bridge when many hosts are lost at once: to have their shards queued, and to decide about each.

import { Level } from 'level';
import { jobKey, ofKind } from '../../src/bridge/keys.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { Store, StoreRange } from '../../src/lib/store.ts';
import { costOf } from './bridge-measures.ts';
import type { Figures } from './bridge-measures.ts';
import type { BridgeWorld } from './bridge-world.ts';

/** Decisions that are counted; more of a longer queue tell nothing new. */
const MAX_COPIES = 100_000;
/** Between two rounds of repair while the queue fills. */
const ROUND_MS = 10;
const LOST = 'l';
const SILENCE_MS = 10 * 60_000;

/** What LevelDB can, and `level` does not tell of. */
interface Compacting {
  compactRange(from: Buffer, to: Buffer): Promise<void>;
}

/** Loses one in so many hosts; what is to be copied then finds nobody who answers. */
export async function measureQueue({ bridge, hosts }: BridgeWorld, lostOneIn: number): Promise<Figures> {
  const { signal } = new AbortController();
  const lost = hosts.filter((_, n) => n % lostOneIn === 0).map(({ peer }) => peer);
  for (const peer of lost) bridge.registry.setLost(peer, true);
  await bridge.store.batch(lost.map((peer) => ({ key: jobKey(LOST, peer), value: new Uint8Array() })));
  // Long enough that all of them are silent.
  bridge.clock.advance(SILENCE_MS);
  await bridge.reopen();
  for (const [n, host] of hosts.entries()) if (n % lostOneIn !== 0) await host.beat(1e12);
  const memoryBefore = memoryNow();
  const copies = new Copies(bridge);
  const first = copies.first();
  const queued = await costOf(async () => {
    do await bridge.care.watch(signal);
    while ((await count(bridge.store, { from: Buffer.from(`j${LOST}`), to: Buffer.from(`j${LOST}~`) })).keys > 0);
  });
  const firstMs = await first;
  const queue = await count(bridge.store, ofKind('r'));
  const memoryQueued = memoryNow() - memoryBefore;
  const before = copies.ordered;
  const decided = await costOf(() => copies.round(MAX_COPIES));
  const ordered = copies.ordered - before;
  copies.end();
  const memory = memoryNow() - memoryBefore;
  return {
    'lost hosts': lost.length,
    'shards queued': queue.keys,
    'shards queued/s': (queue.keys * 1_000) / queued.ms,
    'CPU ms/queued shard': queued.cpuMs / queue.keys,
    'store bytes/queued shard': queue.bytes / queue.keys,
    'ms until the first copy is ordered': firstMs,
    'memory bytes/queued shard': memoryQueued / queue.keys,
    'copies ordered': ordered,
    'copies ordered/s': (ordered * 1_000) / decided.ms,
    'CPU ms/copy ordered': decided.cpuMs / ordered,
    'memory MiB, queue and decisions': memory / 2 ** 20,
  };
}

/** Copies that a bridge orders, all in vain. */
class Copies {
  ordered = 0;
  readonly #bridge: BridgeWorld['bridge'];
  readonly #before: BridgeWorld['bridge']['calls'];
  #enough = new AbortController();
  #limit = 1;

  constructor(bridge: BridgeWorld['bridge']) {
    this.#bridge = bridge;
    this.#before = bridge.calls;
    bridge.calls = {
      ...bridge.calls,
      copy: () => {
        this.ordered += 1;
        if (this.ordered >= this.#limit) this.#enough.abort();
        return Promise.reject(new XcoreError('UNREACHABLE'));
      },
    };
  }

  end(): void {
    this.#bridge.calls = this.#before;
  }

  /** Repairs now and again until one copy is ordered; milliseconds until then. */
  async first(): Promise<number> {
    const started = performance.now();
    while (this.ordered === 0) {
      await this.#bridge.care.repair(this.#enough.signal);
      if (this.ordered === 0) await new Promise((done) => setTimeout(done, ROUND_MS));
    }
    return performance.now() - started;
  }

  /** Repairs side by side, as the bridge does, until so many more are ordered or nothing is left. */
  async round(limit: number): Promise<void> {
    this.#enough = new AbortController();
    this.#limit = this.ordered + limit;
    const { parallelRepairs } = this.#bridge.options;
    await Promise.all(Array.from({ length: parallelRepairs }, () => this.#bridge.care.repair(this.#enough.signal)));
  }
}

/** Compacts the whole store, as time does. */
export async function settle({ bridge }: BridgeWorld): Promise<void> {
  await bridge.reopen(async (dir) => {
    const level = new Level<Buffer, Buffer>(dir, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
    await level.open();
    await (level as unknown as Compacting).compactRange(Buffer.alloc(0), Buffer.alloc(64, 0xff));
    await level.close();
  });
}

async function count(store: Store, range: StoreRange): Promise<{ keys: number; bytes: number }> {
  let [keys, bytes] = [0, 0];
  for await (const [key, value] of store.range(range)) {
    keys += 1;
    bytes += key.length + value.length;
  }
  return { keys, bytes };
}

function memoryNow(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

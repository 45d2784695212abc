// What it costs a bridge when many hosts are lost at once: to have their shards queued, and to decide about each.

import { Level } from 'level';
import { jobKey, ofKind } from '../../src/bridge/keys.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import type { Store, StoreRange } from '../../src/lib/store.ts';
import { costOf } from './bridge-measures.ts';
import type { Figures } from './bridge-measures.ts';
import type { BridgeWorld } from './bridge-world.ts';

/** One in so many hosts is lost: with four mirrors, a tenth as many mirrors as there are shards. */
const LOST_ONE_IN = 40;
const LOST = 'l';
const SILENCE_MS = 10 * 60_000;

/** What LevelDB can, and `level` does not tell of. */
interface Compacting {
  compactRange(from: Buffer, to: Buffer): Promise<void>;
}

/** Loses some hosts; what is to be copied then finds nobody who answers. */
export async function measureQueue({ bridge, hosts }: BridgeWorld): Promise<Figures> {
  const { signal } = new AbortController();
  const lost = hosts.filter((_, n) => n % LOST_ONE_IN === 0).map(({ peer }) => peer);
  for (const peer of lost) bridge.registry.setLost(peer, true);
  await bridge.store.batch(lost.map((peer) => ({ key: jobKey(LOST, peer), value: new Uint8Array() })));
  // Long enough that all of them are silent.
  bridge.clock.advance(SILENCE_MS);
  await bridge.reopen();
  for (const [n, host] of hosts.entries()) if (n % LOST_ONE_IN !== 0) await host.beat(1e12);
  const memoryBefore = memoryNow();
  const queued = await costOf(async () => {
    do await bridge.care.watch(signal);
    while ((await count(bridge.store, { from: Buffer.from(`j${LOST}`), to: Buffer.from(`j${LOST}~`) })).keys > 0);
  });
  const queue = await count(bridge.store, ofKind('r'));
  const before = bridge.calls;
  let copies = 0;
  bridge.calls = {
    ...before,
    copy: () => {
      copies += 1;
      return Promise.reject(new XcoreError('UNREACHABLE'));
    },
  };
  const decided = await costOf(() =>
    Promise.all(Array.from({ length: bridge.options.parallelRepairs }, () => bridge.care.repair(signal))),
  );
  bridge.calls = before;
  const memory = memoryNow() - memoryBefore;
  return {
    'lost hosts': lost.length,
    'shards queued': queue.keys,
    'shards queued/s': (queue.keys * 1_000) / queued.ms,
    'CPU ms/queued shard': queued.cpuMs / queue.keys,
    'store bytes/queued shard': queue.bytes / queue.keys,
    'copies ordered/s': (copies * 1_000) / decided.ms,
    'CPU ms/copy ordered': decided.cpuMs / copies,
    'memory MiB, queue and decisions': memory / 2 ** 20,
  };
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

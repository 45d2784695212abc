// A bridge of its own process on a store that is there: how long it takes to start, and how much memory it has then.

import { randomBytes } from 'node:crypto';
import { assembleBridge } from '../../src/bridge/assemble.ts';
import { openLevelStore } from '../../src/bridge/level-store.ts';
import { BRIDGE_DEFAULTS } from '../../src/bridge/options.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';

/** What it prints, as JSON. */
export interface StartFigures {
  readonly startMs: number;
  readonly residentBytes: number;
}

const nobody = (): Promise<never> => Promise.reject(new XcoreError('UNREACHABLE'));

async function main(dir: string): Promise<void> {
  const seed = randomBytes(32);
  const started = performance.now();
  const store = await openLevelStore(dir);
  const bridge = await assembleBridge(
    {
      store,
      seed,
      bridge: peerNameOf(seed),
      clock: systemClock,
      random: Math.random,
      randomBytes,
      metrics: createMetrics(),
      log: silentLogger,
      calls: { retrieve: nobody, copy: nobody, list: nobody, prove: nobody, findDeletion: nobody },
    },
    { ...BRIDGE_DEFAULTS, maxHosts: 100_000 },
  );
  const startMs = performance.now() - started;
  globalThis.gc?.();
  const figures: StartFigures = { startMs, residentBytes: process.memoryUsage.rss() };
  console.log(JSON.stringify(figures));
  await bridge.registry.flush();
  await store.close();
}

if (import.meta.main) await main(process.argv[2]!);

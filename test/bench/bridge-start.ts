// A bridge of its own process on a store that is there: how long it takes to start and to place a first shard, and how much
// memory it has after some more.

import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { MAX_SHARD_BYTES } from '../../src/bridge/policy.ts';
import { MAX_PLACE_SHARDS } from '../../src/net/protocols.ts';
import { Harness, Party, someShard } from '../bridge/harness.ts';
import { BENCH_OPTIONS } from './bridge-options.ts';

const PLACE_ROUNDS = 15;

/** What it prints, as JSON. */
export interface StartFigures {
  readonly startMs: number;
  /** From the start on, heartbeats of all hosts not counted. */
  readonly firstPlacementMs: number;
  /** Not counting pages of files that are mapped. */
  readonly ownBytes: number;
  readonly residentBytes: number;
}

async function main(dir: string): Promise<void> {
  const teardowns: (() => unknown)[] = [];
  // The harness keeps its store in `store` of that folder.
  const scope = { testdir: () => dirname(dir), teardown: (action: () => unknown) => teardowns.push(action) };
  const started = performance.now();
  const bridge = await Harness.start(scope, BENCH_OPTIONS);
  const startMs = performance.now() - started;
  for (const { host, capacityBytes } of bridge.registry.all()) {
    bridge.registry.heartbeat(host, { capacityBytes, usedBytes: 0, freeBytes: capacityBytes });
  }
  const beaten = performance.now();
  const client = await bridge.connect(new Party());
  await client.place([someShard(MAX_SHARD_BYTES)]);
  const firstPlacementMs = startMs + performance.now() - beaten;
  for (let round = 0; round < PLACE_ROUNDS; round += 1) {
    await client.place(Array.from({ length: MAX_PLACE_SHARDS }, () => someShard(MAX_SHARD_BYTES)));
  }
  globalThis.gc?.();
  const status = readFileSync('/proc/self/status', 'utf8');
  const ownBytes = Number(/^RssAnon:\s*(\d+)/m.exec(status)?.[1] ?? NaN) * 1_024;
  const residentBytes = process.memoryUsage.rss();
  console.log(JSON.stringify({ startMs, firstPlacementMs, ownBytes, residentBytes } satisfies StartFigures));
  await bridge.registry.flush();
  for (const action of teardowns) await action();
}

if (import.meta.main) await main(process.argv[2]!);

// Stores random shards in the folder given, several at a time, and prints the id of each once it is kept; until it is killed.

import { randomInt } from 'node:crypto';
import * as promises from 'node:fs/promises';
import { writeSync } from 'node:fs';
import { ShardStore } from '../../src/host/shard-store.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { randomShard } from './harness.ts';

const dir = process.argv[2]!;
const store = await ShardStore.open(
  dir,
  { fs: promises, log: silentLogger },
  { limitBytes: 1e12, floorBytes: 0, maxKnownLeaves: 10 },
);

async function work(): Promise<never> {
  for (;;) {
    const { id, data } = randomShard(randomInt(1, 2_097_153));
    await store.store(id, data.length, async function* () {
      for (let at = 0; at < data.length; at += 65_536) yield data.subarray(at, at + 65_536);
    });
    writeSync(1, `${id.toString('hex')}\n`);
  }
}

await Promise.all([work(), work(), work(), work()]);

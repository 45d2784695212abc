// Devices with one volume mounted, beside a bridge and hosts, in one process with virtual time, network and disks: what
// fsync and flush acknowledged is kept whatever fails, and all devices come to show the same. As many worlds as a quarter of
// XCORE_SIM_SEEDS; XCORE_SIM_SEED=17 lives one of them again and prints all that happens in it. In r17 the bridge is
// restored from an older copy, too.

import { availableParallelism } from 'node:os';
import t from 'tap';
import { deriveVolumeKeys } from '../../src/crypto/keys.ts';
import { liveAll } from './live-all.ts';
import { simulateMounts } from './mounts.ts';

const MAX_MS = 60 * 60_000;
const WORLDS = Math.ceil(Number(process.env['XCORE_SIM_SEEDS'] ?? 60) / 4);
const RESTORED = Math.ceil(WORLDS / 6);
const ONE = process.env['XCORE_SIM_SEED'];
const WORDS = `${'abandon '.repeat(23)}art`;

t.setTimeout(MAX_MS);
const keys = await deriveVolumeKeys(WORDS);

void t.test('a world with mounts happens twice in the same way', async (t) => {
  t.setTimeout(MAX_MS);
  t.same(await simulateMounts('1', keys), await simulateMounts('1', keys));
});

void t.test('what was acknowledged is kept, and every device comes to show the same', async (t) => {
  t.setTimeout(MAX_MS);
  const seeds = Array.from({ length: WORLDS - RESTORED }, (_, number) => String(number + 1));
  const restored = Array.from({ length: RESTORED }, (_, number) => `r${number + 1}`);
  const outcomes =
    ONE === undefined
      ? await liveAll([...seeds, ...restored], availableParallelism(), keys)
      : [await simulateMounts(ONE, keys, (line) => console.log(`# ${line}`))];
  let moments = 0;
  for (const { seed, complaints, moments: changes = 0 } of outcomes) {
    moments += changes;
    // One assertion a world would be most of the output.
    if (complaints.length > 0) t.fail(`world ${seed}`, { complaints });
  }
  t.comment(`${outcomes.length} worlds with mounts, ${moments} changes`);
  t.ok(moments > 0);
});

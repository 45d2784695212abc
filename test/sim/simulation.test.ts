// A bridge, hosts and clients in one process with virtual time, network and disks: the same code as ever, in worlds
// that follow from their seeds. XCORE_SIM_SEEDS says how many worlds; XCORE_SIM_SEED=17 lives one of them again and
// prints all that happens in it.

import t from 'tap';
import { simulate } from './simulate.ts';

const WORLDS = Number(process.env['XCORE_SIM_SEEDS'] ?? 60);
const MAX_MS = 30 * 60_000;
const ONE = process.env['XCORE_SIM_SEED'];

t.setTimeout(MAX_MS);

let seed = '';
process.prependListener('unhandledRejection', () => console.error(`# in world ${seed}`));

void t.test('a world happens twice in the same way', async (t) => {
  t.setTimeout(MAX_MS);
  for (seed of ['1', '2', '3']) {
    const first = await simulate(seed);
    const again = await simulate(seed);
    t.same(again, first, `world ${seed}`);
  }
  t.not((await simulate('4')).digest, (await simulate('5')).digest);
});

void t.test(
  'what is durable stays readable and gets its mirrors back, and only what its owner freed goes',
  async (t) => {
    const seeds = ONE === undefined ? Array.from({ length: WORLDS }, (_, number) => String(number + 1)) : [ONE];
    let [virtualMs, shards, slowestMs] = [0, 0, 0];
    for (seed of seeds) {
      const outcome = await simulate(seed, ONE === undefined ? undefined : (line) => console.log(`# ${line}`));
      // One assertion a world would be most of the output.
      if (outcome.complaints.length > 0) t.fail(`world ${seed}`, { complaints: outcome.complaints });
      virtualMs += outcome.virtualMs;
      shards += outcome.shards;
      slowestMs = Math.max(slowestMs, outcome.healedMs);
    }
    t.comment(
      `${seeds.length} worlds, ${Math.round(virtualMs / 60_000)} minutes of virtual time, ${shards} shards; ` +
        `the slowest was well ${Math.round(slowestMs / 1_000)} s after its last fault`,
    );
    t.ok(shards > 0);
  },
);

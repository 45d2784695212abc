// A bridge, hosts and clients in one process with virtual time, network and disks: the same code as ever, in worlds
// that follow from their seeds. XCORE_SIM_SEEDS says how many worlds; XCORE_SIM_SEED=17 lives one of them again and
// prints all that happens in it.

import { availableParallelism } from 'node:os';
import t from 'tap';
import { liveAll } from './live-all.ts';
import { simulate } from './simulate.ts';
import type { Outcome } from './simulate.ts';

const MAX_MS = 60 * 60_000;
const WORLDS = Number(process.env['XCORE_SIM_SEEDS'] ?? 60);
const ONE = process.env['XCORE_SIM_SEED'];
const SEEDS = Array.from({ length: WORLDS }, (_, number) => String(number + 1));

t.setTimeout(MAX_MS);

void t.test('a world happens twice in the same way', async (t) => {
  t.setTimeout(MAX_MS);
  for (const seed of ['1', '2']) t.same(await simulate(seed), await simulate(seed), `world ${seed}`);
  t.not((await simulate('3')).digest, (await simulate('4')).digest);
});

void t.test(
  'what is durable stays readable and gets its mirrors back, and only what its owner freed goes',
  async (t) => {
    t.setTimeout(MAX_MS);
    const outcomes = await (ONE === undefined ? liveAll(SEEDS, availableParallelism()) : liveOne(ONE));
    for (const { seed, complaints } of outcomes) {
      // One assertion a world would be most of the output.
      if (complaints.length > 0) t.fail(`world ${seed}`, { complaints });
    }
    const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((before, next) => before + of(next), 0);
    const slowestMs = Math.max(...outcomes.map(({ healedMs }) => healedMs));
    t.comment(
      `${outcomes.length} worlds, ${Math.round(sum(({ virtualMs }) => virtualMs) / 60_000)} minutes of virtual time, ` +
        `${sum(({ shards }) => shards)} shards; the slowest was well ${Math.round(slowestMs / 1_000)} s after its last fault`,
    );
    t.ok(outcomes.length > 0 && sum(({ shards }) => shards) > 0);
  },
);

async function liveOne(seed: string): Promise<Outcome[]> {
  process.prependListener('unhandledRejection', () => console.error(`# in world ${seed}`));
  return [await simulate(seed, (line) => console.log(`# ${line}`))];
}

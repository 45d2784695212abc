// The life of one simulated world, from its seed to its verdict.

import { Faults } from './faults.ts';
import { Luck } from './luck.ts';
import { World } from './world.ts';

/** Faults begin until then. */
const FAULTS_MS = 60_000;
/** All must be well so long after the last one. */
const PATIENCE_MS = 60 * 60_000;
const CHECK_EVERY_MS = 2_000;
const READ_MS = 120_000;
/** Of all worlds; they last longer, until what only hosts know of is gone. */
const SHARE_RESTORED = 0.15;

/** How a world ended. */
export interface Outcome {
  readonly seed: string;
  /** What went wrong; empty when all is well. */
  readonly complaints: readonly string[];
  /** Stands for all that happened, in its order. */
  readonly digest: string;
  readonly events: number;
  readonly virtualMs: number;
  /** From the end of the faults until all was well. */
  readonly healedMs: number;
  readonly shards: number;
  /** Changes that users made; none where there are none. */
  readonly moments?: number;
}

/** Lives one world. */
export async function simulate(seed: string, onTrace?: (line: string) => void): Promise<Outcome> {
  const luck = new Luck(seed).fork('shape');
  const liars = luck.below(3);
  const restores = new Luck(seed).fork('restores').chance(SHARE_RESTORED);
  const world = new World(seed, {
    hosts: 3 + liars + luck.below(4),
    deceits: Array.from({ length: liars }, () => (luck.chance(0.6) ? 'lies' : 'bad disk')),
    clients: luck.chance(0.3) ? 2 : 1,
    habits: { maxShards: 15, pauseMs: [300, 5_000] },
    restores,
  });
  const { scheduler } = world;
  scheduler.onTrace = onTrace;
  const faults = new Faults(world, { restores, everyMs: luck.between(1_500, 6_000), untilMs: FAULTS_MS });
  world.start();
  faults.start();
  for (let atMs = 0; atMs < FAULTS_MS; atMs += CHECK_EVERY_MS) {
    await scheduler.run(atMs);
    world.check();
  }
  faults.end();
  for (const client of world.clients) client.busy = false;
  const healFrom = scheduler.nowMs;
  const settle = async (): Promise<string[]> => {
    for (;;) {
      const unfinished = world.unfinished();
      // Mirrors on disks are no use to readers until the bridge has found them.
      if (unfinished.length === 0) unfinished.push(...(await readAll(world)));
      const isOver = scheduler.nowMs >= healFrom + PATIENCE_MS || world.verdict().length > 0;
      if (unfinished.length === 0 || isOver) return unfinished;
      await scheduler.run(scheduler.nowMs + CHECK_EVERY_MS);
      world.check();
    }
  };
  const unfinished = await settle();
  const healedMs = scheduler.nowMs - healFrom;
  const outcome = {
    seed,
    complaints: [...world.verdict(), ...unfinished],
    digest: scheduler.digest(),
    events: scheduler.events,
    virtualMs: scheduler.nowMs,
    healedMs,
    shards: world.shards.length,
  };
  scheduler.over = true;
  for (const machine of world.machines) machine.bury();
  return outcome;
}

/** Every shard that was kept is read once more by its owner. */
async function readAll(world: World): Promise<string[]> {
  const { scheduler } = world;
  const unread: string[] = [];
  let left = 0;
  for (const client of world.clients) {
    for (const shard of client.shards.filter(({ stage }) => stage === 'published')) {
      left += 1;
      const wrong = (why: string): void => void unread.push(`${shard.hex.slice(0, 8)} cannot be read: ${why}`);
      client
        .reads1(shard)
        .then(
          (right) => !right && wrong('other bytes'),
          (error: unknown) => wrong(String(error)),
        )
        .finally(() => (left -= 1));
    }
  }
  if (!(await scheduler.run(scheduler.nowMs + READ_MS, () => left === 0))) unread.push(`${left} reads do not end`);
  return unread;
}

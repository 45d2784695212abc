// Lives many worlds, in as many threads as there are processors: worlds have nothing in common.

import { Worker } from 'node:worker_threads';
import type { VolumeKeys } from '../../src/crypto/keys.ts';
import type { Outcome } from './simulate.ts';

/** What a thread is to do: without keys, worlds without mounts. */
export interface Share {
  readonly seeds: readonly string[];
  readonly keys: VolumeKeys | undefined;
}

/** Outcomes of all worlds, in some order. */
export async function liveAll(seeds: readonly string[], processors: number, keys?: VolumeKeys): Promise<Outcome[]> {
  const threads = Math.min(processors, Math.ceil(seeds.length / 10));
  const shares = Array.from({ length: threads }, (_, thread) => seeds.filter((_, at) => at % threads === thread));
  return (await Promise.all(shares.map((share) => liveSome({ seeds: share, keys })))).flat();
}

function liveSome(share: Share): Promise<Outcome[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./live.ts', import.meta.url), { workerData: share });
    const outcomes: Outcome[] = [];
    let now = '';
    worker.on('message', ({ seed, outcome }: { seed: string; outcome?: Outcome }) => {
      now = seed;
      if (outcome) outcomes.push(outcome);
    });
    worker.on('error', (cause) => reject(new Error(`world ${now} broke down`, { cause })));
    worker.on('exit', () => resolve(outcomes));
  });
}

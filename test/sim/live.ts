// Lives worlds one after another, in a thread: their seeds are workerData, their outcomes messages.

import { parentPort, workerData } from 'node:worker_threads';
import { simulate } from './simulate.ts';

for (const seed of workerData as readonly string[]) {
  parentPort?.postMessage({ seed });
  parentPort?.postMessage({ seed, outcome: await simulate(seed) });
}

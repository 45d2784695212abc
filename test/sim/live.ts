// Lives worlds one after another, in a thread: workerData says which, their outcomes are messages.

import { parentPort, workerData } from 'node:worker_threads';
import type { VolumeKeys } from '../../src/crypto/keys.ts';
import type { Share } from './live-all.ts';
import { simulateMounts } from './mounts.ts';
import { simulate } from './simulate.ts';

const { seeds, keys } = workerData as Share;
const own = keys && buffersOf(keys);

for (const seed of seeds) {
  parentPort?.postMessage({ seed });
  const outcome = await (own ? simulateMounts(seed, own) : simulate(seed));
  parentPort?.postMessage({ seed, outcome });
}

/** A message between threads makes plain arrays of Buffers. */
function buffersOf(keys: VolumeKeys): VolumeKeys {
  const copies = Object.entries(keys).map(([name, bytes]) => [name, Buffer.from(bytes as Uint8Array)] as const);
  return Object.fromEntries(copies) as unknown as VolumeKeys;
}

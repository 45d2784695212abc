// Worker thread: hashes the leaves of full segments, so that the mount's thread need not.

import { parentPort } from 'node:worker_threads';
import { leafHashes, shardIdOf } from '../crypto/merkle.ts';

parentPort?.on('message', ({ id, memory, sizeBytes }: { id: number; memory: SharedArrayBuffer; sizeBytes: number }) => {
  const leaves = leafHashes(new Uint8Array(memory, 0, sizeBytes));
  parentPort?.postMessage({ id, leaves, shardId: shardIdOf(leaves, sizeBytes) });
});

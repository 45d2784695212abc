// Worker thread: hashes the leaves of full segments, and reads and checks the files of shards that a sequential reader
// comes to, so that the mount's thread need not.

import { parentPort } from 'node:worker_threads';
import { leafHashes, shardIdOf } from '../crypto/merkle.ts';
import type { HashAnswer, HashRequest } from './hasher.ts';
import { loadShard } from './shard-load.ts';

parentPort?.on('message', ([id, request]: [number, HashRequest]) => {
  const answer = (value: HashAnswer): void => parentPort?.postMessage([id, value]);
  if (request.kind === 'load') {
    loadShard(request).then(
      (start) => answer({ start }),
      () => answer({ start: null }),
    );
    return;
  }
  const leaves = leafHashes(request.memory.subarray(0, request.sizeBytes));
  answer({ leaves, shardId: shardIdOf(leaves, request.sizeBytes) });
});

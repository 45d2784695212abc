// Reads every shard that a host holds and compares it with its id, one after another so that transfers hardly notice.

import { abortError } from '../net/failure.ts';
import type { HostProgress, VerifyResult } from './control-api.ts';
import type { ShardStore } from './shard-store.ts';

const PAGE_IDS = 1_024;

/** Verifies all shards; harmed ones are handed to `onHarmed`. Rejects when the signal aborts. */
export async function verifyShards(
  store: ShardStore,
  onHarmed: (shardId: Uint8Array) => void,
  { progress, signal }: { readonly progress: (progress: HostProgress) => void; readonly signal: AbortSignal },
): Promise<VerifyResult> {
  const totalShards = store.shards;
  let [shards, harmed] = [0, 0];
  for (let after: Uint8Array = new Uint8Array(); ;) {
    const page = await store.list(after, PAGE_IDS);
    for (const shardId of page) {
      if (signal.aborted) throw abortError(signal);
      shards += 1;
      if (await store.verify(shardId)) continue;
      harmed += 1;
      onHarmed(shardId);
    }
    progress({ remainingShards: Math.max(0, totalShards - shards), totalShards });
    const last = page.at(-1);
    if (!last) return { shards, harmed };
    after = last;
  }
}

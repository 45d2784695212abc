// What follows once entries were handed in again to a bridge that had lost them: it is told, and what this disk has of
// the shards that the bridge may not find any more is stored again.

import { decodeNumber, KIND } from '../tree/keys.ts';
import type { Shard } from '../tree/records.ts';
import type { HandedIn } from './hand-in.ts';
import type { LocalVolume } from './local-volume.ts';
import type { Problems } from './problems.ts';
import type { Uploader } from './uploader.ts';

/** Key of the line in the status that tells it, until the mount ends. */
const PROBLEM = 'handed-in';

/** Tells that the bridge had lost entries. */
export function tellHandedIn(problems: Problems, { firstSeq, lastSeq }: HandedIn): void {
  const what = firstSeq === lastSeq ? `entry ${lastSeq}` : `entries ${firstSeq} to ${lastSeq}`;
  const message = `the bridge had lost ${what} of the volume log; this device had them and handed them in again`;
  const advice = 'nothing to do if the bridge was restored from a backup; else do not trust it';
  problems.set(PROBLEM, 'STALE_HEAD', message, advice);
}

/** Has those of the shards stored again whose bytes are on this disk; those that hosts have are found by the bridge. */
export async function storeAgain(
  { store, files }: LocalVolume,
  uploader: Uploader,
  added: ReadonlySet<string>,
): Promise<void> {
  if (added.size === 0) return;
  for await (const { key, record } of store.range(KIND.shard)) {
    const shard = decodeNumber(key, 1);
    const id = Buffer.from((record as Shard).id).toString('hex');
    if (added.has(id) && files.has(shard)) uploader.need([shard]);
  }
}

// Who may be forgotten so that others get a place: hosts that hold nothing and owners that store nothing, long after
// they were last there. Decides; who keeps the records removes them.

import type { PeerName } from '../net/network.ts';
import type { Store, StoreWrite } from '../lib/store.ts';
import { deletesOf, hostKey, mirrorsOf, straysOf } from './keys.ts';
import type { HostRecord, VolumeRecord } from './proto/records_pb.ts';

/** Hosts that are forgotten in one go, and of each of them the deletions and strays that go with it. */
const FORGOTTEN_AT_ONCE = 64;
const NOTES_AT_ONCE = 1_000;

/** Some hosts that were silent since `sinceMs` and hold no mirror, with the writes that remove them from the store. */
export async function forgottenHosts(
  store: Store,
  hosts: Iterable<{ readonly host: PeerName; readonly record: HostRecord }>,
  sinceMs: number,
): Promise<{ readonly hosts: PeerName[]; readonly writes: StoreWrite[] }> {
  // The count may be off after a crash, so the index decides; a disqualified host stays out for good.
  const silent = [...hosts]
    .filter(({ record }) => Number(record.lastSeenMs) < sinceMs && record.disqualified === '')
    .sort((a, b) => Number(a.record.shards - b.record.shards))
    .slice(0, FORGOTTEN_AT_ONCE);
  const forgotten: PeerName[] = [];
  const writes: StoreWrite[] = [];
  for (const { host } of silent) {
    if ((await keysOf(store, mirrorsOf(host, 1))).length > 0) continue;
    forgotten.push(host);
    const notes = [
      ...(await keysOf(store, deletesOf(host, NOTES_AT_ONCE))),
      ...(await keysOf(store, straysOf(host, NOTES_AT_ONCE, new Uint8Array()))),
    ];
    writes.push({ key: hostKey(host) }, ...notes.map((key) => ({ key })));
  }
  return { hosts: forgotten, writes };
}

/** Whether a volume has neither a log nor a shard, and nobody has begun to write it since `sinceMs`. */
export function isForgettable(record: VolumeRecord, sinceMs: number): boolean {
  return record.headSeq === 0n && record.usedBytes === 0n && Number(record.touchedMs) < sinceMs;
}

async function keysOf(store: Store, range: Parameters<Store['range']>[0]): Promise<Uint8Array[]> {
  const keys: Uint8Array[] = [];
  for await (const [key] of store.range(range)) keys.push(key);
  return keys;
}

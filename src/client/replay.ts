// Applies what another device published to this device's tree, and tells what the kernel must forget.

import { XcoreError } from '../lib/errors.ts';
import { decodeNumber, KIND, PUBLISHED_KINDS } from '../tree/keys.ts';
import type { Change } from '../tree/proto/tree_pb.ts';
import { decodeRecord } from '../tree/record-codec.ts';
import type { Dentry } from '../tree/records.ts';
import type { VolumeParts } from '../vfs/volume.ts';

/** What changed under a mount. */
export interface Invalidations {
  readonly inodes: Set<number>;
  readonly names: { parent: number; name: string }[];
}

const published: ReadonlySet<string> = new Set(PUBLISHED_KINDS);

/**
 * Puts changes of an entry or a checkpoint into the tree; they become durable with the next commit.
 * BAD_FORMAT or CORRUPT_RECORD, and nothing is changed, when one of them is not understood.
 */
export function applyChanges(parts: VolumeParts, changes: Iterable<Change>): Invalidations {
  const { tree } = parts;
  const inodes = new Set<number>();
  const names: { parent: number; name: string }[] = [];
  // all of it is understood before any of it is applied
  const records = Array.from(changes, (change) => {
    const key = Buffer.from(change.key).toString('latin1');
    const kind = key.charAt(0);
    if (!published.has(kind)) throw new XcoreError('BAD_FORMAT', 'the log holds a record of an unknown kind');
    const number = key.length >= 9 ? decodeNumber(key, 1) : 0;
    return { key, kind, number, record: change.value === undefined ? null : decodeRecord(kind, change.value, number) };
  });
  for (const { key, kind, number, record } of records) {
    if (kind === KIND.dentry) {
      const dentry = (record ?? tree.store.get(key)) as Dentry | undefined;
      if (dentry !== undefined) names.push({ parent: number, name: dentry.name });
      inodes.add(number);
      tree.forgetNames(number);
    } else if (kind === KIND.inode || kind === KIND.window || kind === KIND.xattrs) {
      inodes.add(number);
    }
    if (record !== null) {
      tree.store.put(key, record);
    } else {
      tree.store.delete(key);
      if (kind === KIND.shard) forgetShard(parts, number);
    }
  }
  return { inodes, names };
}

/** Lets go of the local bytes of a shard that is freed. */
export function forgetShard({ reader, files, tree }: VolumeParts, shard: number): void {
  reader.forget(shard);
  tree.deleteUpload(shard);
  // a file that cannot be removed is only one that is evicted later
  files.drop(shard).catch(() => undefined);
}

// What the kernel must forget when the volume under it is replaced.
import { decodeNumber, KIND, keyBytes, outboxKey, ROOT_INO } from '../tree/keys.ts';
import { ChangeSetSchema } from '../tree/proto/tree_pb.ts';
import { decodeRecord, unpack } from '../tree/record-codec.ts';
import type { Dentry } from '../tree/records.ts';
import type { Tree } from '../tree/tree.ts';
import type { Invalidations } from './replay.ts';

/** Inodes and names in the outbox; names that were removed are not known any more, their directories are. */
export async function unpublishedNames(tree: Tree): Promise<Invalidations> {
  const inodes = new Set<number>();
  const names: { parent: number; name: string }[] = [];
  const from = keyBytes(outboxKey(tree.store.firstUnpublished));
  for await (const { value } of tree.store.plaintexts(KIND.outbox, { from })) {
    for (const change of unpack(ChangeSetSchema, value).changes) {
      const key = Buffer.from(change.key).toString('latin1');
      const kind = key.charAt(0);
      if (kind !== KIND.dentry && kind !== KIND.inode && kind !== KIND.window) continue;
      const number = decodeNumber(key, 1);
      inodes.add(number);
      if (kind !== KIND.dentry || change.value === undefined) continue;
      names.push({ parent: number, name: (decodeRecord(kind, change.value, number) as Dentry).name });
    }
  }
  return { inodes, names };
}

/** The names in the root directory: what is below them goes with them. */
export async function rootNames(tree: Tree): Promise<Invalidations> {
  const names: { parent: number; name: string }[] = [];
  await tree.store.commit();
  for await (const { dentry } of tree.dentries(ROOT_INO, 0n)) names.push({ parent: ROOT_INO, name: dentry.name });
  return { inodes: new Set([ROOT_INO]), names };
}

// Paths of inodes, for messages that a person reads. Looks at all names of a volume, so it is not
// for anything that must be quick.

import { decodeNumber, KIND, ROOT_INO } from './keys.ts';
import type { Window } from './extents.ts';
import type { Dentry } from './records.ts';
import type { RecordStore } from './record-store.ts';

/** A name as text; what is not UTF-8 shows as replacement characters. */
function textOf(name: string): string {
  return Buffer.from(name, 'latin1').toString();
}

/** One path, from the root of the volume, of each inode that has a name; inodes without one are left out. */
export async function pathsOf(store: RecordStore, inodes: Iterable<number>): Promise<Map<number, string>> {
  const wanted = new Set(inodes);
  const found = new Map<number, { parent: number; name: string }>();
  // directories come to be wanted while their children are found: as many rounds as the tree is deep at most
  for (let added = wanted.size; added > 0;) {
    added = 0;
    const before = found.size;
    for await (const { key, record } of store.range(KIND.dentry)) {
      const { ino, name } = record as Dentry;
      if (!wanted.has(ino) || found.has(ino)) continue;
      const parent = decodeNumber(key, 1);
      found.set(ino, { parent, name: textOf(name) });
      if (parent === ROOT_INO || wanted.has(parent)) continue;
      wanted.add(parent);
      added++;
    }
    if (found.size === before) break;
  }
  const paths = new Map<number, string>();
  for (const ino of inodes) {
    const path = pathOf(found, ino);
    if (path !== null) paths.set(ino, path);
  }
  return paths;
}

function pathOf(found: ReadonlyMap<number, { parent: number; name: string }>, ino: number): string | null {
  const parts: string[] = [];
  for (let at = ino; at !== ROOT_INO;) {
    const place = found.get(at);
    if (place === undefined || parts.length > found.size) return null;
    parts.unshift(place.name);
    at = place.parent;
  }
  return `/${parts.join('/')}`;
}

/** Inodes of the files whose bytes lie in some of these shards. */
export async function inodesUsing(store: RecordStore, shards: ReadonlySet<number>): Promise<Set<number>> {
  const inodes = new Set<number>();
  if (shards.size === 0) return inodes;
  for await (const { key, record } of store.range(KIND.window)) {
    if ((record as Window).shards.some((shard) => shards.has(shard))) inodes.add(decodeNumber(key, 1));
  }
  return inodes;
}

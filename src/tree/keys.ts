// Keys of the index. In memory a key is its bytes as a latin1 string, which a Map compares fast;
// numbers are 8 bytes big-endian, so that LevelDB's order is numeric order.

/** The root directory. */
export const ROOT_INO = 1;

/** First byte of each key: what kind of record it names. */
export const KIND = {
  inode: 'i',
  dentry: 'd',
  window: 'e',
  shard: 's',
  xattrs: 'x',
  orphan: 'o',
  counters: 'c',
  // local to this index, never published
  upload: 'u',
  outbox: 'l',
  meta: 'm',
  checkpoint: 'k',
  tally: 't',
} as const;

/** Kinds that the volume log carries, in the order of the index. */
export const PUBLISHED_KINDS = [
  KIND.counters,
  KIND.dentry,
  KIND.window,
  KIND.inode,
  KIND.orphan,
  KIND.shard,
  KIND.xattrs,
] as const;

const scratch = Buffer.alloc(17);

/** 8 bytes big-endian of a safe non-negative integer, as a latin1 string. */
export function encodeNumber(value: number): string {
  scratch.writeUInt32BE(Math.floor(value / 0x1_0000_0000), 0);
  scratch.writeUInt32BE(value >>> 0, 4);
  return scratch.toString('latin1', 0, 8);
}

/** Reverses encodeNumber at a position of a key. */
export function decodeNumber(key: string, position: number): number {
  let value = 0;
  for (let i = position; i < position + 8; i++) value = value * 256 + key.charCodeAt(i);
  return value;
}

/** Key of an inode record. */
export function inodeKey(ino: number): string {
  return KIND.inode + encodeNumber(ino);
}

/** Key of a dentry; `hidden` is hiddenName() of the name, 16 bytes. */
export function dentryKey(parent: number, hidden: Buffer): string {
  return KIND.dentry + encodeNumber(parent) + hidden.toString('latin1');
}

/** Key of the extents of window `index` of a file. */
export function windowKey(ino: number, index: number): string {
  return KIND.window + encodeNumber(ino) + encodeNumber(index);
}

/** Key of a shard by its number. */
export function shardKeyOf(shard: number): string {
  return KIND.shard + encodeNumber(shard);
}

/** Key of all extended attributes of an inode. */
export function xattrsKey(ino: number): string {
  return KIND.xattrs + encodeNumber(ino);
}

/** Key that marks an unlinked inode which may still be open. */
export function orphanKey(ino: number): string {
  return KIND.orphan + encodeNumber(ino);
}

/** Key of the volume's counters. */
export const COUNTERS_KEY: string = KIND.counters;

/** Key that marks a shard as not yet durable. */
export function uploadKey(shard: number): string {
  return KIND.upload + encodeNumber(shard);
}

/** Key of a commit that waits for publication. */
export function outboxKey(commit: number): string {
  return KIND.outbox + encodeNumber(commit);
}

/** Key of a local record by name. */
export function metaKey(name: string): string {
  return KIND.meta + name;
}

/** Bytes of a key. */
export function keyBytes(key: string): Buffer {
  return Buffer.from(key, 'latin1');
}

/** The range of all keys. */
export const ALL_KEYS: { readonly gte: Buffer; readonly lt: Buffer } = { gte: Buffer.alloc(1), lt: Buffer.of(0xff) };

/** The range of keys that begin with `prefix`. */
export function keyRange(prefix: string): { gte: Buffer; lt: Buffer } {
  const end = Buffer.from(prefix, 'latin1');
  let last = end.length - 1;
  while (end[last] === 0xff) last--;
  const lt = Buffer.from(end.subarray(0, last + 1));
  lt[last] = (lt[last] ?? 0) + 1;
  return { gte: end, lt };
}

// The folder tree of one volume as typed records, with the bookkeeping that each change entails:
// counters, live bytes of shards, orphans. Knows no POSIX rules (src/vfs) and no files of bytes (src/cache).

import { hiddenName } from '../crypto/hidden-name.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import { FileExtents } from './file-extents.ts';
import { KnownFolders, positionOf } from './known-folders.ts';
import type { DentryList, ListedDentry } from './known-folders.ts';
import {
  COUNTERS_KEY,
  decodeNumber,
  dentryKey,
  inodeKey,
  KIND,
  keyBytes,
  metaKey,
  orphanKey,
  ROOT_INO,
  shardKeyOf,
  uploadKey,
  windowKey,
  xattrsKey,
} from './keys.ts';
import { MARK } from './records.ts';
import type { CheckpointShards, Counters, Dentry, HeadState, Inode, Shard, Upload, Xattrs } from './records.ts';
import type { RecordStore } from './record-store.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
/** Keys of dentries that are remembered by name: a lookup, a check and a change of one name follow each other. */
const MAX_NAME_KEYS = 4_096;

/** The head of an index that has read nothing. */
const EMPTY_HEAD: HeadState = {
  seq: 0,
  hash: new Uint8Array(32),
  epoch: 0,
  lastCommit: 0,
  checkpointSeq: 0,
  logBytes: 0,
  seenSeq: 0,
  seenHash: new Uint8Array(0),
  sent: [],
};

/** One volume's tree. Methods without a promise take effect at once and become durable with the next commit. */
export class Tree {
  readonly store: RecordStore;
  /** Where the bytes of files lie. */
  readonly extents: FileExtents;
  readonly #nameKey: Buffer;
  readonly #nameKeys = new Map<string, string>();
  readonly #folders = new KnownFolders();

  constructor(store: RecordStore, nameKey: Buffer) {
    this.store = store;
    this.extents = new FileExtents(this);
    this.#nameKey = nameKey;
  }

  /** Whether a root directory exists: a tree without one is empty and new. */
  get isEmpty(): boolean {
    return this.store.get(inodeKey(ROOT_INO)) === undefined;
  }

  /** Makes the root directory of a new volume. */
  format(owner: { uid: number; gid: number }, nowNs: bigint): void {
    const counters: Counters = { nextIno: ROOT_INO, nextShard: 1, inodes: 0, storedBytes: 0 };
    this.store.put(COUNTERS_KEY, counters);
    this.createInode({ mode: S_IFDIR | 0o700, ...owner, nlink: 2, parent: ROOT_INO }, nowNs);
  }

  get counters(): Counters {
    const counters = this.store.get(COUNTERS_KEY) as Counters | undefined;
    if (counters === undefined) throw new XcoreError('CORRUPT_RECORD', 'the volume has no counters');
    return counters;
  }

  /** Inodes and bytes of the volume; zeros while it is read from the log for the first time. */
  get totals(): { readonly inodes: number; readonly storedBytes: number } {
    return (this.store.get(COUNTERS_KEY) as Counters | undefined) ?? { inodes: 0, storedBytes: 0 };
  }

  // ------------------------------------------------------------------ inodes

  inode(ino: number): Inode | undefined {
    return this.store.get(inodeKey(ino)) as Inode | undefined;
  }

  /** Marks an inode as changed. */
  touch(inode: Inode): void {
    this.store.put(inodeKey(inode.ino), inode);
  }

  /** A new inode with the next number and the given fields; all times are `nowNs`. */
  createInode(fields: Partial<Inode> & Pick<Inode, 'mode' | 'uid' | 'gid' | 'nlink'>, nowNs: bigint): Inode {
    const counters = this.counters;
    const inode: Inode = {
      sizeBytes: 0,
      atimeNs: nowNs,
      mtimeNs: nowNs,
      ctimeNs: nowNs,
      btimeNs: nowNs,
      rdev: 0,
      symlinkTarget: new Uint8Array(0),
      hasXattrs: false,
      parent: 0,
      entries: 0,
      storedBytes: 0,
      ...fields,
      ino: counters.nextIno,
    };
    counters.nextIno++;
    counters.inodes++;
    this.store.put(COUNTERS_KEY, counters);
    this.store.expectNone(inodeKey(inode.ino));
    this.store.expectNone(windowKey(inode.ino, 0));
    if ((inode.mode & S_IFMT) === S_IFDIR) this.#folders.learn(inode.ino, []);
    this.touch(inode);
    return inode;
  }

  // ------------------------------------------------------------------ dentries

  #dentryKey(parent: number, name: string): string {
    const place = `${parent}/${name}`;
    const known = this.#nameKeys.get(place);
    if (known !== undefined) return known;
    const key = dentryKey(parent, hiddenName(this.#nameKey, parent, name));
    if (this.#nameKeys.size >= MAX_NAME_KEYS) this.#nameKeys.clear();
    this.#nameKeys.set(place, key);
    return key;
  }

  dentry(parent: number, name: string): Dentry | undefined {
    const known = this.#folders.find(parent, name);
    if (known !== undefined) return known ?? undefined;
    return this.store.get(this.#dentryKey(parent, name)) as Dentry | undefined;
  }

  putDentry(parent: number, dentry: Dentry): void {
    const key = this.#dentryKey(parent, dentry.name);
    if (this.#folders.put(parent, dentry, key)) this.store.expectNone(key);
    this.store.put(key, dentry);
  }

  deleteDentry(parent: number, name: string): void {
    this.#folders.delete(parent, name);
    this.store.delete(this.#dentryKey(parent, name));
  }

  /** Records of a directory's names are changed without this tree; of any directory's, without `parent`. */
  forgetNames(parent?: number): void {
    if (parent === undefined) this.#folders.clear();
    else this.#folders.forget(parent);
  }

  /** Dentries of a directory from `position` on with their keys, as they are at the first step, in the order of their hidden names. */
  async *#stored(parent: number, position: bigint): AsyncGenerator<{ key: string; dentry: Dentry }[]> {
    const from = Buffer.alloc(17);
    keyBytes(dentryKey(parent, Buffer.alloc(0))).copy(from);
    from.writeBigUInt64BE(position, 9);
    const prefix = from.toString('latin1', 0, 9);
    // both are taken in this turn, so that together they are the state of one moment
    const changes = this.store.uncommitted(prefix).filter(({ key }) => key >= from.toString('latin1'));
    let next = 0;
    for await (const records of this.store.lists(prefix, { from })) {
      const page: { key: string; dentry: Dentry }[] = [];
      for (const { key, record } of records) {
        for (let change = changes[next]; change !== undefined && change.key < key; change = changes[++next]) {
          if (change.record !== null) page.push({ key: change.key, dentry: change.record as Dentry });
        }
        if (changes[next]?.key !== key) page.push({ key, dentry: record as Dentry });
      }
      yield page;
    }
    const rest = changes.slice(next).filter(({ record }) => record !== null);
    yield rest.map(({ key, record }) => ({ key, dentry: record as Dentry }));
  }

  /** All dentries of a directory, as they are at the first step, in the order of their hidden names. */
  async *dentries(parent: number, position: bigint): AsyncGenerator<ListedDentry> {
    for await (const page of this.#stored(parent, position)) {
      for (const { key, dentry } of page) yield { dentry, position: positionOf(key) };
    }
  }

  /**
   * Some dentries of a directory from `position` on, as they are now: at least one and about `limit`, unless none
   * follows; at once where the directory was made here or listed before.
   */
  listDentries(parent: number, position: bigint, limit: number): Now<DentryList> {
    return this.#folders.list(parent, position, limit) ?? this.#listStored(parent, position, limit);
  }

  async #listStored(parent: number, position: bigint, limit: number): Promise<DentryList> {
    const { changes } = this.#folders;
    const found: { key: string; dentry: Dentry }[] = [];
    let isWhole = true;
    for await (const page of this.#stored(parent, position)) {
      found.push(...page);
      if (found.length < limit) continue;
      isWhole = false;
      break;
    }
    if (position === 0n && isWhole && this.#folders.changes === changes) this.#folders.learn(parent, found);
    return { dentries: found.map(({ key, dentry }) => ({ dentry, position: positionOf(key) })), isWhole };
  }

  // ------------------------------------------------------------------ orphans and removal

  /** Remembers that an inode without names is still open, so that a restart removes it. */
  markOrphan(ino: number): void {
    this.store.put(orphanKey(ino), MARK);
  }

  /** An inode has a name again, or for the first time. */
  unmarkOrphan(ino: number): void {
    this.store.delete(orphanKey(ino));
  }

  /** Inodes left behind by handles that a crash closed; of the committed state. */
  async orphans(): Promise<number[]> {
    const found: number[] = [];
    for await (const { key } of this.store.plaintexts(KIND.orphan)) found.push(decodeNumber(key, 1));
    return found;
  }

  /** Removes an inode without names and all that it holds. */
  removeInode(inode: Inode): Now<void> {
    const remove = (): void => {
      this.store.delete(inodeKey(inode.ino));
      this.#folders.forget(inode.ino);
      if (inode.hasXattrs) this.store.delete(xattrsKey(inode.ino));
      if (this.store.get(orphanKey(inode.ino)) !== undefined) this.store.delete(orphanKey(inode.ino));
      const counters = this.counters;
      counters.inodes--;
      this.store.put(COUNTERS_KEY, counters);
    };
    const freed = this.extents.free(inode, 0, Infinity, false);
    if (!(freed instanceof Promise)) return remove();
    // until its windows are listed it must be found again after a crash
    this.markOrphan(inode.ino);
    this.touch(inode);
    return freed.then(remove);
  }

  // ------------------------------------------------------------------ shards

  shard(shard: number): Shard | undefined {
    return this.store.get(shardKeyOf(shard)) as Shard | undefined;
  }

  requireShard(shard: number): Shard {
    const record = this.shard(shard);
    if (record === undefined) throw new XcoreError('CORRUPT_RECORD', `extent of the unknown shard ${shard}`);
    return record;
  }

  /** A new open segment; it stays marked for upload until uploaded(). */
  createShard(salt: Uint8Array): number {
    const counters = this.counters;
    const shard = counters.nextShard++;
    this.store.put(COUNTERS_KEY, counters);
    this.store.expectNone(shardKeyOf(shard));
    this.store.expectNone(uploadKey(shard));
    const id = new Uint8Array(0);
    const record: Shard = { salt, sizeBytes: 0, id, liveBytes: 0, crc32: 0, syncedBytes: 0, syncedCrc32: 0 };
    this.store.put(shardKeyOf(shard), record);
    this.putUpload(shard, { durable: false });
    return shard;
  }

  putShard(shard: number, record: Shard): void {
    this.store.put(shardKeyOf(shard), record);
  }

  /** Whether a shard is not yet durable. */
  isStaged(shard: number): boolean {
    const upload = this.upload(shard);
    return upload?.durable === false && upload.lost !== true;
  }

  /** Whether this machine has lost the bytes of a shard before it was durable. */
  isLost(shard: number): boolean {
    return this.upload(shard)?.lost === true;
  }

  /** How far a shard is that no published entry names yet; undefined once one does. */
  upload(shard: number): Upload | undefined {
    return this.store.get(uploadKey(shard)) as Upload | undefined;
  }

  /** Notes that enough hosts hold a shard, or that it must be uploaded (again). */
  putUpload(shard: number, upload: Upload): void {
    this.store.put(uploadKey(shard), upload);
  }

  /** Forgets about the upload of a shard: an entry names it, or nothing needs it. */
  deleteUpload(shard: number): void {
    this.store.delete(uploadKey(shard));
  }

  /** All shards that no published entry names yet and that are not lost, of the committed state. */
  async uploads(): Promise<{ shard: number; upload: Upload }[]> {
    const found: { shard: number; upload: Upload }[] = [];
    for await (const { key, record } of this.store.range(KIND.upload)) {
      const upload = record as Upload;
      if (upload.lost !== true) found.push({ shard: decodeNumber(key, 1), upload });
    }
    return found;
  }

  // ------------------------------------------------------------------ extended attributes

  xattrs(ino: number): Xattrs {
    return (this.store.get(xattrsKey(ino)) as Xattrs | undefined) ?? new Map<string, Uint8Array>();
  }

  putXattrs(inode: Inode, xattrs: Xattrs): void {
    inode.hasXattrs = xattrs.size > 0;
    if (inode.hasXattrs) this.store.put(xattrsKey(inode.ino), xattrs);
    else this.store.delete(xattrsKey(inode.ino));
  }

  // ------------------------------------------------------------------ the log

  /** How far this index and the volume log agree. */
  get head(): HeadState {
    const head = this.store.get(metaKey('head')) as HeadState | undefined;
    return head ?? { ...EMPTY_HEAD };
  }

  putHead(head: HeadState): void {
    this.store.put(metaKey('head'), head);
  }

  /** Ids of the shards in which the newest checkpoint lies. */
  get checkpointShards(): readonly Uint8Array[] {
    return (this.store.get(KIND.checkpoint) as CheckpointShards | undefined)?.ids ?? [];
  }

  putCheckpoint(ids: readonly Uint8Array[]): void {
    this.store.put(KIND.checkpoint, { ids });
  }
}

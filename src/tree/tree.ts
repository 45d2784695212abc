// The folder tree of one volume as typed records, with the bookkeeping that each change entails:
// counters, live bytes of shards, orphans. Knows no POSIX rules (src/vfs) and no files of bytes (src/cache).

import { hiddenName } from '../crypto/hidden-name.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import { cut, emptyWindow, place, spansOf, WINDOW_SIZE_BYTES } from './extents.ts';
import type { Span, Window } from './extents.ts';
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
import type {
  CheckpointShards,
  Counters,
  Dentry,
  HeadState,
  Inode,
  Shard,
  TreeRecord,
  Upload,
  Xattrs,
} from './records.ts';
import type { RecordStore } from './record-store.ts';

/** Windows of a file that are looked for one by one; past that their keys are listed from disk. */
const PROBED_WINDOWS = 256;
const S_IFDIR = 0o040000;

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
};

/** A dentry with its place in the directory's order. */
export interface ListedDentry {
  readonly dentry: Dentry;
  /** First 8 bytes of the hidden name, as an unsigned number. */
  readonly position: bigint;
}

/** One volume's tree. Methods without a promise take effect at once and become durable with the next commit. */
export class Tree {
  readonly store: RecordStore;
  readonly #nameKey: Buffer;

  constructor(store: RecordStore, nameKey: Buffer) {
    this.store = store;
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
    this.touch(inode);
    return inode;
  }

  // ------------------------------------------------------------------ dentries

  dentry(parent: number, name: string): Dentry | undefined {
    return this.store.get(dentryKey(parent, hiddenName(this.#nameKey, parent, name))) as Dentry | undefined;
  }

  putDentry(parent: number, dentry: Dentry): void {
    this.store.put(dentryKey(parent, hiddenName(this.#nameKey, parent, dentry.name)), dentry);
  }

  deleteDentry(parent: number, name: string): void {
    this.store.delete(dentryKey(parent, hiddenName(this.#nameKey, parent, name)));
  }

  /** Dentries of a directory from `position` on, as they are at the first step, in the order of their hidden names. */
  async *dentries(parent: number, position: bigint): AsyncGenerator<ListedDentry> {
    const from = Buffer.alloc(17);
    keyBytes(dentryKey(parent, Buffer.alloc(0))).copy(from);
    from.writeBigUInt64BE(position, 9);
    const prefix = from.toString('latin1', 0, 9);
    const list = (key: string, record: TreeRecord): ListedDentry => ({
      dentry: record as Dentry,
      position: keyBytes(key).readBigUInt64BE(9),
    });
    // both are taken in this turn, so that together they are the state of one moment
    const changes = this.store.uncommitted(prefix).filter(({ key }) => key >= from.toString('latin1'));
    let next = 0;
    for await (const { key, record } of this.store.range(prefix, { from })) {
      for (let change = changes[next]; change !== undefined && change.key < key; change = changes[++next]) {
        if (change.record !== null) yield list(change.key, change.record);
      }
      if (changes[next]?.key !== key) yield list(key, record);
    }
    for (const change of changes.slice(next)) if (change.record !== null) yield list(change.key, change.record);
  }

  // ------------------------------------------------------------------ extents

  #window(ino: number, index: number): Window | undefined {
    return this.store.get(windowKey(ino, index)) as Window | undefined;
  }

  /** Where the bytes [offset, offset + lengthBytes) of a file lie; Span offsets are file offsets here. */
  spans(ino: number, offset: number, lengthBytes: number): Span[] {
    const result: Span[] = [];
    const end = offset + lengthBytes;
    for (let at = offset; at < end;) {
      const index = Math.floor(at / WINDOW_SIZE_BYTES);
      const base = index * WINDOW_SIZE_BYTES;
      const to = Math.min(end - base, WINDOW_SIZE_BYTES);
      const window = this.#window(ino, index);
      if (window === undefined) {
        result.push({ offset: at, lengthBytes: base + to - at, shard: 0, shardOffset: 0 });
      } else {
        for (const span of spansOf(window, at - base, to)) result.push({ ...span, offset: base + span.offset });
      }
      at = base + to;
    }
    return result;
  }

  /** Lets bytes of a shard appear at `offset` of a file, over what was there; the caller touches the inode. */
  putExtent(inode: Inode, offset: number, lengthBytes: number, shard: number, shardOffset: number): void {
    let done = 0;
    while (done < lengthBytes) {
      const at = offset + done;
      const index = Math.floor(at / WINDOW_SIZE_BYTES);
      const inside = at - index * WINDOW_SIZE_BYTES;
      const part = Math.min(lengthBytes - done, WINDOW_SIZE_BYTES - inside);
      const window = this.#window(inode.ino, index) ?? emptyWindow();
      const removed = place(window, { offset: inside, lengthBytes: part, shard, shardOffset: shardOffset + done });
      this.store.put(windowKey(inode.ino, index), window);
      this.#account(inode, part);
      this.#release(inode, removed);
      done += part;
    }
    const record = this.requireShard(shard);
    record.liveBytes += lengthBytes;
    this.store.put(shardKeyOf(shard), record);
  }

  #account(inode: Inode, bytes: number): void {
    inode.storedBytes += bytes;
    const counters = this.counters;
    counters.storedBytes += bytes;
    this.store.put(COUNTERS_KEY, counters);
  }

  #release(inode: Inode, spans: readonly Span[]): void {
    for (const span of spans) {
      this.#account(inode, -span.lengthBytes);
      const shard = this.requireShard(span.shard);
      shard.liveBytes -= span.lengthBytes;
      this.store.put(shardKeyOf(span.shard), shard);
    }
  }

  /** Indexes of the windows of a file from `first` on that exist; at once for files that are not huge. */
  #windowsFrom(inode: Inode, first: number): Now<number[]> {
    const count = Math.ceil(inode.sizeBytes / WINDOW_SIZE_BYTES);
    if (count - first > PROBED_WINDOWS) return this.#listWindows(inode.ino, first);
    const found: number[] = [];
    for (let i = first; i < count; i++) if (this.#window(inode.ino, i) !== undefined) found.push(i);
    return found;
  }

  async #listWindows(ino: number, first: number): Promise<number[]> {
    // the operation that asks must end first, so that one commit holds all of it
    await Promise.resolve();
    await this.store.commit();
    const found: number[] = [];
    const prefix = windowKey(ino, 0).slice(0, 9);
    for await (const { key } of this.store.plaintexts(prefix, { from: keyBytes(windowKey(ino, first)) })) {
      found.push(decodeNumber(key, 9));
    }
    return found;
  }

  /**
   * Cuts a file to `sizeBytes` and frees what it holds behind that, in one turn, so that it lies in
   * one commit. Writes to the file must not run meanwhile.
   */
  freeFrom(inode: Inode, sizeBytes: number): Now<void> {
    const first = Math.floor(sizeBytes / WINDOW_SIZE_BYTES);
    const free = (indexes: readonly number[]): void => {
      const current = this.inode(inode.ino);
      if (current === undefined) return;
      for (const index of indexes) {
        const window = this.#window(inode.ino, index);
        if (window === undefined) continue;
        const inside = Math.max(0, sizeBytes - index * WINDOW_SIZE_BYTES);
        this.#release(current, cut(window, inside, WINDOW_SIZE_BYTES));
        if (window.offsets.length === 0) this.store.delete(windowKey(inode.ino, index));
        else this.store.put(windowKey(inode.ino, index), window);
      }
      current.sizeBytes = Math.min(current.sizeBytes, sizeBytes);
      this.touch(current);
    };
    if (inode.storedBytes === 0) return free([]);
    const indexes = this.#windowsFrom(inode, first);
    if (!(indexes instanceof Promise)) return free(indexes);
    return indexes.then((listed) => {
      if (!this.store.recording) throw new XcoreError('EROFS', 'another device writes this volume now');
      free(listed);
    });
  }

  // ------------------------------------------------------------------ orphans and removal

  /** Remembers that an inode without names is still open, so that a restart removes it. */
  markOrphan(ino: number): void {
    this.store.put(orphanKey(ino), MARK);
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
      if (inode.hasXattrs) this.store.delete(xattrsKey(inode.ino));
      if (this.store.get(orphanKey(inode.ino)) !== undefined) this.store.delete(orphanKey(inode.ino));
      const counters = this.counters;
      counters.inodes--;
      this.store.put(COUNTERS_KEY, counters);
    };
    const freed = this.freeFrom(inode, 0);
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
    return this.upload(shard)?.durable === false;
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

  /** All shards that no published entry names yet, of the committed state. */
  async uploads(): Promise<{ shard: number; upload: Upload }[]> {
    const found: { shard: number; upload: Upload }[] = [];
    for await (const { key, record } of this.store.range(KIND.upload)) {
      found.push({ shard: decodeNumber(key, 1), upload: record as Upload });
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

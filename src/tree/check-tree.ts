// Looks at every record of an index and at what they say of each other: names and inodes, extents
// and shards, counters, the tally and the outbox. Changes nothing, and knows no files of bytes.

import { hiddenName } from '../crypto/hidden-name.ts';
import { asError } from '../lib/errors.ts';
import { WINDOW_SIZE_BYTES } from './extents.ts';
import type { Window } from './extents.ts';
import type { Findings } from './findings.ts';
import { decodeNumber, dentryKey, KIND, ROOT_INO } from './keys.ts';
import { decodeRecord } from './record-codec.ts';
import type { Counters, Dentry, Inode, Shard, Upload } from './records.ts';
import type { RecordStore } from './record-store.ts';
import { decodeTally, isTallied, newestTally, TallyCount } from './tally.ts';
import type { Tally } from './tally.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;

/** What is known of one inode, from its own record and from those that name it. */
interface Node {
  inode: { type: number; nlink: number; sizeBytes: number; entries: number; parent: number } | null;
  storedBytes: number;
  hasXattrs: boolean;
  /** Dentries that name it, and the directory of one of them. */
  names: number;
  parent: number;
  namedType: number;
  /** Dentries in it, and those of them that are directories. */
  entries: number;
  folders: number;
  isOrphan: boolean;
  xattrs: boolean;
  extentBytes: number;
  extentsEnd: number;
}

interface ShardUse {
  record: Shard | null;
  liveBytes: number;
  end: number;
  upload: boolean;
}

/** What a check saw. */
export interface TreeSummary {
  readonly records: number;
  readonly inodes: number;
  readonly shards: number;
  readonly unpublished: number;
  /** Shards whose bytes were lost with the power: known, and an error for whoever reads them. */
  readonly lostShards: ReadonlySet<number>;
}

/** Checks one index. */
export class TreeCheck {
  readonly #store: RecordStore;
  readonly #nameKey: Buffer;
  readonly #findings: Findings;
  readonly #nodes = new Map<number, Node>();
  readonly #shards = new Map<number, ShardUse>();
  readonly #tallies: Tally[] = [];
  readonly #commits: number[] = [];
  readonly #count = new TallyCount();
  #counters: Counters | null = null;
  #inodes = 0;
  #storedBytes = 0;
  #highestIno = 0;

  /** Findings are added to `findings`. */
  constructor(store: RecordStore, nameKey: Buffer, findings: Findings) {
    this.#store = store;
    this.#nameKey = nameKey;
    this.#findings = findings;
  }

  /** Reads all of what is committed, once; `progress` is told how many records of how many. */
  async run(progress: (done: number, total: number) => void = () => undefined): Promise<TreeSummary> {
    const snapshot = this.#store.snapshot();
    const total = this.#store.tally.records;
    let records = 0;
    try {
      for await (const { key, value, stamp, error } of this.#store.scan(snapshot)) {
        if (++records % 4_096 === 0) progress(records, total);
        const kind = key.charAt(0);
        if (isTallied(kind)) this.#count.replace(0n, stamp);
        if (value === null) {
          this.#findings.add('index', `a record of kind "${kind}" is damaged: ${asError(error).message}`);
          continue;
        }
        try {
          this.#note(kind, key, value);
        } catch (cause) {
          this.#findings.add('index', `a record of kind "${kind}" cannot be understood: ${asError(cause).message}`);
        }
      }
    } finally {
      await snapshot.close();
    }
    this.#checkTally();
    this.#checkCounters();
    for (const [ino, node] of this.#nodes) this.#checkNode(ino, node);
    this.#checkReachable();
    const lostShards = this.#checkShards();
    return {
      ...{ records, inodes: this.#inodes, shards: this.#shards.size, lostShards },
      unpublished: this.#commits.length,
    };
  }

  #node(ino: number): Node {
    let node = this.#nodes.get(ino);
    if (node === undefined) {
      node = {
        ...{ inode: null, storedBytes: 0, hasXattrs: false, names: 0, parent: 0, namedType: 0, entries: 0, folders: 0 },
        ...{ isOrphan: false, xattrs: false, extentBytes: 0, extentsEnd: 0 },
      };
      this.#nodes.set(ino, node);
    }
    return node;
  }

  #shard(shard: number): ShardUse {
    let use = this.#shards.get(shard);
    if (use === undefined) {
      use = { record: null, liveBytes: 0, end: 0, upload: false };
      this.#shards.set(shard, use);
    }
    return use;
  }

  // ------------------------------------------------------------------ reading

  #note(kind: string, key: string, value: Buffer): void {
    if (kind === KIND.tally) {
      this.#tallies.push(decodeTally(value));
      return;
    }
    const number = key.length >= 9 ? decodeNumber(key, 1) : 0;
    if (kind === KIND.outbox) {
      this.#commits.push(number);
      return;
    }
    const record = decodeRecord(kind, value, number);
    if (kind === KIND.counters) this.#counters = record as Counters;
    else if (kind === KIND.dentry) this.#noteDentry(key, number, record as Dentry);
    else if (kind === KIND.window) this.#noteWindow(number, decodeNumber(key, 9), record as Window);
    else if (kind === KIND.inode) this.#noteInode(record as Inode);
    else if (kind === KIND.orphan) this.#node(number).isOrphan = true;
    else if (kind === KIND.shard) this.#shard(number).record = record as Shard;
    else if (kind === KIND.upload) this.#shard(number).upload = (record as Upload).lost !== true;
    else if (kind === KIND.xattrs) this.#node(number).xattrs = true;
  }

  #noteDentry(key: string, parent: number, { name, ino, type }: Dentry): void {
    if (key !== dentryKey(parent, hiddenName(this.#nameKey, parent, name))) {
      this.#findings.add('tree', `a name in the directory with inode ${parent} lies in the place of another`);
    }
    const node = this.#node(ino);
    node.names++;
    node.parent = parent;
    node.namedType = type;
    const directory = this.#node(parent);
    directory.entries++;
    if (type === S_IFDIR) directory.folders++;
  }

  #noteInode(inode: Inode): void {
    const { mode, nlink, sizeBytes, entries, parent, storedBytes, hasXattrs } = inode;
    this.#inodes++;
    this.#storedBytes += storedBytes;
    this.#highestIno = Math.max(this.#highestIno, inode.ino);
    const node = this.#node(inode.ino);
    node.inode = { type: mode & S_IFMT, nlink, sizeBytes, entries, parent };
    node.storedBytes = storedBytes;
    node.hasXattrs = hasXattrs;
  }

  #noteWindow(ino: number, index: number, { offsets, lengths, shards, shardOffsets }: Window): void {
    const node = this.#node(ino);
    let end = 0;
    let isOrdered = offsets.length > 0;
    for (const [i, offset] of offsets.entries()) {
      const [length, shardOffset] = [lengths[i] ?? 0, shardOffsets[i] ?? 0];
      isOrdered &&= length > 0 && offset >= end;
      end = offset + length;
      const use = this.#shard(shards[i] ?? 0);
      use.liveBytes += length;
      use.end = Math.max(use.end, shardOffset + length);
      node.extentBytes += length;
    }
    if (!isOrdered || end > WINDOW_SIZE_BYTES) {
      this.#findings.add('extents', `the extents of inode ${ino} overlap or leave their window (window ${index})`);
    }
    node.extentsEnd = Math.max(node.extentsEnd, index * WINDOW_SIZE_BYTES + end);
  }

  // ------------------------------------------------------------------ judging

  #checkTally(): void {
    const { newest, missing } = newestTally(this.#tallies);
    if (missing > 0) this.#findings.add('index', `${missing} of the last batches of changes are gone`);
    const { records, sum } = this.#count;
    if (records !== newest.records) {
      this.#findings.add('index', `it holds ${records} records and should hold ${newest.records}`);
    } else if (sum !== newest.sum) {
      this.#findings.add('index', 'some of its records are older or newer than they should be');
    }
    const present = new Set(this.#commits);
    let lacking = 0;
    for (let n = newest.firstUnpublished; n <= newest.lastCommit; n++) if (!present.has(n)) lacking++;
    if (lacking > 0) this.#findings.add('index', `${lacking} changes that were never published are gone`);
  }

  #checkCounters(): void {
    const counters = this.#counters;
    if (counters === null) {
      if (this.#inodes > 0) this.#findings.add('tree', 'the volume has no counters');
      return;
    }
    const highestShard = [...this.#shards.keys()].reduce((a, b) => Math.max(a, b), 0);
    const wrong = (what: string, said: number, found: number): void =>
      this.#findings.add('tree', `the counter of ${what} says ${said}, and there are ${found}`);
    if (counters.inodes !== this.#inodes) wrong('inodes', counters.inodes, this.#inodes);
    if (counters.storedBytes !== this.#storedBytes) wrong('bytes', counters.storedBytes, this.#storedBytes);
    if (counters.nextIno <= this.#highestIno) wrong('inode numbers', counters.nextIno, this.#highestIno);
    if (counters.nextShard <= highestShard) wrong('shard numbers', counters.nextShard, highestShard);
  }

  #checkNode(ino: number, node: Node): void {
    const tree = (message: string): void => this.#findings.add('tree', message);
    const { inode, names } = node;
    if (inode === null) {
      if (names > 0) tree(`inode ${ino}, which has ${names === 1 ? 'a name' : 'names'}, is gone`);
      if (node.entries > 0) tree(`the directory with inode ${ino} is gone, and ${node.entries} names in it are not`);
      if (node.extentBytes > 0) this.#findings.add('extents', `there are extents of inode ${ino}, which is gone`);
      if (node.isOrphan || node.xattrs) tree(`there are records of inode ${ino}, which is gone`);
      return;
    }
    if (names > 0 && node.namedType !== inode.type) tree(`a name says that inode ${ino} is of another type`);
    if (inode.type === S_IFDIR) this.#checkDirectory(ino, node, inode);
    else if (inode.nlink !== names) tree(`inode ${ino} has ${names} names and says ${inode.nlink}`);
    if (inode.nlink === 0 && !node.isOrphan) tree(`inode ${ino} has no name, and is not marked for removal`);
    if (inode.nlink > 0 && node.isOrphan) tree(`inode ${ino} is marked for removal, and has a name`);
    if (node.hasXattrs !== node.xattrs) tree(`the extended attributes of inode ${ino} are not as it says`);
    const extents = (message: string): void => this.#findings.add('extents', message);
    if (node.extentBytes !== node.storedBytes) {
      extents(`the extents of inode ${ino} hold ${node.extentBytes} bytes, and it says ${node.storedBytes}`);
    }
    if (node.extentBytes > 0 && inode.type !== S_IFREG) extents(`inode ${ino} has extents and is no file`);
    else if (node.extentsEnd > inode.sizeBytes) extents(`inode ${ino} has extents behind its end`);
  }

  #checkDirectory(ino: number, node: Node, inode: NonNullable<Node['inode']>): void {
    const tree = (message: string): void => this.#findings.add('tree', message);
    if (inode.entries !== node.entries) {
      tree(`the directory with inode ${ino} holds ${node.entries} names, and says ${inode.entries}`);
    }
    const isRemoved = inode.nlink === 0;
    if (!isRemoved && inode.nlink !== 2 + node.folders) {
      tree(`the directory with inode ${ino} has ${node.folders} folders, and its link count is ${inode.nlink}`);
    }
    const wanted = ino === ROOT_INO || isRemoved ? 0 : 1;
    if (node.names !== wanted) tree(`the directory with inode ${ino} has ${node.names} names`);
    else if (wanted === 1 && node.parent !== inode.parent) {
      tree(`the directory with inode ${ino} says that it lies elsewhere`);
    }
  }

  /** Directories that have a name and a parent, but no way to the root. */
  #checkReachable(): void {
    if (this.#inodes > 0 && this.#nodes.get(ROOT_INO)?.inode?.type !== S_IFDIR) {
      this.#findings.add('tree', 'the root directory is gone');
      return;
    }
    const reached = new Set([ROOT_INO]);
    for (const [ino, node] of this.#nodes) {
      if (node.inode?.type !== S_IFDIR || node.names === 0) continue;
      const way = new Set<number>();
      let at = ino;
      while (!reached.has(at) && !way.has(at)) {
        way.add(at);
        at = this.#nodes.get(at)?.parent ?? 0;
        if (at === 0) break;
      }
      if (reached.has(at)) for (const passed of way) reached.add(passed);
      else if (way.has(at)) this.#findings.add('tree', `the directory with inode ${ino} lies inside itself`);
    }
  }

  #checkShards(): Set<number> {
    const lost = new Set<number>();
    const wrong = (message: string): void => this.#findings.add('shards', message);
    for (const [shard, { record, liveBytes, end, upload }] of this.#shards) {
      if (record === null) {
        wrong(end > 0 ? `shard ${shard}, in which bytes of files lie, is unknown` : `shard ${shard} is gone`);
        continue;
      }
      if (record.liveBytes !== liveBytes) {
        wrong(`files use ${liveBytes} bytes of shard ${shard}, and it says ${record.liveBytes}`);
      }
      if (record.salt.length !== 32 || ![0, 32].includes(record.id.length)) wrong(`shard ${shard} is malformed`);
      if (liveBytes === 0) continue;
      if (end > record.sizeBytes || (record.id.length === 0 && !upload)) lost.add(shard);
    }
    return lost;
  }
}

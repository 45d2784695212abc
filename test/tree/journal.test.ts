// What close(2) acknowledges lies in the journal before it lies in LevelDB: what is found after a kill, or a
// power cut, at any moment.

import { NO_BARRIER } from '../../src/tree/durability.ts';
import { constants, cpSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { Test } from 'tap';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { decodeNumber, KIND, metaKey, xattrsKey } from '../../src/tree/keys.ts';
import {
  ChangeSetSchema,
  CountersRecordSchema,
  DentryRecordSchema,
  InodeRecordSchema,
  ShardRecordSchema,
  TallyRecordSchema,
  WindowRecordSchema,
} from '../../src/tree/proto/tree_pb.ts';
import { changesOf } from '../../src/tree/change-set-bytes.ts';
import { changeSetBytes, tallyBytes } from '../../src/tree/record-bytes.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import type { StoreOptions } from '../../src/tree/record-store.ts';
import { decodeRecord, encodeRecord, unpack } from '../../src/tree/record-codec.ts';
import { systemDisk } from '../../src/lib/disk.ts';
import type { Disk } from '../../src/lib/disk.ts';
import { hasCode } from '../../src/lib/errors.ts';
import type { Inode, Xattrs } from '../../src/tree/records.ts';
import { pickSeed, Random } from '../support/random.ts';
import { indexSealer, LINEAGE, temporaryFolder } from '../support/volume.ts';
import type { Scope } from '../support/volume.ts';

const seed = pickSeed();
const random = new Random(seed);
t.comment(`XCORE_TEST_SEED=${seed}`);

/** A store of a writer that has made its first commit: from then on it journals. */
async function openWriter(t: Scope, dir: string, options?: StoreOptions): Promise<RecordStore> {
  const store = await RecordStore.open(dir, indexSealer(), LINEAGE, options);
  t.teardown(() => store.close().catch(() => undefined));
  store.setBarrier({ ...NO_BARRIER, now: () => true, takeTails: () => [] });
  store.setRecording(true);
  set(store, 0, 0);
  await store.commit();
  return store;
}

function set(store: RecordStore, n: number, value: number): void {
  store.put(xattrsKey(n), new Map([['n', Buffer.from(String(value))]]));
}

function valueOf(store: RecordStore, n: number): number | null {
  const record = store.get(xattrsKey(n)) as Xattrs | undefined;
  return record === undefined ? null : Number(Buffer.from(record.get('n') ?? '').toString());
}

/** Opens what a kill at this moment would leave, and closes it. */
async function after<T>(dir: string, copy: string, look: (store: RecordStore) => T | Promise<T>): Promise<T> {
  cpSync(dir, copy, { recursive: true });
  return await lookAt(copy, look);
}

async function lookAt<T>(dir: string, look: (store: RecordStore) => T | Promise<T>): Promise<T> {
  const store = await RecordStore.open(dir, indexSealer(), LINEAGE);
  try {
    return await look(store);
  } finally {
    await store.close();
  }
}

t.test('what is persisted at once is there after a kill, with what it depends on, and is published', async (t) => {
  const root = temporaryFolder(t);
  const dir = join(root, 'index');
  const store = await openWriter(t, dir);
  const commits = store.lastCommit;
  for (let n = 1; n <= 5; n++) {
    set(store, n, n);
    set(store, 0, n);
    if (n === 3) store.delete(xattrsKey(2));
    t.equal(store.persist(), undefined, 'without waiting');
  }
  set(store, 9, 9);
  t.equal(store.lastCommit, commits, 'without a commit');
  const outbox = await after(dir, join(root, 'killed'), async (found) => {
    t.strictSame(
      [0, 1, 2, 3, 4, 5, 9].map((n) => valueOf(found, n)),
      [5, 1, null, 3, 4, 5, null],
    );
    const keys: string[] = [];
    for await (const { value } of found.plaintexts(KIND.outbox)) {
      const { changes } = fromBinary(ChangeSetSchema, value);
      keys.push(changes.map(({ key }) => decodeNumber(Buffer.from(key).toString('latin1'), 1)).join());
    }
    return keys;
  });
  t.strictSame(outbox, ['0', '1,0,2,3,4,5'], 'the outbox has it as one commit');
  await after(dir, join(root, 'again'), (found) => t.equal(valueOf(found, 5), 5));
  // a batch holds all of it; what comes next begins the file anew
  await store.commit();
  set(store, 6, 6);
  t.equal(store.persist(), undefined);
  await after(dir, join(root, 'later'), (found) =>
    t.strictSame(
      [5, 6, 9].map((n) => valueOf(found, n)),
      [5, 6, 9],
    ),
  );
});

/** A disk on which nothing can be done past the kernel's memory, as it says at one call. */
function indirect(call: 'open' | 'write'): Disk {
  const refusal = Object.assign(new Error('EINVAL'), { code: 'EINVAL', errno: -22 });
  return {
    ...systemDisk,
    open: async (path, flags, mode) => {
      const isDirect = typeof flags === 'number' && (flags & constants.O_DIRECT) !== 0;
      if (isDirect && call === 'open') throw refusal;
      const file = await systemDisk.open(path, flags, mode);
      return isDirect ? Object.assign(file, { write: () => Promise.reject(refusal) }) : file;
    },
  };
}

for (const [where, disk] of [
  ['', systemDisk],
  [', where files cannot be opened for direct writes', indirect('open')],
  [', where direct writes are refused', indirect('write')],
] as const) {
  t.test(`what is synced outlives the loss of the journal, and of batches${where}`, (t) => outlivesLosses(t, disk));
}

async function outlivesLosses(t: Test, disk: Disk): Promise<void> {
  const root = temporaryFolder(t);
  const dir = join(root, 'index');
  const syncJournal = join(root, 'sync-journal');
  const store = await openWriter(t, dir, { syncJournal, disk });
  // the first sync is one of all files, and makes the journal; from the next one on it is used
  await store.commit(true);
  while (!existsSync(syncJournal) || statSync(syncJournal).size === 0 || !isUsed(syncJournal)) {
    set(store, 0, 0);
    await store.sync();
  }
  await store.commit();
  cpSync(dir, join(root, 'before'), { recursive: true });
  for (let n = 1; n <= 4; n++) {
    set(store, n, n);
    if (n % 2 === 1) t.equal(store.persist(), undefined, 'an entry that is not synced yet');
    set(store, 0, n);
    await store.sync();
    if (n === 2) await store.commit();
  }
  const written = readFileSync(syncJournal);
  t.equal(store.sync(), undefined, 'nothing to do');
  await store.commit();
  t.equal(store.sync(), undefined, 'nor after a batch of what is synced');
  t.ok(readFileSync(syncJournal).equals(written));
  set(store, 9, 9);
  await Promise.all([store.sync(), store.sync(), store.sync()]);
  for (const [name, from] of [
    ['no journal', dir],
    ['older index', join(root, 'before')],
  ] as const) {
    const copy = join(root, name);
    cpSync(from, copy, { recursive: true });
    truncateSync(join(copy, 'journal'), 0);
    cpSync(syncJournal, `${copy}.sync`);
    const found = await RecordStore.open(copy, indexSealer(), LINEAGE, { syncJournal: `${copy}.sync` });
    t.strictSame(
      [0, 1, 2, 3, 4, 9].map((n) => valueOf(found, n)),
      [4, 1, 2, 3, 4, 9],
      name,
    );
    await found.close();
  }
}

t.test('what is committed while the index is closed is synced with it', async (t) => {
  const root = temporaryFolder(t);
  const syncs: boolean[] = [];
  const guard = { before: () => undefined, after: (sync: boolean) => void syncs.push(sync) };
  const store = await openWriter(t, join(root, 'index'), { syncJournal: join(root, 'sync-journal'), guard });
  await store.commit(true);
  set(store, 1, 1);
  let late: Promise<void> | undefined;
  store.setBarrier({
    ...NO_BARRIER,
    wait: async () => {
      if (late !== undefined) return;
      set(store, 2, 2);
      late = store.commit();
    },
  });
  const before = syncs.length;
  await store.close();
  await late;
  t.strictSame(syncs.slice(before), [true, true]);
});

/** Whether a sync journal has a record. */
function isUsed(path: string): boolean {
  return readFileSync(path).subarray(0, 3).toString() === 'XCJ';
}

t.test('a journal that ends anywhere gives a state that was', async (t) => {
  const root = temporaryFolder(t);
  const dir = join(root, 'index');
  const store = await openWriter(t, dir);
  const ends: number[] = [0];
  for (let n = 1; n <= 6; n++) {
    set(store, 0, n);
    set(store, n, n);
    t.equal(store.persist(), undefined);
    ends.push(endOf(readFileSync(join(dir, 'journal'))));
  }
  // in the same turn, before a commit
  const left = join(root, 'left');
  cpSync(dir, left, { recursive: true });
  const journal = readFileSync(join(left, 'journal'));
  const sizes = new Set([...ends, ...ends.map((end) => end + 1), ...ends.map((end) => Math.max(0, end - 1))]);
  for (let n = 0; n < 10; n++) sizes.add(random.below(ends.at(-1)!));
  for (const size of sizes) {
    const copy = join(root, `cut-${size}`);
    cpSync(left, copy, { recursive: true });
    const zeros = random.below(2) === 0 ? 0 : Math.max(0, journal.length - size);
    const cut = Buffer.concat([journal.subarray(0, size), Buffer.alloc(zeros)]);
    writeFileSync(join(copy, 'journal'), cut);
    // an entry that ends in zeros is whole without them if zeros follow
    const whole = ends.filter((end) => cut.subarray(0, end).equals(journal.subarray(0, end))).length - 1;
    const found = await lookAt(copy, (opened) => [0, 1, 2, 3, 4, 5, 6].map((n) => valueOf(opened, n)));
    t.strictSame(found, [whole, ...[1, 2, 3, 4, 5, 6].map((n) => (n <= whole ? n : null))], `${size} bytes`);
  }
});

/** Where the entries of a journal end. */
function endOf(journal: Buffer): number {
  let at = 0;
  while (at + 4 <= journal.length && journal.readUInt32BE(at) > 0) at += 20 + journal.readUInt32BE(at);
  return at;
}

t.test('entries that come after a batch that a power cut took are void, now and at all later starts', async (t) => {
  const root = temporaryFolder(t);
  const dir = join(root, 'index');
  const store = await openWriter(t, dir);
  set(store, 1, 1);
  t.equal(store.persist(), undefined);
  const before = join(root, 'before');
  cpSync(dir, before, { recursive: true });
  // 2 is in the batch only, and 3 in the journal only
  set(store, 2, 2);
  await store.commit();
  for (const n of [3, 4, 5]) {
    set(store, n, n);
    t.equal(store.persist(), undefined);
  }
  cpSync(join(dir, 'journal'), join(before, 'journal'));
  for (let start = 0; start < 3; start++) {
    const found = await openWriter(t, before);
    t.strictSame(
      [2, 3, 4, 5].map((n) => valueOf(found, n)),
      [null, null, null, null],
      `start ${start}`,
    );
    set(found, 10 + start, 1);
    await found.persist();
    await found.close();
  }
});

t.test('what no journal may hold waits for a commit', async (t) => {
  const dir = join(temporaryFolder(t), 'index');
  const store = await openWriter(t, dir);
  store.put(metaKey('head'), {
    ...{ seq: 1, hash: Buffer.alloc(32), epoch: 1, lastCommit: 0, checkpointSeq: 0, logBytes: 0, seenSeq: 0 },
    seenHash: Buffer.alloc(0),
    sent: [],
  });
  const waits = store.persist();
  t.ok(waits instanceof Promise, 'the head of the log');
  await waits;
  store.setBarrier(NO_BARRIER);
  set(store, 1, 1);
  t.ok(store.persist() instanceof Promise, 'bytes that are not in their file yet');
  await store.commit();
  t.equal(store.persist(), undefined, 'nothing new waits for nothing');
});

t.test('records are the bytes that the generic encoder makes of them', (t) => {
  const BORDERS = [0, 1, 127, 128, 2 ** 14 - 1, 2 ** 14, 2 ** 21 - 1, 2 ** 21, 2 ** 31, 2 ** 32 - 1];
  const number = (): number => random.pick([...BORDERS, random.below(2 ** 30)]);
  const large = (): number => random.pick([number(), 2 ** 32, 2 ** 44, Number.MAX_SAFE_INTEGER]);
  const time = (): bigint => random.pick([0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 1_700_000_000_000_000_000n]);
  const same = (kind: string, record: Parameters<typeof encodeRecord>[1], generic: Uint8Array, ino = 0): void => {
    const bytes = encodeRecord(kind, record);
    if (!Buffer.from(bytes).equals(generic)) t.fail(`${kind} ${JSON.stringify(record, (_, v: unknown) => String(v))}`);
    t.strictSame(decodeRecord(kind, bytes, ino), record);
  };
  for (let round = 0; round < 200; round++) {
    const ino = large();
    const inode: Inode = {
      ...{ ino, mode: number(), uid: number(), gid: number(), nlink: number(), sizeBytes: large(), rdev: number() },
      ...{ atimeNs: time(), mtimeNs: time(), ctimeNs: time(), btimeNs: time() },
      symlinkTarget: new Uint8Array(random.bytes(random.pick([0, 0, 1, 300]))),
      hasXattrs: random.below(2) === 0,
      ...{ parent: large(), entries: large(), storedBytes: large() },
    };
    const big = (value: number): bigint => BigInt(value);
    const { sizeBytes, parent, entries, storedBytes } = inode;
    const numbers = {
      sizeBytes: big(sizeBytes),
      parent: big(parent),
      entries: big(entries),
      storedBytes: big(storedBytes),
    };
    const generic = toBinary(InodeRecordSchema, create(InodeRecordSchema, { ...inode, ...numbers }));
    const found = decodeRecord(KIND.inode, encodeRecord(KIND.inode, inode), ino) as Inode;
    t.ok(Buffer.from(encodeRecord(KIND.inode, inode)).equals(generic), 'inode');
    t.strictSame({ ...found, symlinkTarget: new Uint8Array(found.symlinkTarget) }, inode);
    const name = random.bytes(random.pick([1, 20, 127, 128, 255])).toString('latin1');
    const dentry = { name, ino, type: 0o100000 };
    same(
      KIND.dentry,
      dentry,
      toBinary(
        DentryRecordSchema,
        create(DentryRecordSchema, { name: Buffer.from(name, 'latin1'), ino: big(ino), type: 0o100000 }),
      ),
    );
    const list = (make: () => number): number[] => Array.from({ length: round === 0 ? 5_000 : round % 50 }, make);
    const window = {
      offsets: list(number),
      lengths: list(number),
      shards: list(large),
      shardOffsets: list(number),
    };
    const shards = window.shards.map(big);
    same(KIND.window, window, toBinary(WindowRecordSchema, create(WindowRecordSchema, { ...window, shards })));
    const stamp = (): bigint => random.pick([0n, 1n, 2n ** 64n - 1n, random.bytes(8).readBigUInt64BE()]);
    const [batch, records, lastCommit, firstUnpublished, journal] = [large(), large(), large(), large(), large()];
    const stamps = { sum: stamp(), journalId: stamp() };
    const tally = { batch, records, lastCommit, firstUnpublished, journal, ...stamps };
    const wide = { batch: big(batch), records: big(records), lastCommit: big(lastCommit), journal: big(journal) };
    const bigTally = { ...wide, firstUnpublished: big(firstUnpublished), ...stamps };
    t.ok(tallyBytes(tally).equals(toBinary(TallyRecordSchema, create(TallyRecordSchema, bigTally))), 'tally');
    const counters = { nextIno: large(), nextShard: large(), inodes: large(), storedBytes: large() };
    same(
      KIND.counters,
      counters,
      toBinary(
        CountersRecordSchema,
        create(CountersRecordSchema, {
          nextIno: big(counters.nextIno),
          nextShard: big(counters.nextShard),
          inodes: big(counters.inodes),
          storedBytes: big(counters.storedBytes),
        }),
      ),
    );
    const shard = {
      salt: new Uint8Array(random.bytes(32)),
      id: new Uint8Array(random.bytes(random.pick([0, 32]))),
      ...{ sizeBytes: number(), liveBytes: large(), crc32: number(), syncedBytes: number(), syncedCrc32: number() },
    };
    const live = { ...shard, liveBytes: big(shard.liveBytes) };
    const shardBytes = encodeRecord(KIND.shard, shard);
    t.ok(Buffer.from(shardBytes).equals(toBinary(ShardRecordSchema, create(ShardRecordSchema, live))), 'shard');
    const changes = list(number).map((size) => ({
      key: random.bytes(9),
      value: size === 0 ? null : random.bytes(size % 300),
    }));
    const set = {
      changes: changes.map(({ key, value }) => (value === null ? { key } : { key, value })),
      lineage: random.bytes(16),
      lastCommit: big(ino),
    };
    const bytes = toBinary(ChangeSetSchema, create(ChangeSetSchema, set));
    t.ok(changeSetBytes(changes, set.lineage, ino).equals(bytes), 'change set');
    const read = changesOf(bytes).map(({ key, value }) => [key, value && Buffer.from(value)]);
    t.same(
      read,
      changes.map(({ key, value }) => [key.toString('latin1'), value && Buffer.from(value)]),
    );
  }
  t.end();
});

t.test('a change set reads as the generic decoder has it, also cut off or altered', (t) => {
  const changes = [
    { key: Buffer.alloc(9, 'i'), value: Buffer.alloc(200, 'v') },
    { key: Buffer.alloc(25, 'd'), value: null },
    { key: Buffer.alloc(1, 'c'), value: Buffer.alloc(0) },
  ];
  const bytes = changeSetBytes(changes, Buffer.alloc(16, 'l'), 300);
  const altered = Array.from(bytes, (byte, at) => Buffer.from(bytes).fill(byte ^ 0x40, at, at + 1));
  const cut = Array.from(bytes, (_byte, at) => bytes.subarray(0, at));
  const outcome = (read: () => { key: string; value: Buffer | null }[]): unknown => {
    try {
      return read();
    } catch (error) {
      return hasCode(error, 'CORRUPT_RECORD') ? 'CORRUPT_RECORD' : error;
    }
  };
  for (const [at, some] of [bytes, ...altered, ...cut].entries()) {
    const expected = outcome(() =>
      unpack(ChangeSetSchema, some).changes.map(({ key, value }) => ({
        key: Buffer.from(key).toString('latin1'),
        value: value ? Buffer.from(value) : null,
      })),
    );
    // what comes behind the changes is of no interest here
    const found = outcome(() => changesOf(some).map(({ key, value }) => ({ key, value: value && Buffer.from(value) })));
    if (expected !== 'CORRUPT_RECORD' || found === expected) t.same(found, expected, `${at}`);
  }
  t.same(
    changesOf(bytes).map(({ value }) => value?.length ?? -1),
    [200, -1, 0],
    'an empty value is no deletion',
  );
  t.end();
});

t.test('what is cut off or is no such record is CORRUPT_RECORD', (t) => {
  for (const [kind, bytes] of [
    [KIND.inode, '31ffff'],
    [KIND.inode, '08ff'],
    [KIND.inode, '5a05aabb'],
    [KIND.dentry, '0a04616263'],
    [KIND.window, '0a0301'],
  ] as const) {
    t.throws(() => decodeRecord(kind, Buffer.from(bytes, 'hex'), 1), { code: 'CORRUPT_RECORD' }, `${kind} ${bytes}`);
  }
  const unknown = Buffer.concat([Buffer.from('0805', 'hex'), Buffer.from('a00601', 'hex')]);
  t.equal((decodeRecord(KIND.inode, unknown, 7) as Inode).mode, 5, 'a field of a later program is skipped');
  t.end();
});

// What a power cut may take: never what fsync acknowledged, and never half of an operation.

import { cpSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { decodeNumber, KIND, xattrsKey } from '../../src/tree/keys.ts';
import { ChangeSetSchema } from '../../src/tree/proto/tree_pb.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import { decodeRecord, unpack } from '../../src/tree/record-codec.ts';
import type { Inode } from '../../src/tree/records.ts';
import { decodeSyncJournal, encodeRecord as encodeSyncRecord } from '../../src/tree/sync-journal-format.ts';
import { findingsIn } from '../support/findings.ts';
import { pickSeed, Random } from '../support/random.ts';
import { WatchedDisk } from '../support/watched-disk.ts';
import {
  abandon,
  CALLER,
  indexSealer,
  LINEAGE,
  openVolume,
  readAll,
  temporaryFolder,
  writeFileAt,
} from '../support/volume.ts';

t.setTimeout(240_000);

t.test('bytes from before an fsync outlive the loss of those behind them in the same segment', async (t) => {
  const dir = temporaryFolder(t);
  const before = await openVolume(join(dir, 'before'));
  const synced = Buffer.alloc(100_000, 7);
  const ino = await writeFileAt(before.vfs, 1, 'synced', synced);
  await before.vfs.fsync();
  const later = await writeFileAt(before.vfs, 1, 'later', Buffer.alloc(50_000, 8));
  cpSync(join(dir, 'before'), join(dir, 'after'), { recursive: true });
  const shard = before.tree.extents.spans(ino, 0, 1)[0]?.shard ?? 0;
  await abandon(before);
  // the index reached the disk, the bytes behind the fsync did not
  truncateSync(join(dir, 'after', 'cache', '0', shard.toString(16)), synced.length);
  const after = await openVolume(join(dir, 'after'));
  t.strictSame(after.lost, [shard], 'the loss is told');
  t.ok((await readAll(after.vfs, ino)).equals(synced), 'what fsync acknowledged is there');
  await t.rejects(readAll(after.vfs, later), { code: 'EIO' }, 'what is lost is an error, never other bytes');
  t.ok((await readAll(after.vfs, ino)).equals(synced));
  await t.rejects(readAll(after.vfs, later), { code: 'EIO' }, 'also when the file is open and what is left in memory');
  await after.close();
});

t.test('bytes from before an fsync outlive the loss of those behind them in a sealed segment', async (t) => {
  const dir = temporaryFolder(t);
  const before = await openVolume(join(dir, 'before'));
  const synced = Buffer.alloc(100_000, 7);
  const ino = await writeFileAt(before.vfs, 1, 'synced', synced);
  await before.vfs.fsync();
  const later = await writeFileAt(before.vfs, 1, 'later', Buffer.alloc(50_000, 8));
  await before.segments.seal();
  cpSync(join(dir, 'before'), join(dir, 'after'), { recursive: true });
  const shard = before.tree.extents.spans(ino, 0, 1)[0]?.shard ?? 0;
  await abandon(before);
  // the size of the file reached the disk with the index, its last bytes did not
  const path = join(dir, 'after', 'cache', '0', shard.toString(16));
  const bytes = readFileSync(path);
  writeFileSync(path, bytes.fill(0, synced.length));
  const after = await openVolume(join(dir, 'after'));
  t.strictSame(after.lost, [shard], 'the loss is told');
  t.ok((await readAll(after.vfs, ino)).equals(synced), 'what fsync acknowledged is there');
  await t.rejects(readAll(after.vfs, later), { code: 'EIO' }, 'what is lost is an error, never other bytes');
  await after.close();
});

t.test('rename over a large file is one commit', async (t) => {
  const volume = await openVolume(temporaryFolder(t));
  const { vfs, store } = volume;
  const big = await vfs.mknod(1, 'big', 0o100644, 0, CALLER);
  const file = await vfs.open(big.ino, 2);
  for (const offset of [0, 2 ** 30]) await vfs.write(big.ino, file.handle, offset, Buffer.from('x'), false);
  await vfs.release(big.ino, file.handle);
  await vfs.mknod(1, 'small', 0o100644, 0, CALLER);
  await store.commit();
  const first = store.lastCommit + 1;
  await vfs.rename(1, 'small', 1, 'big', 0);
  await vfs.settled();
  await store.commit();
  for await (const { key, value } of store.plaintexts(KIND.outbox)) {
    if (decodeNumber(key, 1) !== first) continue;
    const changes = new Map(
      unpack(ChangeSetSchema, value).changes.map((change) => {
        const name = Buffer.from(change.key).toString('latin1');
        const number = name.length >= 9 ? decodeNumber(name, 1) : 0;
        return [
          `${name.charAt(0)}${number}`,
          change.value && decodeRecord(name.charAt(0), change.value, number),
        ] as const;
      }),
    );
    t.equal((changes.get('i1') as Inode).entries, 1, 'the folder is complete');
    t.ok(changes.has(`o${big.ino}`), 'and the file that goes is marked');
    t.equal((changes.get(`i${big.ino}`) as Inode).nlink, 0);
  }
  await volume.close();
});

t.test('fsyncs that only the sync journal made safe outlive a power cut, whatever else it takes', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = join(temporaryFolder(t), 'work');
  mkdirSync(dir);
  const watched = new WatchedDisk(dir);
  const calls: string[] = [];
  watched.onPoint = ({ call }) => calls.push(call);
  const before = await openVolume(dir, { disk: watched.disk, guard: watched.guard });
  await before.vfs.fsync();
  const isFull = (call: string): boolean => call === 'batch and sync' || call === 'datasync';
  // until the sync journal takes what an fsync is for
  for (let from = 0; from === 0 || calls.slice(from).some(isFull);) {
    await new Promise((resolve) => setImmediate(resolve));
    from = calls.length;
    await before.vfs.setattr(1, { mode: 0o755 });
    await before.vfs.fsync();
  }
  const files: { name: string; content: Buffer }[] = [];
  const found: string[] = [];
  const copies: { to: string; count: number }[] = [];
  for (let n = 0; n < 60; n++) {
    const [name, content] = [`f${n}`, random.bytes(random.between(1, 9_000))];
    const ino = await writeFileAt(before.vfs, 1, name, content);
    const synced = calls.length;
    await before.vfs.fsync();
    if (n > 0) found.push(...calls.slice(synced).filter(isFull));
    files.push({ name, content });
    // in the middle of a segment, and after it was sealed
    if (n === 30) await before.segments.seal();
    if (n === 45) await before.vfs.setattr(ino, { mode: 0o600 });
    if (n % 6 !== 5) continue;
    await writeFileAt(before.vfs, 1, `unsynced${n}`, random.bytes(5_000));
    const to = join(dirname(dir), `cut-${n}`);
    watched.cutTo(to, random);
    copies.push({ to, count: files.length });
  }
  t.strictSame(found, [], 'one write each, and no other sync');
  await abandon(before);
  // a start that ends before it has used the journal leaves it as it is
  const first = copies[0]!.to;
  const path = join(first, 'sync-journal');
  const left = readFileSync(path);
  const unused = await RecordStore.open(join(first, 'index'), indexSealer(), LINEAGE, { syncJournal: path });
  await unused.close();
  t.ok(left.equals(readFileSync(path)));
  for (const { to, count } of copies) {
    const after = await openVolume(to);
    const wrong: string[] = [];
    for (const { name, content } of files.slice(0, count)) {
      const entry = await after.vfs.lookup(1, name);
      if (entry === null || !(await readAll(after.vfs, entry.ino)).equals(content)) wrong.push(name);
    }
    t.strictSame(wrong, [], `${count} files are there`);
    t.strictSame(await findingsIn(after), []);
    await after.close();
  }
});

t.test('the fsync for which the sync journal has no room left outlives a power cut, too', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const dir = join(temporaryFolder(t), 'work');
  mkdirSync(dir);
  const watched = new WatchedDisk(dir);
  const calls: string[] = [];
  watched.onPoint = ({ call }) => calls.push(call);
  const before = await openVolume(dir, { disk: watched.disk, guard: watched.guard });
  await before.vfs.fsync();
  while (!calls.includes('half of a write and sync')) await new Promise((resolve) => setImmediate(resolve));
  await before.vfs.fsync();
  const contents: Buffer[] = [];
  const copies: { to: string; count: number }[] = [];
  let fullSyncs = 0;
  // some thirty-four fill it
  for (let n = 0; n < 42; n++) {
    const content = random.bytes(120_000);
    await writeFileAt(before.vfs, 1, `f${n}`, content);
    const synced = calls.length;
    await before.vfs.fsync();
    contents.push(content);
    if (n > 0 && calls.slice(synced).includes('batch and sync')) fullSyncs++;
    if (n < 28) continue;
    const to = join(dirname(dir), `cut-${n}`);
    watched.cutTo(to, random);
    copies.push({ to, count: contents.length });
  }
  t.ok(fullSyncs > 0, 'it was full');
  await abandon(before);
  for (const { to, count } of copies) {
    const after = await openVolume(to);
    const wrong: number[] = [];
    for (const [n, content] of contents.slice(0, count).entries()) {
      const entry = await after.vfs.lookup(1, `f${n}`);
      const found = entry === null ? null : await readAll(after.vfs, entry.ino).catch(() => null);
      if (found?.equals(content) !== true) wrong.push(n);
    }
    t.strictSame(wrong, [], `${count} files are there`);
    await after.close();
  }
});

t.test('what close kept is found behind what an fsync kept in the sync journal alone', async (t) => {
  const dir = join(temporaryFolder(t), 'work');
  mkdirSync(dir);
  const watched = new WatchedDisk(dir);
  const calls: string[] = [];
  watched.onPoint = ({ call }) => calls.push(call);
  const before = await openVolume(dir, { disk: watched.disk, guard: watched.guard });
  await before.vfs.fsync();
  while (!calls.includes('half of a write and sync')) await new Promise((resolve) => setImmediate(resolve));
  const contents = [1, 2, 3, 4].map((byte) => Buffer.alloc(10_000, byte));
  for (const [n, content] of contents.entries()) {
    const { attributes, file } = await before.vfs.create(1, `f${n}`, 0o100644, 2, CALLER);
    await before.vfs.write(attributes.ino, file.handle, 0, content, false);
    await (n % 2 === 0 ? before.vfs.fsync() : before.vfs.flush(attributes.ino, file.handle));
  }
  const copy = join(dirname(dir), 'killed');
  cpSync(dir, copy, { recursive: true });
  await abandon(before);
  const after = await openVolume(copy);
  for (const [n, content] of contents.entries()) {
    const entry = await after.vfs.lookup(1, `f${n}`);
    t.ok(entry !== null && (await readAll(after.vfs, entry.ino)).equals(content), `file ${n}`);
  }
  await after.close();
});

t.test('a sync is one of all that was committed before, also of what LevelDB has begun a new log after', async (t) => {
  const dir = temporaryFolder(t);
  const watched = new WatchedDisk(dir);
  const synced = new Set<string>();
  watched.onPoint = ({ call, path }) => call === 'datasync' && synced.add(path);
  const { disk, guard } = watched;
  const index = join(dir, 'index');
  let [earlier, missed] = [0, 0];
  const after = (sync: boolean): void => {
    guard.after(sync);
    const logs = readdirSync(index).filter((name) => name.endsWith('.log'));
    if (!sync) return;
    for (const name of logs.sort().slice(0, -1)) {
      earlier++;
      if (!synced.has(join(index, name))) missed++;
    }
  };
  const store = await RecordStore.open(index, indexSealer(), LINEAGE, { disk, guard: { ...guard, after } });
  const random = new Random('logs');
  for (let round = 0; round < 60 && earlier === 0; round++) {
    for (let n = 0; n < 8; n++) store.put(xattrsKey(n), new Map([['n', random.bytes(60_000)]]));
    await store.commit();
    store.put(xattrsKey(9), new Map([['n', random.bytes(10)]]));
    await store.commit(true);
  }
  await store.close();
  t.comment(`${earlier} earlier logs`);
  t.equal(missed, 0);
});

t.test('a sync journal ends where it is torn, and one of a newer version is refused', (t) => {
  const generation = Buffer.alloc(8, 7);
  const record = (sequence: number): Buffer =>
    encodeSyncRecord(generation, sequence, {
      batches: [
        {
          number: 10 + sequence,
          operations: [
            { type: 'put', key: Buffer.from('key'), value: Buffer.alloc(5_000, sequence) },
            { type: 'del', key: Buffer.from('gone') },
          ],
        },
      ],
      entries: [],
      tails: [{ shard: 3, offset: sequence * 10, bytes: Buffer.alloc(10, sequence), crc32: 7 }],
    });
  const file = Buffer.concat([record(0), record(1), record(2), Buffer.alloc(8_192)]);
  const numbers = (bytes: Buffer): number[] => decodeSyncJournal(bytes).batches.map(({ number }) => number);
  t.strictSame(numbers(file), [10, 11, 12]);
  t.strictSame(decodeSyncJournal(file).tails[2], { shard: 3, offset: 20, bytes: Buffer.alloc(10, 2), crc32: 7 });
  let wrong = 0;
  for (let at = 8_192; at < 2 * 8_192; at += 97) {
    const torn = Buffer.from(file);
    torn[at] = (torn[at] as number) ^ 1;
    const left = numbers(torn);
    // what fills a page means nothing
    if (at - 8_192 < 5_100 ? left.length !== 1 : left[0] !== 10) wrong++;
  }
  t.equal(wrong, 0, 'a changed byte ends it before its record');
  t.strictSame(numbers(Buffer.concat([record(0), record(2)])), [10], 'a record out of turn ends it');
  t.strictSame(numbers(Buffer.alloc(8_192)), []);
  const entries = [Buffer.from('one'), Buffer.from('another')];
  const tails = [{ shard: 1, offset: 2, bytes: Buffer.from('x'), crc32: null }];
  const content = { batches: [], entries, tails };
  t.strictSame(decodeSyncJournal(encodeSyncRecord(generation, 0, content)), { ...content, newest: 0 });
  const newer = Buffer.from(file);
  newer[3] = '3'.charCodeAt(0);
  t.throws(() => decodeSyncJournal(newer), { code: 'BAD_FORMAT' });
  t.end();
});

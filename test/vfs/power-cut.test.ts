// What a power cut may take: never what fsync acknowledged, and never half of an operation.

import { cpSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { decodeNumber, KIND } from '../../src/tree/keys.ts';
import { ChangeSetSchema } from '../../src/tree/proto/tree_pb.ts';
import { decodeRecord, unpack } from '../../src/tree/record-codec.ts';
import type { Inode } from '../../src/tree/records.ts';
import { abandon, CALLER, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';

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

// Attributes through a real mount: modes, owners, times, sizes, xattrs, the space of the volume.

import {
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { XATTR_CREATE, XATTR_REPLACE, getxattr, listxattr, removexattr, setTimes, setxattr } from '../support/libc.ts';
import { limit } from '../support/driver.ts';
import { withMount } from '../support/mounted.ts';
import { until } from '../support/run.ts';

t.setTimeout(280_000);

const volume = await withMount(t);
const { dir } = volume;
const at = (name: string): string => join(dir, name);

await t.test('chmod and chown', async (t) => {
  chmodSync(dir, 0o750);
  t.equal(statSync(dir).mode & 0o7777, 0o750, 'of the root, as the first call of all');
  writeFileSync(at('modes'), 'x');
  for (const mode of [0o000, 0o400, 0o4755, 0o2755, 0o1777, 0o644]) {
    chmodSync(at('modes'), mode);
    t.equal(statSync(at('modes')).mode, 0o100000 | mode);
  }
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
  chownSync(at('modes'), uid, gid);
  if (uid === 0) {
    chownSync(at('modes'), 1234, 5678);
    t.match(statSync(at('modes')), { uid: 1234, gid: 5678 });
  }
  t.throws(() => chmodSync(at('absent'), 0o644), { code: 'ENOENT' });
});

await t.test('times keep nanoseconds, also after a remount', { skip: limit('times of milliseconds') }, async (t) => {
  const atimeNs = 1_234_567_890_123_456_789n;
  const times = [0n, 1n, -1n, -86_400_000_000_001n, 1_763_812_345_987_654_321n, 4_102_444_800_000_000_001n];
  const check = (when: string): void => {
    times.forEach((mtimeNs, n) => {
      t.equal(lstatSync(at(`time-${n}`), { bigint: true }).mtimeNs, mtimeNs, `${mtimeNs} ${when}`);
      t.equal(lstatSync(at(`time-link-${n}`), { bigint: true }).mtimeNs, mtimeNs, `of a symlink, ${when}`);
    });
    t.equal(statSync(at('time-dir'), { bigint: true }).mtimeNs, 1_763_812_345_987_654_321n, `of a folder, ${when}`);
  };
  times.forEach((mtimeNs, n) => {
    writeFileSync(at(`time-${n}`), 'some content');
    setTimes(at(`time-${n}`), atimeNs, mtimeNs);
    symlinkSync('nowhere', at(`time-link-${n}`));
    setTimes(at(`time-link-${n}`), atimeNs, mtimeNs);
  });
  mkdirSync(at('time-dir'));
  setTimes(at('time-dir'), atimeNs, 1_763_812_345_987_654_321n);
  check('at once');
  t.equal(lstatSync(at('time-0'), { bigint: true }).atimeNs, atimeNs, 'atime is not mtime');
  await volume.remount();
  check('after a remount');
});

await t.test('times move when they should, and only then', async (t) => {
  const path = at('moves');
  writeFileSync(path, 'x');
  const long = 1_000_000_000_000_000_000n;
  const since = (change: () => void): { m: boolean; c: boolean } => {
    setTimes(path, long, long);
    const before = statSync(path, { bigint: true });
    change();
    const after = statSync(path, { bigint: true });
    return { m: after.mtimeNs !== before.mtimeNs, c: after.ctimeNs !== before.ctimeNs };
  };
  t.strictSame(
    since(() => readFileSync(path)),
    { m: false, c: false },
    'read',
  );
  await sleep(20);
  t.strictSame(
    since(() => writeFileSync(path, 'yy')),
    { m: true, c: true },
    'write',
  );
  await sleep(20);
  const fd = openSync(path, 'r+');
  t.strictSame(
    since(() => writeSync(fd, 'z', 0)),
    { m: true, c: true },
    'write, still open',
  );
  closeSync(fd);
  await sleep(20);
  t.strictSame(
    since(() => truncateSync(path, 1)),
    { m: true, c: true },
    'truncate',
  );
  await sleep(20);
  t.strictSame(
    since(() => chmodSync(path, 0o600)),
    { m: false, c: true },
    'chmod',
  );
  await sleep(20);
  t.strictSame(
    since(() => linkSync(path, at('moves-2'))),
    { m: false, c: true },
    'link',
  );

  mkdirSync(at('moves-dir'));
  const inFolder = (change: () => void): boolean => {
    setTimes(at('moves-dir'), long, long);
    change();
    return statSync(at('moves-dir'), { bigint: true }).mtimeNs !== long;
  };
  t.ok(
    inFolder(() => writeFileSync(at('moves-dir/a'), '')),
    'create changes the folder',
  );
  t.ok(
    inFolder(() => renameSync(at('moves-dir/a'), at('moves-dir/b'))),
    'rename too',
  );
  t.ok(
    inFolder(() => unlinkSync(at('moves-dir/b'))),
    'unlink too',
  );
  const now = Date.now();
  utimesSync(path, now / 1000, now / 1000);
  t.ok(Math.abs(statSync(path).mtimeMs - now) < 2, 'utimes');
});

await t.test('sizes and link counts', async (t) => {
  writeFileSync(at('sized'), Buffer.alloc(10_000, 'x'));
  t.equal(statSync(at('sized')).size, 10_000);
  t.ok(statSync(at('sized')).blocks * 512 >= 10_000, 'blocks cover what is written');
  truncateSync(at('sized'), 2 ** 40);
  t.equal(statSync(at('sized')).size, 2 ** 40, 'a sparse TiB');
  t.ok(statSync(at('sized')).blocks * 512 < 1_000_000, 'takes no space');
  unlinkSync(at('sized'));
  mkdirSync(at('counted'));
  for (const name of ['a', 'b', 'c']) mkdirSync(at(`counted/${name}`));
  t.equal(statSync(at('counted')).nlink, 5, 'a folder counts its subfolders');
  t.equal(statSync(dir).ino, 1, 'the root is inode 1');
});

await t.test('xattrs', async (t) => {
  writeFileSync(at('x'), '');
  mkdirSync(at('xd'));
  for (const path of [at('x'), at('xd')]) {
    t.strictSame(listxattr(path), []);
    setxattr(path, 'user.text', Buffer.from('value'));
    setxattr(path, 'user.bytes', Buffer.from([0, 255, 10, 0]));
    setxattr(path, 'user.empty', Buffer.alloc(0));
    t.strictSame(listxattr(path).sort(), ['user.bytes', 'user.empty', 'user.text']);
    t.equal(getxattr(path, 'user.text').toString(), 'value');
    t.ok(getxattr(path, 'user.bytes').equals(Buffer.from([0, 255, 10, 0])));
    t.equal(getxattr(path, 'user.empty').length, 0);
    t.equal(getxattr(path, 'user.text', 0).length, 5, 'asking for the size only');
    t.throws(() => getxattr(path, 'user.text', 2), { code: 'ERANGE' });
    t.throws(() => getxattr(path, 'user.none'), { code: 'ENODATA' });
    t.throws(() => removexattr(path, 'user.none'), { code: 'ENODATA' });
    t.throws(() => setxattr(path, 'user.text', Buffer.from('y'), XATTR_CREATE), { code: 'EEXIST' });
    t.throws(() => setxattr(path, 'user.new', Buffer.from('y'), XATTR_REPLACE), { code: 'ENODATA' });
    setxattr(path, 'user.text', Buffer.from('other'), XATTR_REPLACE);
    t.equal(getxattr(path, 'user.text').toString(), 'other');
    setxattr(path, 'user.large', Buffer.alloc(60_000, 'v'));
    t.equal(getxattr(path, 'user.large').length, 60_000);
    removexattr(path, 'user.large');
    removexattr(path, 'user.empty');
  }
  t.throws(() => setxattr(at('x'), 'user.large', Buffer.alloc(70_000)), { code: 'E2BIG' });
  t.throws(() => setxattr(at('x'), `user.${'n'.repeat(255)}`, Buffer.alloc(1)), { code: 'ERANGE' });
  renameSync(at('x'), at('x2'));
  await volume.remount();
  t.strictSame(listxattr(at('x2')).sort(), ['user.bytes', 'user.text'], 'they move along and survive a remount');
  t.equal(getxattr(at('xd'), 'user.text').toString(), 'other');
  t.ok(getxattr(at('xd'), 'user.bytes').equals(Buffer.from([0, 255, 10, 0])));
});

await t.test('statfs tells the real space of the volume', async (t) => {
  // the bridge's figures are asked for as soon as it is connected
  await until('no more than the one host lends (20 GB)', () => {
    const { blocks, bsize } = statfsSync(dir);
    return blocks * bsize <= 20e9;
  });
  const before = statfsSync(dir);
  t.ok(before.blocks > 0 && before.bsize > 0);
  t.ok(before.bfree <= before.blocks && before.bavail <= before.bfree);
  writeFileSync(at('space'), Buffer.alloc(20_000_000, 'x'));
  await volume.client.flush();
  const used = (space: typeof before): number => (space.blocks - space.bfree) * space.bsize;
  t.ok(used(statfsSync(dir)) - used(before) >= 10_000_000, 'what is written is taken off');
});

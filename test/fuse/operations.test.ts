// Every opcode of the kernel driver, asked for by real system calls on a real mount.

import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { dropPages } from '../support/libc.ts';
import { until } from '../support/run.ts';
import type { ChildOptions } from './mount-child.ts';
import { isRoot, startMount } from './mounted.ts';
import {
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  getxattr,
  listxattr,
  mknod,
  removexattr,
  renameat2,
  truncate,
  fallocate,
  setxattr,
  utimens,
} from './syscalls.ts';

t.setTimeout(240_000);

const MIB = 1024 * 1024;
/** FOPEN_NOFLUSH is of Linux 5.16. */
const [major = 0, minor = 0] = release().split('.').map(Number);
const hasNoFlush = major > 5 || (major === 5 && minor >= 16);

function hash(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function calls(root: string): Record<string, number> {
  return JSON.parse(getxattr(root, 'user.calls').toString()) as Record<string, number>;
}

const VARIANTS: { name: string; options: Partial<ChildOptions> }[] = [
  { name: 'write-back cache', options: { writebackCache: true } },
  { name: 'write-through, late answers', options: { writebackCache: false, slow: true } },
  {
    name: 'direct I/O, late answers, no timeouts',
    options: {
      writebackCache: false,
      slow: true,
      directIo: true,
      entryTimeoutMs: 0,
      attributeTimeoutMs: 0,
      negativeTimeoutMs: 0,
    },
  },
];

for (const { name, options } of VARIANTS) {
  void t.test(name, async (t) => {
    const mounted = await startMount(options);
    t.teardown(() => mounted.stop());
    const root = mounted.directory;
    const at = (...parts: string[]): string => join(root, ...parts);

    void t.test('files are created with mode and umask, read, overwritten, appended and truncated', async (t) => {
      const umask = process.umask(0o027);
      fs.writeFileSync(at('file'), 'hello', { mode: 0o666 });
      fs.mkdirSync(at('directory'), 0o777);
      process.umask(umask);
      t.equal(fs.statSync(at('file')).mode, 0o100640);
      t.equal(fs.statSync(at('directory')).mode, 0o040750);
      t.equal(fs.statSync(at('file')).uid, process.getuid?.());
      t.equal(fs.readFileSync(at('file'), 'utf8'), 'hello');
      fs.appendFileSync(at('file'), ' world');
      t.equal(fs.readFileSync(at('file'), 'utf8'), 'hello world');
      const fd = fs.openSync(at('file'), 'r+');
      fs.writeSync(fd, 'J', 0);
      fs.ftruncateSync(fd, 5);
      fs.fsyncSync(fd);
      fs.fdatasyncSync(fd);
      fs.closeSync(fd);
      t.equal(fs.readFileSync(at('file'), 'utf8'), 'Jello');
      fs.truncateSync(at('file'), 10_000);
      t.equal(fs.statSync(at('file')).size, 10_000);
      t.ok(
        fs
          .readFileSync(at('file'))
          .subarray(5)
          .every((byte) => byte === 0),
      );
      fs.writeFileSync(at('file'), 'new');
      t.equal(fs.readFileSync(at('file'), 'utf8'), 'new', 'O_TRUNC');
      t.throws(() => fs.openSync(at('file'), 'wx'), { code: 'EEXIST' });
      t.throws(() => fs.readFileSync(at('missing')), { code: 'ENOENT' });
      t.throws(() => fs.readFileSync(at('file', 'below')), { code: 'ENOTDIR' });
      const { fsync = 0, fdatasync = 0, flush = 0 } = calls(root);
      t.ok(fsync >= 1 && fdatasync >= 1 && flush >= 1, 'fsync, fdatasync and close reach the filesystem');
      fs.readFileSync(at('file'));
      // with its write cache on, the kernel asks every time
      const isAsked = options.writebackCache === true || !hasNoFlush;
      if (!isAsked) t.equal(calls(root)['flush'], flush, 'but for close of what can only be read');
    });

    void t.test('a write-only descriptor can write parts of pages', async (t) => {
      fs.writeFileSync(at('partial'), Buffer.alloc(8192, 'a'));
      const fd = fs.openSync(at('partial'), fs.constants.O_WRONLY);
      fs.writeSync(fd, Buffer.from('bbb'), 0, 3, 5000);
      fs.closeSync(fd);
      const expected = Buffer.alloc(8192, 'a').fill('b', 5000, 5003);
      t.equal(hash(fs.readFileSync(at('partial'))), hash(expected));
    });

    void t.test('64 MiB come back as they were written', async (t) => {
      const data = randomBytes(64 * MIB);
      fs.writeFileSync(at('large'), data);
      t.equal(hash(fs.readFileSync(at('large'))), hash(data));
      const part = Buffer.alloc(3 * MIB);
      const fd = fs.openSync(at('large'), 'r');
      fs.fsyncSync(fd);
      // of this file only: other tests go by what is in the kernel's cache
      dropPages(fd);
      t.equal(hash(fs.readFileSync(at('large'))), hash(data), 'also when the kernel has dropped its pages');
      t.equal(fs.readSync(fd, part, 0, part.length, 62 * MIB + 1), 2 * MIB - 1, 'short only at the end');
      t.equal(hash(part.subarray(0, 2 * MIB - 1)), hash(data.subarray(62 * MIB + 1)));
      t.equal(fs.readSync(fd, part, 0, 10, 64 * MIB), 0, 'nothing behind the end');
      fs.closeSync(fd);
      fs.unlinkSync(at('large'));
    });

    void t.test('many writers and readers at once get their own bytes', async (t) => {
      const files = Array.from({ length: 40 }, (_item, index) => ({
        path: at(`parallel-${index}`),
        data: randomBytes(300_000),
      }));
      await Promise.all(files.map(({ path, data }) => fs.promises.writeFile(path, data)));
      const back = await Promise.all(files.map(({ path }) => fs.promises.readFile(path)));
      t.same(
        back.map(hash),
        files.map(({ data }) => hash(data)),
      );
      await Promise.all(files.map(({ path }) => fs.promises.unlink(path)));
    });

    void t.test('times keep their nanoseconds, also before 1970', async (t) => {
      fs.writeFileSync(at('times'), '');
      for (const [atime, mtime] of [
        [1_700_000_000_123_456_789n, 1_600_000_000_987_654_321n],
        [-1n, -1_000_000_001n],
        [0n, 4_000_000_000_000_000_001n],
      ] as const) {
        utimens(at('times'), atime, mtime);
        const stats = fs.statSync(at('times'), { bigint: true });
        t.same([stats.atimeNs, stats.mtimeNs], [atime, mtime]);
      }
      const before = BigInt(Date.now() - 1000) * 1_000_000n;
      fs.writeFileSync(at('times'), 'x');
      t.ok(fs.statSync(at('times'), { bigint: true }).mtimeNs > before, 'a write sets the time');
    });

    void t.test('mode and owner change', async (t) => {
      fs.writeFileSync(at('owned'), '');
      fs.chmodSync(at('owned'), 0o4711);
      t.equal(fs.statSync(at('owned')).mode, 0o104711);
      if (!isRoot) return;
      fs.chownSync(at('owned'), 1234, 5678);
      const { uid, gid } = fs.statSync(at('owned'));
      t.same([uid, gid], [1234, 5678]);
    });

    void t.test('names of any bytes, up to 255 of them', async (t) => {
      fs.mkdirSync(at('names'));
      const names = [
        Buffer.from('a'),
        Buffer.alloc(255, 'n'),
        Buffer.from('grüße/'.slice(0, -1)),
        Buffer.from('日本語'),
        Buffer.from([...Array(255).keys()].map((byte) => byte + 1).filter((byte) => byte !== 0x2f)),
      ];
      const path = (name: Buffer): Buffer => Buffer.concat([Buffer.from(`${at('names')}/`), name]);
      for (const name of names) fs.writeFileSync(path(name), name);
      for (const name of names) t.same(fs.readFileSync(path(name)), name);
      const listed = fs.readdirSync(at('names'), { encoding: 'buffer' });
      t.same(listed.map((name) => name.toString('hex')).sort(), names.map((name) => name.toString('hex')).sort());
      t.throws(() => fs.writeFileSync(path(Buffer.alloc(256, 'n')), ''), { code: 'ENAMETOOLONG' });
      for (const name of names) fs.unlinkSync(path(name));
      fs.rmdirSync(at('names'));
    });

    void t.test('a directory of 10,000 entries is listed whole, each once', async (t) => {
      fs.mkdirSync(at('many'));
      const names = Array.from({ length: 10_000 }, (_item, index) => `entry-${index}-${'x'.repeat(index % 60)}`);
      for (const name of names) fs.closeSync(fs.openSync(at('many', name), 'w'));
      t.same(fs.readdirSync(at('many')).sort(), names.toSorted());
      t.same(fs.readdirSync(at('many')).sort(), names.toSorted(), 'a second time');
      const types = fs.readdirSync(at('many'), { withFileTypes: true });
      t.ok(types.every((entry) => entry.isFile()));
      for (const name of names.slice(0, 5000)) fs.unlinkSync(at('many', name));
      fs.writeFileSync(at('many', 'late'), '');
      t.same(fs.readdirSync(at('many')).sort(), [...names.slice(5000), 'late'].toSorted(), 'after changes');
      fs.rmSync(at('many'), { recursive: true });
      t.notOk(fs.existsSync(at('many')));
      t.ok((calls(root)['readdirplus'] ?? 0) > 0);
    });

    void t.test('directories are made, refused, removed and synced', async (t) => {
      fs.mkdirSync(at('one'));
      fs.mkdirSync(at('one', 'two'));
      t.equal(fs.statSync(at('one')).nlink, 3);
      t.throws(() => fs.mkdirSync(at('one')), { code: 'EEXIST' });
      t.throws(() => fs.rmdirSync(at('one')), { code: 'ENOTEMPTY' });
      t.throws(() => fs.unlinkSync(at('one')), { code: isRoot ? 'EISDIR' : /EISDIR|EPERM/ });
      t.throws(() => fs.rmdirSync(at('missing')), { code: 'ENOENT' });
      const fd = fs.openSync(at('one'), fs.constants.O_DIRECTORY);
      fs.fsyncSync(fd);
      fs.closeSync(fd);
      t.ok((calls(root)['fsyncdir'] ?? 0) >= 1);
      fs.rmdirSync(at('one', 'two'));
      fs.rmdirSync(at('one'));
      t.throws(() => fs.statSync(at('one')), { code: 'ENOENT' });
    });

    void t.test('an unlinked file lives until it is closed', async (t) => {
      const fd = fs.openSync(at('orphan'), 'w+');
      fs.writeSync(fd, 'still here');
      fs.unlinkSync(at('orphan'));
      t.throws(() => fs.statSync(at('orphan')), { code: 'ENOENT' });
      fs.writeSync(fd, '!', 10);
      const text = Buffer.alloc(11);
      t.equal(fs.readSync(fd, text, 0, 11, 0), 11);
      t.equal(text.toString(), 'still here!');
      t.equal(fs.fstatSync(fd).nlink, 0);
      t.equal(fs.fstatSync(fd).size, 11);
      fs.closeSync(fd);
    });

    void t.test('rename moves, replaces, refuses and exchanges', async (t) => {
      fs.mkdirSync(at('from'));
      fs.mkdirSync(at('to'));
      fs.writeFileSync(at('from', 'a'), 'a');
      fs.writeFileSync(at('to', 'b'), 'b');
      fs.renameSync(at('from', 'a'), at('to', 'b'));
      t.equal(fs.readFileSync(at('to', 'b'), 'utf8'), 'a');
      t.notOk(fs.existsSync(at('from', 'a')));
      fs.writeFileSync(at('from', 'c'), 'c');
      t.throws(() => renameat2(at('from', 'c'), at('to', 'b'), RENAME_NOREPLACE), { code: 'EEXIST' });
      renameat2(at('from', 'c'), at('to', 'b'), RENAME_EXCHANGE);
      t.equal(fs.readFileSync(at('from', 'c'), 'utf8'), 'a');
      t.equal(fs.readFileSync(at('to', 'b'), 'utf8'), 'c');
      renameat2(at('from', 'c'), at('to', 'd'), RENAME_NOREPLACE);
      t.same(fs.readdirSync(at('to')).sort(), ['b', 'd']);
      t.throws(() => renameat2(at('to', 'd'), at('to', 'e'), 4), { code: 'EINVAL' });
      fs.renameSync(at('to'), at('moved'));
      t.same(fs.readdirSync(at('moved')).sort(), ['b', 'd']);
      t.throws(() => fs.renameSync(at('missing'), at('x')), { code: 'ENOENT' });
    });

    void t.test('links: hard, symbolic, long and with strange bytes', async (t) => {
      fs.writeFileSync(at('original'), 'content');
      fs.linkSync(at('original'), at('hard'));
      t.equal(fs.statSync(at('hard')).nlink, 2);
      t.equal(fs.statSync(at('hard')).ino, fs.statSync(at('original')).ino);
      fs.unlinkSync(at('original'));
      t.equal(fs.readFileSync(at('hard'), 'utf8'), 'content');
      fs.symlinkSync('hard', at('soft'));
      t.equal(fs.readlinkSync(at('soft')), 'hard');
      t.equal(fs.readFileSync(at('soft'), 'utf8'), 'content');
      t.ok(fs.lstatSync(at('soft')).isSymbolicLink());
      const strange = Buffer.concat([Buffer.from([0xff, 0xfe, 0x0a]), Buffer.alloc(4000, 'l')]);
      fs.symlinkSync(strange, at('strange'));
      t.same(fs.readlinkSync(at('strange'), { encoding: 'buffer' }), strange);
    });

    void t.test('mknod makes files, pipes and, as root, devices', async (t) => {
      mknod(at('plain'), 0o100600, 0);
      t.ok(fs.statSync(at('plain')).isFile());
      mknod(at('pipe'), 0o010600, 0);
      t.ok(fs.statSync(at('pipe')).isFIFO());
      if (!isRoot) return;
      mknod(at('device'), 0o020600, 0x0103);
      const stats = fs.statSync(at('device'));
      t.ok(stats.isCharacterDevice());
      t.equal(stats.rdev, 0x0103);
    });

    void t.test('extended attributes: set, sized, listed, refused, removed', async (t) => {
      fs.writeFileSync(at('attributed'), '');
      const path = at('attributed');
      const value = randomBytes(20_000);
      setxattr(path, 'user.big', value);
      setxattr(path, 'user.empty', Buffer.alloc(0));
      t.same(getxattr(path, 'user.big'), value);
      t.equal(getxattr(path, 'user.big', 0).length, 20_000, 'size 0 asks for the size');
      t.throws(() => getxattr(path, 'user.big', 19_999), { code: 'ERANGE' });
      t.equal(getxattr(path, 'user.empty').length, 0);
      t.same(listxattr(path).sort(), ['user.big', 'user.empty']);
      t.throws(() => listxattr(path, 3), { code: 'ERANGE' });
      t.throws(() => setxattr(path, 'user.big', value, 1), { code: 'EEXIST' });
      t.throws(() => setxattr(path, 'user.new', value, 2), { code: 'ENODATA' });
      removexattr(path, 'user.big');
      t.throws(() => getxattr(path, 'user.big'), { code: 'ENODATA' });
      t.throws(() => removexattr(path, 'user.big'), { code: 'ENODATA' });
    });

    void t.test('statfs shows the space of the filesystem', async (t) => {
      const space = fs.statfsSync(root);
      t.match(space, { bsize: 4096, blocks: 1_000_000, bfree: 750_000, bavail: 750_000, files: 1_000_000 });
    });

    void t.test('permissions are the kernel’s, errors of the filesystem come through', async (t) => {
      t.throws(() => fs.truncateSync(at('attributed'), 2 ** 31), { code: 'ENOSPC' });
      t.throws(() => truncate(at('attributed'), 2n ** 60n), { code: 'EFBIG' });
      if (isRoot) return;
      fs.writeFileSync(at('secret'), 'x', { mode: 0 });
      t.throws(() => fs.readFileSync(at('secret')), { code: 'EACCES' });
    });

    void t.test('what is not offered is refused as programs expect it', async (t) => {
      fs.writeFileSync(at('copied'), 'copy me');
      fs.copyFileSync(at('copied'), at('copy'));
      t.equal(fs.readFileSync(at('copy'), 'utf8'), 'copy me', 'copy_file_range falls back');
      const fd = fs.openSync(at('copied'), 'r+');
      t.throws(() => fallocate(fd, 0, 0, 100_000), { code: 'EOPNOTSUPP' });
      fs.closeSync(fd);
    });

    void t.test('every handle is released and nothing was logged', async (t) => {
      const handles = (): number =>
        (JSON.parse(getxattr(root, 'user.state').toString()) as { handles: number }).handles;
      await until('all handles to be released', () => handles() === 0);
      t.same(mounted.logs, []);
    });
  });
}

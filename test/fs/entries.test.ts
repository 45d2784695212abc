// Names and folders through a real mount: create, lookup, readdir, rename, link, symlink, unlink, rmdir.

import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  opendirSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { constants } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { limit } from '../support/driver.ts';
import { RENAME_EXCHANGE, RENAME_NOREPLACE, mknod, rename2 } from '../support/libc.ts';
import { withMount } from '../support/mounted.ts';
import { Random } from '../support/random.ts';
import { makeOdd } from '../support/tree.ts';
import { differences, fingerprint } from '../support/fingerprint.ts';

t.setTimeout(280_000);

const volume = await withMount(t);
let folders = 0;

/** A new folder on the mount. */
function newFolder(): string {
  const path = join(volume.dir, `entries-${folders++}`);
  mkdirSync(path);
  return path;
}

await t.test('create, mkdir, mknod: modes, umask and what is in the way', async (t) => {
  const dir = newFolder();
  closeSync(openSync(join(dir, 'file'), 'wx', 0o640));
  t.equal(statSync(join(dir, 'file')).mode, 0o100640);
  t.equal(statSync(join(dir, 'file')).size, 0);
  t.throws(() => openSync(join(dir, 'file'), 'wx'), { code: 'EEXIST' });
  t.throws(() => openSync(join(dir, 'absent'), 'r'), { code: 'ENOENT' });
  t.throws(() => openSync(join(dir, 'file/below'), 'r'), { code: 'ENOTDIR' });
  t.throws(() => openSync(dir, 'w'), { code: 'EISDIR' });
  t.throws(() => openSync(join(dir, 'file'), constants.O_RDONLY | constants.O_DIRECTORY), { code: 'ENOTDIR' });

  const umask = process.umask(0o027);
  mkdirSync(join(dir, 'sub'), 0o777);
  writeFileSync(join(dir, 'masked'), '', { mode: 0o666 });
  mknod(join(dir, 'node'), 0o100666);
  process.umask(umask);
  t.equal(statSync(join(dir, 'sub')).mode, 0o040750);
  t.equal(statSync(join(dir, 'masked')).mode, 0o100640);
  t.equal(statSync(join(dir, 'node')).mode, 0o100640, 'mknod of a regular file');
  t.throws(() => mkdirSync(join(dir, 'sub')), { code: 'EEXIST' });
  t.throws(() => mkdirSync(join(dir, 'file')), { code: 'EEXIST' });
  t.throws(() => mkdirSync(join(dir, 'no/such')), { code: 'ENOENT' });
  t.equal(statSync(join(dir, 'file')).uid, process.getuid?.());
});

await t.test(
  'names: 255 bytes fit, 256 do not, and every byte is allowed',
  { skip: limit('UTF-8 names only') },
  async (t) => {
    const dir = newFolder();
    const long = 'n'.repeat(255);
    writeFileSync(join(dir, long), 'x');
    mkdirSync(join(dir, 'é'.repeat(127)));
    const tooLong = `${long}n`;
    for (const attempt of [
      () => writeFileSync(join(dir, tooLong), ''),
      () => mkdirSync(join(dir, tooLong)),
      () => statSync(join(dir, tooLong)),
      () => renameSync(join(dir, long), join(dir, tooLong)),
      () => symlinkSync('x', join(dir, tooLong)),
      () => linkSync(join(dir, long), join(dir, tooLong)),
      () => mkdirSync(join(dir, 'é'.repeat(128))),
    ]) {
      t.throws(attempt, { code: 'ENAMETOOLONG' });
    }
    const bytes = Buffer.concat([
      Buffer.from(`${dir}/`),
      Buffer.from([...Array(256).keys()].filter((b) => b !== 0 && b !== 47)),
    ]);
    writeFileSync(bytes, 'all bytes');
    t.equal(readFileSync(bytes, 'utf8'), 'all bytes');
    const composed = join(dir, 'caf\u00e9');
    writeFileSync(composed, 'composed');
    t.notOk(existsSync(join(dir, 'cafe\u0301')), 'names are bytes, not letters');
    t.equal(readdirSync(dir).length, 4);
    rmSync(dir, { recursive: true });
  },
);

await t.test(
  'an odd tree is the same after a copy and after a remount',
  { skip: limit('UTF-8 names only') },
  async (t) => {
    const { run } = volume.net;
    makeOdd(join(run.dir, 'odd'), new Random('odd'));
    await run.must('cp', ['-a', join(run.dir, 'odd'), join(volume.dir, 'odd')]);
    const wanted = await fingerprint(run, join(run.dir, 'odd'));
    t.strictSame(differences(wanted, await fingerprint(run, join(volume.dir, 'odd'))), []);
    await volume.remount();
    t.strictSame(differences(wanted, await fingerprint(run, join(volume.dir, 'odd'))), [], 'after a remount');
  },
);

await t.test('readdir: 10,000 entries, each once, also while they go', async (t) => {
  const dir = newFolder();
  const count = 10_000;
  for (let n = 0; n < count; n++) closeSync(openSync(join(dir, `entry-${n}`), 'w'));
  const names = readdirSync(dir);
  t.equal(names.length, count);
  t.equal(new Set(names).size, count);
  const typed = readdirSync(dir, { withFileTypes: true });
  t.ok(typed.every((entry) => entry.isFile()));
  t.equal(statSync(dir).nlink, 2);

  // Whoever removes what it has just read must come to the end with an empty folder.
  const open = opendirSync(dir, { bufferSize: 100 });
  let removed = 0;
  for (let entry = open.readSync(); entry !== null; entry = open.readSync()) {
    unlinkSync(join(dir, entry.name));
    removed++;
  }
  open.closeSync();
  t.equal(removed, count);
  t.strictSame(readdirSync(dir), []);
  rmdirSync(dir);
});

await t.test('a folder that is removed while it is open is still there, and empty', (t) => {
  const dir = newFolder();
  mkdirSync(join(dir, 'd'));
  writeFileSync(join(dir, 'd/x'), '');
  t.strictSame(readdirSync(join(dir, 'd')), ['x']);
  const { ino } = statSync(join(dir, 'd'));
  const fd = openSync(join(dir, 'd'), constants.O_RDONLY | constants.O_DIRECTORY);
  rmSync(join(dir, 'd'), { recursive: true });
  for (let n = 0; n < 2; n++) {
    const stat = fstatSync(fd);
    t.equal(stat.ino, ino);
    t.equal(stat.nlink, 0);
    mkdirSync(join(dir, 'd'));
    t.strictSame(readdirSync(join(dir, 'd')), [], 'another one of that name');
    rmdirSync(join(dir, 'd'));
  }
  t.throws(() => writeFileSync(`/proc/self/fd/${fd}/y`, ''), { code: 'ENOENT' });
  closeSync(fd);
  t.strictSame(readdirSync(dir), []);
  t.end();
});

await t.test('rename: over files and folders, into itself, with flags', async (t) => {
  const dir = newFolder();
  const at = (name: string): string => join(dir, name);
  writeFileSync(at('a'), 'A');
  writeFileSync(at('b'), 'B');
  const { ino } = statSync(at('a'));
  renameSync(at('a'), at('b'));
  t.equal(readFileSync(at('b'), 'utf8'), 'A', 'over an existing file');
  t.equal(statSync(at('b')).ino, ino, 'it is the same file');
  t.notOk(existsSync(at('a')));

  mkdirSync(at('empty'));
  mkdirSync(at('full'));
  writeFileSync(at('full/x'), '');
  t.throws(() => renameSync(at('empty'), at('full')), { code: 'ENOTEMPTY' });
  t.throws(() => renameSync(at('b'), at('empty')), { code: 'EISDIR' });
  t.throws(() => renameSync(at('empty'), at('b')), { code: 'ENOTDIR' });
  t.throws(() => renameSync(at('full'), at('full/below')), { code: 'EINVAL' });
  t.throws(() => renameSync(at('none'), at('c')), { code: 'ENOENT' });
  renameSync(at('full'), at('empty'));
  t.strictSame(readdirSync(at('empty')), ['x'], 'a folder over an empty folder');

  mkdirSync(at('other'));
  const before = statSync(at('other')).nlink;
  renameSync(at('empty'), at('other/moved'));
  t.equal(statSync(at('other')).nlink, before + 1, 'link counts follow a moved folder');
  t.ok(statSync(at('other/moved/..')).ino === statSync(at('other')).ino, 'and so does its ..');

  linkSync(at('b'), at('same'));
  renameSync(at('b'), at('same'));
  t.ok(existsSync(at('b')) && existsSync(at('same')), 'two links of one file: nothing happens');

  if (limit('no rename flags') !== false) return;
  writeFileSync(at('p'), 'P');
  writeFileSync(at('q'), 'Q');
  t.throws(() => rename2(at('p'), at('q'), RENAME_NOREPLACE), { code: 'EEXIST' });
  rename2(at('p'), at('q'), RENAME_EXCHANGE);
  t.equal(readFileSync(at('p'), 'utf8') + readFileSync(at('q'), 'utf8'), 'QP', 'exchanged');
  rename2(at('p'), at('r'), RENAME_NOREPLACE);
  t.equal(readFileSync(at('r'), 'utf8'), 'Q');
});

await t.test('unlink while open: the file lives until the last close', async (t) => {
  const dir = newFolder();
  const path = join(dir, 'file');
  const fd = openSync(path, 'w+');
  writeSync(fd, 'before');
  unlinkSync(path);
  t.notOk(existsSync(path));
  t.strictSame(readdirSync(dir), [], 'no other name stands for it');
  t.equal(fstatSync(fd).nlink, 0);
  writeSync(fd, ' and after', 6);
  const data = Buffer.alloc(100);
  t.equal(data.toString('utf8', 0, readSync(fd, data, 0, 100, 0)), 'before and after');
  writeFileSync(path, 'another');
  t.equal(data.toString('utf8', 0, readSync(fd, data, 0, 6, 0)), 'before', 'a new file of that name is another');
  rmSync(path);
  closeSync(fd);

  writeFileSync(path, 'old');
  const open = openSync(path, 'r');
  writeFileSync(`${path}~`, 'new');
  renameSync(`${path}~`, path);
  t.equal(data.toString('utf8', 0, readSync(open, data, 0, 100, 0)), 'old', 'a replaced file is still read');
  closeSync(open);
  t.equal(readFileSync(path, 'utf8'), 'new');
});

await t.test('unlink, rmdir and what they refuse', async (t) => {
  const dir = newFolder();
  mkdirSync(join(dir, 'full'));
  writeFileSync(join(dir, 'full/x'), '');
  t.throws(() => rmdirSync(join(dir, 'full')), { code: 'ENOTEMPTY' });
  t.throws(() => rmdirSync(join(dir, 'full/x')), { code: 'ENOTDIR' });
  t.throws(() => unlinkSync(join(dir, 'full')), { code: /EISDIR|EPERM/ });
  t.throws(() => unlinkSync(join(dir, 'none')), { code: 'ENOENT' });
  t.throws(() => rmdirSync(join(dir, 'none')), { code: 'ENOENT' });
  unlinkSync(join(dir, 'full/x'));
  rmdirSync(join(dir, 'full'));
  t.strictSame(readdirSync(dir), []);
});

await t.test('hard links share one inode', async (t) => {
  const dir = newFolder();
  const [one, two] = [join(dir, 'one'), join(dir, 'two')];
  writeFileSync(one, 'text');
  linkSync(one, two);
  t.equal(statSync(one).ino, statSync(two).ino);
  t.equal(statSync(one).nlink, 2);
  writeFileSync(two, 'changed');
  t.equal(readFileSync(one, 'utf8'), 'changed');
  chmodSync(two, 0o600);
  t.equal(statSync(one).mode & 0o777, 0o600);
  t.throws(() => linkSync(one, two), { code: 'EEXIST' });
  t.throws(() => linkSync(dir, join(dir, 'three')), { code: 'EPERM' });
  unlinkSync(one);
  t.equal(statSync(two).nlink, 1);
  t.equal(readFileSync(two, 'utf8'), 'changed');
});

await t.test('symlinks keep their target byte for byte', async (t) => {
  const dir = newFolder();
  const targets = ['relative', '/absolute/path', '..', 'with space\nand line', 'x'.repeat(4000)];
  targets.forEach((target, n) => {
    const path = join(dir, `link-${n}`);
    symlinkSync(target, path);
    t.equal(readlinkSync(path), target);
    t.ok(lstatSync(path).isSymbolicLink());
    t.equal(lstatSync(path).size, Buffer.byteLength(target));
  });
  writeFileSync(join(dir, 'relative'), 'followed');
  t.equal(readFileSync(join(dir, 'link-0'), 'utf8'), 'followed');
  t.throws(() => symlinkSync('x', join(dir, 'link-0')), { code: 'EEXIST' });
  t.throws(() => readlinkSync(join(dir, 'relative')), { code: 'EINVAL' });
  symlinkSync('self', join(dir, 'self'));
  t.throws(() => statSync(join(dir, 'self')), { code: 'ELOOP' });
});

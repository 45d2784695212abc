// System calls through a real mount that the other files of this folder do not have: ranges, copies, files
// without names, mappings, locks, times, access lists, rights of other users.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { acl } from '../support/acl.ts';
import {
  FALLOC_COLLAPSE_RANGE,
  FALLOC_INSERT_RANGE,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  LOCK_UN,
  O_TMPFILE,
  SEEK_DATA,
  SEEK_HOLE,
  copyFileRange,
  fallocate,
  flock,
  getxattr,
  ioctl,
  linkOpen,
  listxattr,
  lockRange,
  lseek,
  map,
  mknod,
  setTimes,
  setTimesOr,
  setxattr,
  syncfs,
} from '../support/libc.ts';
import { Random } from '../support/random.ts';
import { ROOT, until } from '../support/run.ts';
import { limit } from '../support/driver.ts';
import { mountVolume } from '../support/volume-mount.ts';

t.setTimeout(280_000);

const MIB = 2 ** 20;
const LONG_AGO = 1_000_000_000_000_000_000n;
const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';
const isRoot = process.geteuid?.() === 0;
const needsRoot = limit('one user only') || (isRoot ? false : 'only root can be other users');

const volume = await mountVolume(t, { allowOther: isRoot });
const { dir } = volume;
if (isRoot) for (const path of [volume.run.dir, dir]) fs.chmodSync(path, 0o755);
const at = (...parts: string[]): string => join(dir, ...parts);

/** A new file, open for reading and writing. */
function fresh(name: string, content: string | Buffer = ''): number {
  const fd = fs.openSync(at(name), 'w+');
  fs.writeSync(fd, Buffer.from(content as string));
  return fd;
}

function read(fd: number, offset: number, length: number): Buffer {
  const room = Buffer.alloc(length);
  return room.subarray(0, fs.readSync(fd, room, 0, length, offset));
}

/** Does something as another user, who is in these groups. */
function as<T>(uid: number, groups: readonly number[], act: () => T): T {
  const before = process.getgroups?.() ?? [];
  process.setgroups?.([...groups]);
  process.setegid?.(groups[0] ?? uid);
  process.seteuid?.(uid);
  try {
    return act();
  } finally {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(before);
  }
}

await t.test(
  'fallocate: longer files, holes, zeros, and what is EOPNOTSUPP',
  { skip: limit('no fallocate') },
  async (t) => {
    const data = new Random('holes').bytes(3 * MIB);
    const fd = fresh('allocated', data);
    fallocate(fd, FALLOC_KEEP_SIZE, 0, 10 * MIB);
    t.equal(fs.fstatSync(fd).size, 3 * MIB);
    fallocate(fd, 0, 3 * MIB, MIB);
    t.equal(fs.fstatSync(fd).size, 4 * MIB);
    const blocks = fs.fstatSync(fd).blocks;
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, MIB, MIB);
    t.equal((blocks - fs.fstatSync(fd).blocks) * 512, MIB, 'a hole takes no room');
    t.ok(read(fd, MIB - 5, 10).equals(Buffer.concat([data.subarray(MIB - 5, MIB), Buffer.alloc(5)])));
    fallocate(fd, FALLOC_ZERO_RANGE, 4 * MIB, 100);
    t.equal(fs.fstatSync(fd).size, 4 * MIB + 100);
    for (const mode of [FALLOC_COLLAPSE_RANGE, FALLOC_INSERT_RANGE, FALLOC_PUNCH_HOLE]) {
      t.throws(() => fallocate(fd, mode, 0, 4_096), { code: /EOPNOTSUPP|ENOTSUP/ }, `mode ${mode}`);
    }
    t.throws(() => fallocate(fd, 0, 0, 0), { code: 'EINVAL' });
    t.throws(() => fallocate(fd, 0, -1, 10), { code: 'EINVAL' });
    t.throws(() => fallocate(fd, 0, 2 ** 44, 10), { code: 'EFBIG' });
    t.throws(() => fallocate(fd, 0, 0, 2 ** 43), { code: 'ENOSPC' });
    fs.closeSync(fd);
    const readOnly = fs.openSync(at('allocated'), 'r');
    t.throws(() => fallocate(readOnly, 0, 0, 10), { code: 'EBADF' });
    fs.closeSync(readOnly);
  },
);

await t.test('a file of 16 TiB, and no byte more', { skip: limit('no fallocate, no holes to be found') }, async (t) => {
  const fd = fresh('huge');
  fs.ftruncateSync(fd, 2 ** 44);
  fs.writeSync(fd, 'end', 2 ** 44 - 3);
  t.equal(read(fd, 2 ** 44 - 5, 100).toString('latin1'), '\0\0end');
  t.throws(() => fs.writeSync(fd, 'x', 2 ** 44), { code: 'EFBIG' });
  t.throws(() => fs.ftruncateSync(fd, 2 ** 44 + 1), { code: 'EFBIG' });
  t.equal(lseek(fd, 0, SEEK_DATA), 2 ** 44 - 3);
  t.ok(fs.fstatSync(fd).blocks <= 8, 'it takes next to nothing');
  fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 2 ** 44);
  t.equal(fs.fstatSync(fd).blocks, 0);
  fs.closeSync(fd);
  fs.unlinkSync(at('huge'));
});

await t.test('SEEK_HOLE and SEEK_DATA', { skip: limit('no holes to be found') }, async (t) => {
  const fd = fresh('sparse', Buffer.alloc(10_000, 'x'));
  fs.writeSync(fd, 'far', MIB);
  t.equal(lseek(fd, 0, SEEK_DATA), 0);
  t.equal(lseek(fd, 0, SEEK_HOLE), 10_000);
  t.equal(lseek(fd, 10_000, SEEK_DATA), MIB);
  t.equal(lseek(fd, MIB, SEEK_HOLE), MIB + 3, 'the end');
  t.throws(() => lseek(fd, MIB + 3, SEEK_DATA), { code: 'ENXIO' });
  t.throws(() => lseek(fd, MIB + 3, SEEK_HOLE), { code: 'ENXIO' });
  fs.closeSync(fd);
});

await t.test('copy_file_range shares what is stored', async (t) => {
  const data = new Random('shared').bytes(5 * MIB);
  const from = fresh('from', data);
  const to = fresh('to', 'to be replaced');
  t.equal(copyFileRange(from, 0, to, 0, 5 * MIB), 5 * MIB);
  t.ok(fs.readFileSync(at('to')).equals(data));
  t.equal(copyFileRange(from, 5 * MIB, to, 0, 100), 0, 'at the end of the source');
  t.equal(copyFileRange(from, 4 * MIB, from, 0, MIB), MIB, 'inside one file');
  t.ok(fs.readFileSync(at('to')).equals(data), 'the copy stays');
  t.throws(() => copyFileRange(from, 0, from, 10, 100), { code: 'EINVAL' }, 'overlapping');
  const appending = fs.openSync(at('to'), 'a');
  t.throws(() => copyFileRange(from, 0, appending, 0, 100), { code: 'EBADF' });
  const readOnly = fs.openSync(at('to'), 'r');
  t.throws(() => copyFileRange(from, 0, readOnly, 0, 100), { code: 'EBADF' });
  for (const fd of [from, to, appending, readOnly]) fs.closeSync(fd);
  fs.copyFileSync(at('to'), at('copy'));
  t.ok(fs.readFileSync(at('copy')).equals(data));
  t.throws(() => fs.copyFileSync(at('to'), at('clone'), fs.constants.COPYFILE_FICLONE_FORCE), {
    code: /EOPNOTSUPP|ENOTSUP|ENOTTY|EINVAL/,
  });
});

await t.test(
  'O_TMPFILE: a file without a name, until linkat gives it one',
  { skip: limit('no O_TMPFILE') },
  async (t) => {
    const before = fs.readdirSync(dir).length;
    const fd = fs.openSync(dir, O_TMPFILE | fs.constants.O_RDWR, 0o640);
    fs.writeSync(fd, 'content');
    t.match(fs.fstatSync(fd), { nlink: 0, size: 7 });
    t.equal(fs.readdirSync(dir).length, before);
    linkOpen(fd, at('now-named'));
    t.equal(fs.fstatSync(fd).nlink, 1);
    fs.closeSync(fd);
    t.equal(fs.readFileSync(at('now-named'), 'utf8'), 'content');
    t.equal(fs.statSync(at('now-named')).mode & 0o777, 0o640);
    const exclusive = fs.openSync(dir, O_TMPFILE | fs.constants.O_RDWR | fs.constants.O_EXCL, 0o600);
    t.throws(() => linkOpen(exclusive, at('never')), { code: 'ENOENT' });
    fs.closeSync(exclusive);
    t.throws(() => fs.openSync(at('now-named'), O_TMPFILE | fs.constants.O_RDWR), { code: 'ENOTDIR' });
  },
);

await t.test('mappings: shared ones write the file, private ones do not, and mtime moves', async (t) => {
  const fd = fresh('mapped', Buffer.alloc(10_000, 'a'));
  const [one, two] = [map(fd, 0, 10_000), map(fd, 4_096, 4_096)];
  one.bytes.write('HELLO', 5_000);
  t.equal(two.bytes.toString('latin1', 5_000 - 4_096, 5_005 - 4_096), 'HELLO', 'another mapping sees it at once');
  t.equal(read(fd, 4_998, 8).toString(), 'aaHELLOa', 'and so does read');
  fs.writeSync(fd, 'written', 100);
  t.equal(one.bytes.toString('latin1', 100, 107), 'written', 'and the other way round');
  setTimes(at('mapped'), LONG_AGO, LONG_AGO);
  one.bytes.write('again', 0);
  one.sync();
  await until('mtime to move', () => fs.fstatSync(fd, { bigint: true }).mtimeNs > LONG_AGO);
  const own = map(fd, 0, 4_096, true);
  own.bytes.fill('z');
  own.unmap();
  one.unmap();
  two.unmap();
  fs.closeSync(fd);
  await volume.remount();
  const content = fs.readFileSync(at('mapped'));
  t.equal(content.length, 10_000);
  t.equal(content.toString('latin1', 0, 5) + content.toString('latin1', 5_000, 5_005), 'againHELLO');
  t.notOk(content.includes('z'));
});

await t.test('a program on the mount runs, also while its name is replaced', async (t) => {
  const program = fs.realpathSync('/bin/sleep');
  fs.copyFileSync(program, at('program'));
  fs.chmodSync(at('program'), 0o755);
  const child = spawn(at('program'), ['30'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await until('the program to run', () => fs.readlinkSync(`/proc/${child.pid}/exe`).endsWith('/program'));
  t.throws(() => fs.openSync(at('program'), 'r+'), { code: 'ETXTBSY' });
  fs.copyFileSync(program, at('program~'));
  fs.renameSync(at('program~'), at('program'));
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
  child.kill('SIGTERM');
  t.equal(await ended, 'SIGTERM', 'it has not crashed');
});

await t.test('flock and fcntl locks hold between processes', async (t) => {
  const fd = fresh('locked', Buffer.alloc(100));
  flock(fd, LOCK_EX);
  lockRange(fd, 'write', 0, 10);
  const script = `
    import fs from 'node:fs';
    import { flock, lockRange } from ${JSON.stringify(join(ROOT, 'test/support/libc.ts'))};
    const fd = fs.openSync(process.argv[1], 'r+');
    const codeOf = (call) => { try { call(); return 'ok'; } catch (error) { return error.code; } };
    console.log([
      codeOf(() => flock(fd, ${LOCK_SH | LOCK_NB})),
      codeOf(() => lockRange(fd, 'read', 5, 1)),
      codeOf(() => lockRange(fd, 'write', 10, 5)),
    ].join(' '));`;
  const elsewhere = (): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script, at('locked')], { encoding: 'utf8' }).stdout;
  t.match(elsewhere().trim(), /^(EAGAIN|EWOULDBLOCK) (EAGAIN|EACCES|EWOULDBLOCK) ok$/);
  flock(fd, LOCK_UN);
  lockRange(fd, 'none', 0, 0);
  t.equal(elsewhere().trim(), 'ok ok ok');
  fs.closeSync(fd);
});

await t.test('pipes and sockets on the mount join processes', async (t) => {
  mknod(at('pipe'), 0o010600);
  const child = spawn('/bin/sh', ['-c', 'cat "$1" > "$1.out"', 'sh', at('pipe')], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  fs.writeFileSync(at('pipe'), 'through the pipe');
  t.equal(await ended, 0);
  t.equal(fs.readFileSync(at('pipe.out'), 'utf8'), 'through the pipe');
  const server = createServer((socket) => socket.end('through the socket'));
  await new Promise<void>((resolve) => server.listen(at('socket'), resolve));
  t.ok(fs.lstatSync(at('socket')).isSocket());
  const text = await new Promise<string>((resolve, reject) => {
    let received = '';
    const client = createConnection(at('socket'));
    client.on('data', (data) => (received += data.toString()));
    client.on('end', () => resolve(received)).on('error', reject);
  });
  t.equal(text, 'through the socket');
  await new Promise((resolve) => server.close(resolve));
});

await t.test('statx tells when a file was made, and that stays', { skip: limit('no birth times') }, async (t) => {
  const before = BigInt(Date.now()) * 1_000_000n;
  fs.closeSync(fresh('born'));
  const { birthtimeNs } = fs.statSync(at('born'), { bigint: true });
  t.ok(birthtimeNs >= before - 1_000_000_000n && birthtimeNs <= BigInt(Date.now() + 1_000) * 1_000_000n);
  await sleep(10);
  fs.writeFileSync(at('born'), 'changed');
  fs.renameSync(at('born'), at('born-2'));
  setTimes(at('born-2'), 5n, 5n);
  t.equal(fs.statSync(at('born-2'), { bigint: true }).birthtimeNs, birthtimeNs);
});

await t.test(
  'utimensat: now, omit, and both to the nanosecond',
  { skip: limit('times of milliseconds, both at once') },
  async (t) => {
    fs.closeSync(fresh('times'));
    const times = (): bigint[] => {
      const { atimeNs, mtimeNs } = fs.statSync(at('times'), { bigint: true });
      return [atimeNs, mtimeNs];
    };
    setTimesOr(at('times'), 123_456_789_987_654_321n, 42n);
    t.strictSame(times(), [123_456_789_987_654_321n, 42n]);
    setTimesOr(at('times'), 'omit', 43n);
    t.strictSame(times(), [123_456_789_987_654_321n, 43n]);
    setTimesOr(at('times'), 44n, 'omit');
    t.strictSame(times(), [44n, 43n]);
    const { ctimeNs } = fs.statSync(at('times'), { bigint: true });
    setTimesOr(at('times'), 'omit', 'omit');
    t.equal(fs.statSync(at('times'), { bigint: true }).ctimeNs, ctimeNs, 'nothing asked for, nothing moved');
    const before = BigInt(Date.now() - 1_000) * 1_000_000n;
    setTimesOr(at('times'), 'now', 'now');
    t.ok(times().every((time) => time > before));
  },
);

await t.test('atime moves with the first reading after a change, not with O_NOATIME', async (t) => {
  const atime = (): bigint => fs.statSync(at('read'), { bigint: true }).atimeNs;
  fs.closeSync(fresh('read', 'content'));
  setTimes(at('read'), LONG_AGO, LONG_AGO);
  fs.closeSync(fs.openSync(at('read'), fs.constants.O_RDONLY | 0o1000000));
  t.equal(atime(), LONG_AGO, 'O_NOATIME');
  fs.readFileSync(at('read'));
  await until('atime to move', () => atime() > LONG_AGO);
  const moved = atime();
  fs.readFileSync(at('read'));
  t.equal(atime(), moved, 'not by the second reading');
});

await t.test('paths of 4,095 bytes, and no longer; loops of links', async (t) => {
  const home = process.cwd();
  fs.mkdirSync(at('deep'));
  process.chdir(at('deep'));
  const part = 'p'.repeat(200);
  let depth = 0;
  for (let length = 2; length + 201 < 4_000; length += 201, depth++) {
    fs.mkdirSync(part);
    process.chdir(part);
  }
  process.chdir(at('deep'));
  const path = `${part}/`.repeat(depth);
  const longest = path + 'x'.repeat(Math.min(255, 4_095 - path.length));
  fs.writeFileSync(longest, 'deep');
  t.equal(fs.readFileSync(longest, 'utf8'), 'deep');
  t.throws(() => fs.readFileSync(`./${'/'.repeat(4_095 - path.length)}${path}`), { code: 'ENAMETOOLONG' });
  process.chdir(home);
  fs.rmSync(at('deep'), { recursive: true });
  fs.symlinkSync('loop-b', at('loop-a'));
  fs.symlinkSync('loop-a', at('loop-b'));
  t.throws(() => fs.openSync(at('loop-a'), 'r'), { code: 'ELOOP' });
  t.throws(() => fs.openSync(at('loop-a'), fs.constants.O_NOFOLLOW), { code: 'ELOOP' });
});

await t.test('what is refused is refused as anywhere: ENOTTY, EXDEV, EINVAL, ENODATA', async (t) => {
  const fd = fresh('plain', 'x');
  t.throws(() => ioctl(fd, 0x80086601), { code: 'ENOTTY' }, 'FS_IOC_GETFLAGS');
  t.throws(() => fs.linkSync(at('plain'), join(volume.run.dir, 'elsewhere')), { code: 'EXDEV' });
  t.throws(() => fs.renameSync(at('plain'), join(volume.run.dir, 'elsewhere')), { code: 'EXDEV' });
  t.throws(() => fs.readlinkSync(at('plain')), { code: 'EINVAL' });
  t.throws(() => getxattr(at('plain'), 'user.none'), { code: 'ENODATA' });
  t.throws(() => fs.rmdirSync(dir), { code: 'EBUSY' });
  syncfs(fd);
  fs.fdatasyncSync(fd);
  fs.closeSync(fd);
  const folder = fs.openSync(dir, 'r');
  fs.fsyncSync(folder);
  t.throws(() => read(folder, 0, 10), { code: 'EISDIR' });
  fs.closeSync(folder);
});

await t.test('du and df count what is stored', async (t) => {
  const fd = fresh('counted', new Random('du').bytes(3 * MIB));
  fs.writeSync(fd, 'far', 500 * MIB);
  fs.closeSync(fd);
  const used = Number((await volume.run.must('du', ['-k', at('counted')])).split('\t')[0]);
  t.ok(used >= 3 * 1024 && used < 3 * 1024 + 64, `${used} KiB`);
  t.match(await volume.run.must('df', ['-k', dir]), /xcore/);
});

await t.test('access lists admit and refuse other users', { skip: needsRoot }, async (t) => {
  fs.closeSync(fresh('guarded', 'secret'));
  fs.chmodSync(at('guarded'), 0o600);
  const open = (uid: number, flags: string): string => {
    try {
      as(uid, [uid], () => fs.closeSync(fs.openSync(at('guarded'), flags)));
      return 'ok';
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? '';
    }
  };
  t.equal(open(1201, 'r'), 'EACCES');
  setxattr(at('guarded'), ACCESS, acl('u::rw-', 'u:1201:r--', 'g::---', 'm::r--', 'o::---'));
  t.strictSame([open(1201, 'r'), open(1201, 'r+'), open(1202, 'r')], ['ok', 'EACCES', 'EACCES']);
  t.equal(fs.statSync(at('guarded')).mode & 0o777, 0o640);
  fs.chmodSync(at('guarded'), 0o600);
  t.equal(open(1201, 'r'), 'EACCES', 'chmod takes the mask away');
  t.throws(() => as(1201, [1201], () => setxattr(at('guarded'), ACCESS, acl('u::rwx', 'g::---', 'o::rwx'))), {
    code: 'EPERM',
  });
  fs.mkdirSync(at('handing'));
  setxattr(at('handing'), DEFAULT, acl('u::rwx', 'u:1201:rwx', 'g::r-x', 'm::rwx', 'o::---'));
  const umask = process.umask(0o077);
  fs.writeFileSync(at('handing/file'), '', { mode: 0o666 });
  fs.mkdirSync(at('handing/folder'), 0o777);
  process.umask(umask);
  t.equal(fs.statSync(at('handing/file')).mode & 0o777, 0o660, 'the umask does not count');
  t.strictSame(listxattr(at('handing/folder')).sort(), [ACCESS, DEFAULT]);
  await volume.remount();
  t.strictSame(listxattr(at('handing/folder')).sort(), [ACCESS, DEFAULT], 'and all that lasts');
});

await t.test('rights of other users: groups, sticky folders, setuid', { skip: needsRoot }, async (t) => {
  fs.mkdirSync(at('shared'));
  fs.chownSync(at('shared'), 0, 1500);
  fs.chmodSync(at('shared'), 0o3770);
  t.throws(() => as(1201, [1201], () => fs.readdirSync(at('shared'))), { code: 'EACCES' });
  as(1201, [1201, 1500], () => fs.writeFileSync(at('shared/own'), 'x'));
  t.match(fs.statSync(at('shared/own')), { uid: 1201, gid: 1500 }, 'a setgid folder hands its group on');
  t.throws(() => as(1202, [1202, 1500], () => fs.unlinkSync(at('shared/own'))), { code: 'EPERM' }, 'sticky');
  t.throws(() => as(1202, [1500], () => fs.renameSync(at('shared/own'), at('shared/b'))), { code: 'EPERM' });
  t.throws(() => as(1202, [1202], () => fs.chmodSync(at('shared/own'), 0o777)), { code: /EACCES|EPERM/ });
  t.throws(() => as(1201, [1201, 1500], () => fs.chownSync(at('shared/own'), 1202, 1500)), { code: 'EPERM' });
  as(1201, [1201, 1500], () => fs.chownSync(at('shared/own'), 1201, 1201));
  as(1201, [1201, 1500], () => fs.unlinkSync(at('shared/own')));

  fs.writeFileSync(at('suid'), 'x');
  const modeAfter = (act: (fd: number) => void): number => {
    fs.chmodSync(at('suid'), 0o6777);
    const fd = as(1201, [1201], () => fs.openSync(at('suid'), 'r+'));
    as(1201, [1201], () => act(fd));
    fs.closeSync(fd);
    return fs.statSync(at('suid')).mode & 0o7777;
  };
  t.equal(
    modeAfter((fd) => fs.writeSync(fd, 'y')),
    0o777,
    'write',
  );
  t.equal(
    modeAfter((fd) => fs.ftruncateSync(fd, 0)),
    0o777,
    'truncate',
  );
  t.equal(
    modeAfter((fd) => fallocate(fd, 0, 0, 10)),
    0o777,
    'fallocate',
  );
  t.equal(
    modeAfter(() => undefined),
    0o6777,
    'nothing',
  );
  mknod(at('device'), 0o020666, 0x0103);
  t.ok(fs.statSync(at('device')).isCharacterDevice());
  t.equal(fs.statSync(at('device')).rdev, 0x0103);
  t.throws(() => fs.openSync(at('device'), 'r'), { code: 'EACCES' }, 'the mount is nodev');
  t.throws(() => as(1201, [1201], () => mknod(at('shared/device'), 0o020666, 0x0103)), { code: /EACCES|EPERM/ });
});

await t.test('the index is whole at the end', async (t) => {
  t.strictSame(await volume.finish(), []);
});

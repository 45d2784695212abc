// The fuse-native driver: the suite of the kernel driver, each limit that is listed, and every way to end.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { MemoryFilesystem, MISCHIEF } from './memory-filesystem.ts';
import { isInMountTable, isRoot, startMount } from './mounted.ts';
import type { Mounted } from './mounted.ts';
import type { ChildOptions } from './mount-child.ts';
import { RENAME_EXCHANGE, fallocate, getxattr, listxattr, renameat2, setxattr, truncate, utimens } from './syscalls.ts';
import { answer } from '../../src/fuse/fuse-native/callbacks.ts';
import { loadPackage } from '../../src/fuse/fuse-native/package.ts';
import { EOVERFLOW, ErrnoError } from '../../src/fuse/fuse-native/protocol.ts';
import { PathFilesystem } from '../../src/fuse/fuse-native/path-filesystem.ts';
import { copyFileRange } from '../support/libc.ts';
import { ROOT, until } from '../support/run.ts';

t.setTimeout(240_000);

/** Why nothing here can run, or false. */
function missing(): string | false {
  try {
    loadPackage();
    return false;
  } catch (error) {
    return `fuse-native cannot be loaded: ${(error as Error).message}`;
  }
}
const skip = missing();
const MS = 1_000_000n;

const start = (options: Partial<ChildOptions> = {}): Promise<Mounted> =>
  startMount({ driver: 'fuse-native', writebackCache: false, ...options });

/** Id of the process that runs the package for a mount. */
function packageProcess(mounted: Mounted): number {
  const pid = mounted.child.pid ?? 0;
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
  const found = children.find((child) => fs.readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('fuse-native'));
  if (found === undefined) throw new Error('there is no process of the package');
  return found;
}

/** Reads a file in another process; its exit code. */
function cat(path: string): Promise<number | null> {
  const child = spawn('cat', [path], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  return new Promise((resolve) => child.once('exit', (code) => resolve(code)));
}

void t.test('the suite of the kernel driver passes, but for the listed limits', { skip }, async (t) => {
  const names =
    process.env['XCORE_TEST_LONG'] === '1'
      ? ['calls', 'fsx', 'twin', 'entries', 'attributes', 'data']
      : ['calls', 'fsx', 'twin'];
  for (const name of names) {
    const child = spawn(process.execPath, [join(ROOT, `test/fs/${name}.test.ts`)], {
      env: { ...process.env, XCORE_TEST_DRIVER: 'fuse-native' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => child.kill('SIGTERM'));
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const code = await new Promise((resolve) => child.once('close', resolve));
    t.equal(code, 0, name);
    if (code !== 0) t.comment(output);
  }
});

void t.test('one mount: what works, and what each limit looks like', { skip }, async (t) => {
  const mounted = await start();
  t.teardown(() => mounted.stop());
  const at = (...parts: string[]): string => join(mounted.directory, ...parts);
  fs.writeFileSync(at('file'), 'text');

  void t.test('times: mtime is not atime, both to the millisecond, none before 1970', async (t) => {
    utimens(at('file'), 1_700_000_000_123_456_789n, 1_600_000_000_987_654_321n);
    const stats = fs.statSync(at('file'), { bigint: true });
    t.equal(stats.mtimeNs, 1_600_000_000_987n * MS);
    t.equal(stats.atimeNs, 1_700_000_000_123n * MS);
    utimens(at('file'), 5_000n * MS, -5_000n * MS);
    t.equal(fs.statSync(at('file'), { bigint: true }).mtimeNs, 0n);
  });

  void t.test('setting one time alone does nothing', async (t) => {
    utimens(at('file'), 1_000n * MS, 2_000n * MS);
    t.equal(spawnSync('touch', ['-m', '-d', '2020-01-01', at('file')]).status, 0);
    t.equal(fs.statSync(at('file')).mtimeMs, 2_000);
  });

  void t.test('an open file that is unlinked or replaced lives on, and no .fuse_hidden is seen', async (t) => {
    fs.mkdirSync(at('folder'));
    const fd = fs.openSync(at('folder/open'), 'w+');
    fs.writeSync(fd, 'still here');
    fs.unlinkSync(at('folder/open'));
    t.same(fs.readdirSync(at('folder')), []);
    t.equal(fs.fstatSync(fd).size, 10);
    t.equal(fs.readFileSync(fd, 'utf8').length + fs.readSync(fd, Buffer.alloc(20), 0, 20, 0), 10);
    fs.closeSync(fd);
    const gone = fs.openSync(at('folder/gone'), 'w+');
    fs.unlinkSync(at('folder/gone'));
    fs.rmdirSync(at('folder'));
    t.throws(() => fs.writeSync(gone, 'x'), { code: 'ENOENT' }, 'until its folder goes too');
    fs.closeSync(gone);
  });

  void t.test('names and targets that are not UTF-8 are EILSEQ', async (t) => {
    const odd = Buffer.concat([Buffer.from(`${at('odd')}-`), Buffer.from([0xff])]);
    t.throws(() => fs.writeFileSync(odd, ''), { code: 'EILSEQ' });
    t.throws(() => fs.symlinkSync(Buffer.from([0xff]), at('link')), { code: 'EILSEQ' });
    fs.writeFileSync(at('日本語 é'), 'x');
    t.ok(fs.readdirSync(mounted.directory).includes('日本語 é'));
    fs.unlinkSync(at('日本語 é'));
  });

  void t.test('rename flags, fallocate and access lists are refused', async (t) => {
    fs.writeFileSync(at('other'), '');
    t.throws(() => renameat2(at('file'), at('other'), RENAME_EXCHANGE), { code: 'EINVAL' });
    t.throws(() => setxattr(at('file'), 'system.posix_acl_access', Buffer.alloc(4)), { code: 'EOPNOTSUPP' });
    const fd = fs.openSync(at('other'), 'r+');
    t.throws(() => fallocate(fd, 0, 0, 10), { code: 'EOPNOTSUPP' });
    fs.closeSync(fd);
  });

  void t.test('xattrs tell their sizes', async (t) => {
    setxattr(at('file'), 'user.name', Buffer.from('value'));
    setxattr(at('file'), 'user.empty', Buffer.alloc(0));
    t.equal(getxattr(at('file'), 'user.name').toString(), 'value');
    t.equal(getxattr(at('file'), 'user.empty').length, 0);
    t.throws(() => getxattr(at('file'), 'user.none'), { code: 'ENODATA' });
    t.same(listxattr(at('file')).sort(), ['user.empty', 'user.name']);
  });

  void t.test('every name of a file tells the same attributes at once', async (t) => {
    fs.linkSync(at('file'), at('second'));
    fs.chmodSync(at('second'), 0o600);
    t.equal(fs.statSync(at('file')).mode & 0o777, 0o600);
    t.equal(fs.statSync(at('file')).nlink, 2);
    truncate(at('second'), 3n);
    t.equal(fs.statSync(at('file')).size, 3);
    t.equal(fs.statSync(at('file')).ino, fs.statSync(at('second')).ino);
  });

  void t.test('inode numbers have 32 bits: those 2^32 apart look alike', async (t) => {
    fs.writeFileSync(at(MISCHIEF.distant), '');
    t.equal(fs.statSync(at(MISCHIEF.distant)).ino, fs.statSync(mounted.directory).ino);
    fs.unlinkSync(at(MISCHIEF.distant));
  });

  void t.test('df counts in larger blocks where there are more than 2^32', async (t) => {
    t.equal(fs.statfsSync(mounted.directory).bsize, 4096);
    fs.writeFileSync(at(MISCHIEF.vast), '');
    const { blocks, bavail, bsize } = fs.statfsSync(mounted.directory, { bigint: true });
    t.ok(bsize > 4096n && blocks < 2n ** 32n);
    t.equal(blocks * bsize, 2n ** 52n, 'the same bytes');
    t.equal(bavail * bsize, 2n ** 50n * 3n);
    fs.unlinkSync(at(MISCHIEF.vast));
  });

  void t.test('pages of one name are not refreshed by a write through another before the next open', async (t) => {
    fs.writeFileSync(at('name'), 'old text');
    fs.linkSync(at('name'), at('other name'));
    const room = Buffer.alloc(8);
    const fd = fs.openSync(at('name'), 'r');
    fs.readSync(fd, room, 0, 8, 0);
    const writing = fs.openSync(at('other name'), 'r+');
    fs.writeSync(writing, 'new text', 0);
    fs.closeSync(writing);
    fs.readSync(fd, room, 0, 8, 0);
    t.equal(room.toString(), 'old text');
    fs.closeSync(fd);
    t.equal(fs.readFileSync(at('name'), 'utf8'), 'new text');
  });

  void t.test('copy_file_range copies through the kernel', async (t) => {
    fs.writeFileSync(at('source'), Buffer.alloc(200_000, 'c'));
    const [from, to] = [fs.openSync(at('source'), 'r'), fs.openSync(at('copy'), 'w+')];
    for (let done = 0; done < 200_000;) done += copyFileRange(from, done, to, done, 200_000 - done);
    for (const fd of [from, to]) fs.closeSync(fd);
    t.ok(fs.readFileSync(at('copy')).equals(Buffer.alloc(200_000, 'c')));
  });

  void t.test('threads that come and go leave little behind', async (t) => {
    const residentKib = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${packageProcess(mounted)}/status`, 'utf8'))?.[1]);
    const burst = async (): Promise<unknown> =>
      Promise.all(Array.from({ length: 40 }, () => fs.promises.readFile(at('copy'))));
    await burst();
    const before = residentKib();
    for (let n = 0; n < 25; n++) await burst();
    const grownKib = residentKib() - before;
    t.ok(grownKib < 64 * 1024, `${grownKib} KiB more after 1,000 reads`);
  });

  void t.test('many requests at once are each answered once', async (t) => {
    const data = Buffer.alloc(300_000, 'd');
    const paths = Array.from({ length: 30 }, (_item, index) => at(`many-${index}`));
    await Promise.all(paths.map((path) => fs.promises.writeFile(path, data)));
    for (const back of await Promise.all(paths.map((path) => fs.promises.readFile(path)))) t.ok(back.equals(data));
  });

  void t.test('a handler that throws is EIO for that request only', async (t) => {
    t.throws(() => fs.statSync(at(MISCHIEF.throws)), { code: 'EIO' });
    t.throws(() => fs.statSync(at(MISCHIEF.rejects)), { code: 'EIO' });
    fs.writeFileSync(at(MISCHIEF.generous), 'x');
    t.throws(() => fs.readFileSync(at(MISCHIEF.generous)), { code: 'EIO' });
    t.equal(fs.readFileSync(at('file'), 'utf8'), 'tex');
  });
});

void t.test('a callback is answered once, whatever its work does', async (t) => {
  const answers: number[] = [];
  answer(
    (result) => answers.push(result),
    () => {
      throw new TypeError('on purpose');
    },
  );
  answer(
    (result) => answers.push(result),
    () => Promise.reject(new Error('on purpose')),
  );
  answer(
    (result) => answers.push(result),
    () => Promise.resolve([7]),
  );
  await delay(0);
  t.same(answers.sort(), [-5, -5, 7]);
});

void t.test('a rename over an open file takes its name away first', async (t) => {
  const memory = new MemoryFilesystem();
  const paths = new PathFilesystem(memory);
  await paths.release(await paths.create('/new', 0o100644));
  const open = await paths.create('/old', 0o100644);
  await paths.write(open, 0, Buffer.from('still here'));
  // what libfuse asks for, one after the other
  await paths.rename('/old', '/.fuse_hidden0000000100000001');
  await t.rejects(paths.getattr('/old'), { code: 'ENOENT' });
  await paths.rename('/new', '/old');
  t.equal((await paths.getattr('/old')).sizeBytes, 0);
  t.equal((await paths.read(open, 0, 20)).toString(), 'still here');
});

void t.test('a listing is taken whole, up to a million entries', async (t) => {
  let cookie = 0n;
  const endless = new Proxy(new MemoryFilesystem(), {
    get: (target, name) => {
      if (name === 'readdir') return () => Array.from({ length: 2_048 }, () => ({ ...entry, cookie: ++cookie }));
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? (member.bind(target) as unknown) : member;
    },
  });
  const entry = { name: 'n', ino: 2, type: 0o100000 };
  await t.rejects(new PathFilesystem(endless).readdir('/'), new ErrnoError(EOVERFLOW));
  t.ok(cookie > 1_000_000n);
});

void t.test(
  'a request without an answer is EIO at its deadline, and a late answer does no harm',
  { skip },
  async (t) => {
    const mounted = await start({ deadlineMs: 2_000 });
    t.teardown(() => mounted.stop());
    for (const name of [MISCHIEF.hangs, MISCHIEF.deaf]) {
      fs.writeFileSync(join(mounted.directory, name), 'x');
      t.equal(await cat(join(mounted.directory, name)), 1, name);
    }
    t.equal(fs.readdirSync(mounted.directory).length, 2, 'the mount lives on');
  },
);

void t.test('the package’s process is killed: the mount is taken away, and the next one works', { skip }, async (t) => {
  const mounted = await start();
  t.teardown(() => mounted.stop());
  fs.writeFileSync(join(mounted.directory, 'file'), 'x');
  process.kill(packageProcess(mounted), 'SIGKILL');
  await mounted.ended;
  t.notOk(isInMountTable(mounted.directory));
  const again = await start({ mountPoint: mounted.directory });
  fs.writeFileSync(join(mounted.directory, 'file'), 'y');
  t.equal(await again.ask({ type: 'unmount', lazy: false }), undefined);
  await again.ended;
  t.notOk(isInMountTable(mounted.directory));
});

void t.test(
  'the daemon is killed: the mount goes, waiting programs get an error, the next one works',
  { skip },
  async (t) => {
    const mounted = await start();
    t.teardown(() => mounted.stop());
    fs.writeFileSync(join(mounted.directory, MISCHIEF.deaf), 'x');
    const waiting = cat(join(mounted.directory, MISCHIEF.deaf));
    await delay(100);
    mounted.child.kill('SIGKILL');
    t.equal(await waiting, 1);
    await until('the mount to be gone', () => !isInMountTable(mounted.directory));
    const again = await start({ mountPoint: mounted.directory });
    await again.stop();
  },
);

void t.test('an unmount from outside ends the session; one in use is EBUSY', { skip }, async (t) => {
  const mounted = await start();
  t.teardown(() => mounted.stop());
  const fd = fs.openSync(join(mounted.directory, 'file'), 'w');
  t.equal(await mounted.ask({ type: 'unmount', lazy: false }), 'EBUSY');
  fs.closeSync(fd);
  const [command, ...args] = isRoot ? ['umount'] : ['fusermount3', '-u'];
  t.equal(spawnSync(command ?? '', [...args, mounted.directory]).status, 0);
  await mounted.ended;
});

void t.test('other users are not let in', { skip }, async (t) => {
  await t.rejects(start({ allowOther: true }), { code: 'USAGE' });
});

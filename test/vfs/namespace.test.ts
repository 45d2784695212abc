import t from 'tap';
import type { ErrorCode } from '../../src/lib/errors.ts';
import { attributesOf } from '../../src/vfs/attributes.ts';
import type { Attributes } from '../../src/vfs/filesystem.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CALLER, openVolume, readAll, temporaryFolder, writeFileAt } from '../support/volume.ts';
import type { OpenVolume, Scope, VolumeOptions } from '../support/volume.ts';

const DIR = 0o040000;
const FILE = 0o100000;
const NOREPLACE = 1;
const EXCHANGE = 2;

async function opened(t: Scope, options: VolumeOptions = {}, dir = temporaryFolder(t)): Promise<OpenVolume> {
  const volume = await openVolume(dir, options);
  t.teardown(() => volume.close().catch(() => undefined));
  return volume;
}

/** The code that a call fails with, or 'ok'. */
async function outcome(call: () => unknown): Promise<ErrorCode | 'ok'> {
  try {
    await call();
    return 'ok';
  } catch (error) {
    return (error as { code: ErrorCode }).code;
  }
}

async function attributes(volume: OpenVolume, parent: number, name: string): Promise<Attributes | null> {
  return volume.vfs.lookup(parent, name);
}

async function mkdir(volume: OpenVolume, parent: number, name: string, mode = 0o755): Promise<number> {
  return (await volume.vfs.mkdir(parent, name, mode, CALLER)).ino;
}

async function touch(volume: OpenVolume, parent: number, name: string, content = name): Promise<number> {
  return writeFileAt(volume.vfs, parent, name, Buffer.from(content));
}

t.test('a name is found, once it is made, by its parent and its bytes', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  t.equal(await vfs.lookup(1, 'a'), null);
  const made = await vfs.mknod(1, 'a', FILE | 0o640, 0, { uid: 7, gid: 8, pid: 1 });
  t.match(made, { mode: FILE | 0o640, uid: 7, gid: 8, nlink: 1, sizeBytes: 0, blocks: 0 });
  t.same(await vfs.lookup(1, 'a'), made);
  t.same(await vfs.getattr(made.ino), made);
  t.equal((await vfs.lookup(1, '.'))?.ino, 1);
  t.equal((await vfs.lookup(1, '..'))?.ino, 1);
  const dir = await mkdir(volume, 1, 'd');
  t.equal((await vfs.lookup(dir, '..'))?.ino, 1);
  t.equal(await outcome(() => vfs.lookup(made.ino, 'x')), 'ENOTDIR');
  t.equal(await outcome(() => vfs.lookup(999, 'x')), 'ENOENT');
  t.equal(await outcome(() => vfs.getattr(999)), 'ENOENT');
});

t.test('names have 1 to 255 bytes, any bytes', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const longest = 'n'.repeat(255);
  const tooLong = 'n'.repeat(256);
  const bytes = Buffer.from([0xff, 0xfe, 0x0a, 0x80, 0x01]).toString('latin1');
  const ino = await touch(volume, 1, longest);
  const odd = await touch(volume, 1, bytes);
  t.equal((await vfs.lookup(1, longest))?.ino, ino);
  t.equal((await vfs.lookup(1, bytes))?.ino, odd);
  const calls: (() => unknown)[] = [
    () => vfs.lookup(1, tooLong),
    () => vfs.create(1, tooLong, FILE | 0o600, 2, CALLER),
    () => vfs.mkdir(1, tooLong, 0o755, CALLER),
    () => vfs.symlink(1, tooLong, Buffer.from('x'), CALLER),
    () => vfs.link(ino, 1, tooLong),
    () => vfs.unlink(1, tooLong),
    () => vfs.rmdir(1, tooLong),
    () => vfs.rename(1, longest, 1, tooLong, 0),
    () => vfs.rename(1, tooLong, 1, 'x', 0),
  ];
  for (const call of calls) t.equal(await outcome(call), 'ENAMETOOLONG', call.toString());
  t.equal(await outcome(() => vfs.mkdir(1, '', 0o755, CALLER)), 'ENOENT');
});

t.test('what is there is not made again, what is missing not removed', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const file = await touch(volume, 1, 'f');
  const dir = await mkdir(volume, 1, 'd');
  await touch(volume, dir, 'inside');
  const cases: [string, () => unknown, ErrorCode | 'ok'][] = [
    ['create', () => vfs.create(1, 'f', FILE | 0o600, 2, CALLER), 'EEXIST'],
    ['mkdir over a file', () => vfs.mkdir(1, 'f', 0o755, CALLER), 'EEXIST'],
    ['mkdir over a directory', () => vfs.mkdir(1, 'd', 0o755, CALLER), 'EEXIST'],
    ['symlink', () => vfs.symlink(1, 'f', Buffer.from('x'), CALLER), 'EEXIST'],
    ['link', () => vfs.link(file, 1, 'd'), 'EEXIST'],
    ['link to a directory', () => vfs.link(dir, 1, 'd2'), 'EPERM'],
    ['link of nothing', () => vfs.link(999, 1, 'x'), 'ENOENT'],
    ['create below a file', () => vfs.create(file, 'x', FILE | 0o600, 2, CALLER), 'ENOTDIR'],
    ['create below nothing', () => vfs.create(999, 'x', FILE | 0o600, 2, CALLER), 'ENOENT'],
    ['unlink nothing', () => vfs.unlink(1, 'x'), 'ENOENT'],
    ['unlink a directory', () => vfs.unlink(1, 'd'), 'EISDIR'],
    ['unlink below a file', () => vfs.unlink(file, 'x'), 'ENOTDIR'],
    ['rmdir a file', () => vfs.rmdir(1, 'f'), 'ENOTDIR'],
    ['rmdir nothing', () => vfs.rmdir(1, 'x'), 'ENOENT'],
    ['rmdir a full directory', () => vfs.rmdir(1, 'd'), 'ENOTEMPTY'],
    ['readlink of a file', () => vfs.readlink(file), 'EINVAL'],
    ['a long target', () => vfs.symlink(1, 'l', Buffer.alloc(4_096, 'x'), CALLER), 'ENAMETOOLONG'],
    ['the longest target', () => vfs.symlink(1, 'l', Buffer.alloc(4_095, 'x'), CALLER), 'ok'],
  ];
  for (const [name, call, expected] of cases) t.equal(await outcome(call), expected, name);
  const link = await attributes(volume, 1, 'l');
  t.match(link, { mode: 0o120777, sizeBytes: 4_095 });
  t.equal((await vfs.readlink(link?.ino ?? 0)).length, 4_095);
});

t.test('link counts and entries follow every change', async (t) => {
  const volume = await opened(t);
  const { vfs, tree } = volume;
  const nlink = async (ino: number): Promise<number> => (await vfs.getattr(ino)).nlink;
  t.equal(await nlink(1), 2);
  const a = await mkdir(volume, 1, 'a');
  const b = await mkdir(volume, 1, 'b');
  t.same([await nlink(1), await nlink(a)], [4, 2]);
  const file = await touch(volume, a, 'f');
  await vfs.link(file, b, 'g');
  t.same([await nlink(file), tree.inode(a)?.entries, tree.inode(b)?.entries], [2, 1, 1]);
  await vfs.rename(a, 'f', b, 'h', 0);
  t.same([await nlink(file), tree.inode(a)?.entries, tree.inode(b)?.entries], [2, 0, 2]);
  await vfs.rename(b, 'g', b, 'h', 0);
  t.same([await nlink(file), tree.inode(b)?.entries], [2, 2], 'two names of one file: both stay');
  await vfs.unlink(b, 'g');
  t.equal(await nlink(file), 1);
  const c = await mkdir(volume, a, 'c');
  t.equal(await nlink(a), 3);
  await vfs.rename(a, 'c', b, 'c', 0);
  t.same([await nlink(a), await nlink(b), (await attributes(volume, c, '..'))?.ino], [2, 3, b]);
  const d = await mkdir(volume, a, 'd');
  await vfs.rename(a, 'd', b, 'c', 0);
  t.same([await nlink(a), await nlink(b), tree.inode(a)?.entries], [2, 3, 0], 'over an empty directory');
  t.equal(await outcome(() => vfs.getattr(c)), 'ENOENT');
  await vfs.rename(b, 'c', a, 'x', 0);
  await vfs.rename(a, 'x', b, 'h', EXCHANGE);
  t.same([await nlink(a), await nlink(b)], [2, 3]);
  t.same([(await attributes(volume, a, 'x'))?.ino, (await attributes(volume, b, 'h'))?.ino], [file, d]);
  t.equal(tree.inode(d)?.parent, b);
  t.equal(tree.inode(file)?.parent, 0, 'a file has no parent');
  await vfs.rmdir(b, 'h');
  t.equal(await nlink(b), 2);
  t.equal(await nlink(1), 4);
});

t.test('rename over all kinds', async (t) => {
  const kinds = ['file', 'empty', 'full', 'none'] as const;
  type Kind = (typeof kinds)[number];
  const expected = (from: Kind, to: Kind, flags: number): ErrorCode | 'ok' => {
    if (from === 'none') return 'ENOENT';
    if (flags === NOREPLACE) return to === 'none' ? 'ok' : 'EEXIST';
    if (flags === EXCHANGE) return to === 'none' ? 'ENOENT' : 'ok';
    if (to === 'none') return 'ok';
    if (from === 'file') return to === 'file' ? 'ok' : 'EISDIR';
    if (to === 'file') return 'ENOTDIR';
    return to === 'full' ? 'ENOTEMPTY' : 'ok';
  };
  const volume = await opened(t);
  const make = async (parent: number, name: string, kind: Kind): Promise<number | undefined> => {
    if (kind === 'none') return undefined;
    if (kind === 'file') return touch(volume, parent, name);
    const ino = await mkdir(volume, parent, name);
    if (kind === 'full') await touch(volume, ino, 'inside');
    return ino;
  };
  let n = 0;
  for (const from of kinds) {
    for (const to of kinds) {
      for (const flags of [0, NOREPLACE, EXCHANGE]) {
        for (const apart of [false, true]) {
          const p = await mkdir(volume, 1, `p${n++}`);
          const q = apart ? await mkdir(volume, 1, `q${n}`) : p;
          const source = await make(p, 's', from);
          const target = await make(q, 't', to);
          const code = await outcome(() => volume.vfs.rename(p, 's', q, 't', flags));
          const what = `${from} over ${to}, flags ${flags}${apart ? ', apart' : ''}`;
          t.equal(code, expected(from, to, flags), what);
          const inos = [(await attributes(volume, p, 's'))?.ino, (await attributes(volume, q, 't'))?.ino];
          if (code !== 'ok') t.same(inos, [source, target], 'nothing changed');
          else t.same(inos, [flags === EXCHANGE ? target : undefined, source]);
        }
      }
    }
  }
  t.equal(await outcome(() => volume.vfs.rename(1, 'p0', 1, 'x', 4)), 'EINVAL', 'whiteouts are not known');
  t.equal(await outcome(() => volume.vfs.rename(1, 'p0', 1, 'x', NOREPLACE | EXCHANGE)), 'EINVAL');
});

t.test('a directory never becomes a part of itself', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const a = await mkdir(volume, 1, 'a');
  const b = await mkdir(volume, a, 'b');
  const c = await mkdir(volume, b, 'c');
  await touch(volume, 1, 'f');
  t.equal(await outcome(() => vfs.rename(1, 'a', a, 'x', 0)), 'EINVAL');
  t.equal(await outcome(() => vfs.rename(1, 'a', c, 'x', 0)), 'EINVAL');
  t.equal(await outcome(() => vfs.rename(1, 'a', c, 'x', NOREPLACE)), 'EINVAL');
  t.equal(await outcome(() => vfs.rename(b, 'c', 1, 'a', EXCHANGE)), 'EINVAL', 'nor by way of the other one');
  t.equal(await outcome(() => vfs.rename(1, 'a', b, 'c', EXCHANGE)), 'EINVAL');
  t.equal(await outcome(() => vfs.rename(1, 'f', c, 'f', 0)), 'ok');
  t.equal(await outcome(() => vfs.rename(1, 'a', 1, 'a', 0)), 'ok', 'onto itself');
  t.equal(await outcome(() => vfs.rename(a, 'b', 1, 'b', 0)), 'ok');
  t.equal(await outcome(() => vfs.rename(1, 'a', c, 'a', 0)), 'ok', 'no longer below');
});

t.test('a file whose names are gone lives until it is closed', async (t) => {
  const volume = await opened(t);
  const { vfs, tree } = volume;
  const ino = await touch(volume, 1, 'f', 'content');
  const first = await vfs.open(ino, 2);
  const second = await vfs.open(ino, 0);
  await vfs.unlink(1, 'f');
  t.equal((await vfs.getattr(ino)).nlink, 0);
  t.equal(await outcome(() => vfs.link(ino, 1, 'again')), 'ENOENT');
  await vfs.write(ino, first.handle, 7, Buffer.from(' more'), false);
  t.equal(Buffer.concat(await vfs.read(ino, second.handle, 0, 100)).toString(), 'content more');
  await tree.store.commit();
  t.same(await tree.orphans(), [ino]);
  const newer = await touch(volume, 1, 'f', 'other');
  t.not(newer, ino, 'numbers are not used again');
  await vfs.release(ino, first.handle);
  await vfs.release(ino, first.handle);
  t.equal((await vfs.getattr(ino)).sizeBytes, 12, 'one handle is left');
  await vfs.release(ino, second.handle);
  t.equal(await outcome(() => vfs.getattr(ino)), 'ENOENT');
  await tree.store.commit();
  t.same(await tree.orphans(), []);
  t.equal(tree.counters.storedBytes, 5);
  t.equal(vfs.openHandles, 0);

  const replaced = await vfs.open(newer, 0);
  await touch(volume, 1, 'g', 'g');
  await vfs.rename(1, 'g', 1, 'f', 0);
  t.equal(Buffer.concat(await vfs.read(newer, replaced.handle, 0, 9)).toString(), 'other');
  await vfs.release(newer, replaced.handle);
  t.equal(await outcome(() => vfs.getattr(newer)), 'ENOENT');
});

t.test('a removed directory that is open is empty and takes nothing', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const dir = await mkdir(volume, 1, 'd');
  const handle = await vfs.opendir(dir);
  await vfs.rmdir(1, 'd');
  t.same(await vfs.readdir(dir, handle, 0n, 10, false), []);
  t.equal(await outcome(() => vfs.create(dir, 'x', FILE | 0o600, 2, CALLER)), 'ENOENT');
  t.equal((await vfs.getattr(dir)).nlink, 0);
  await vfs.releasedir(dir, handle);
  t.equal(await outcome(() => vfs.getattr(dir)), 'ENOENT');
  t.equal(volume.tree.counters.inodes, 1);
});

t.test('a removed directory stays until the driver lets go of it, where no handles tell', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  vfs.holdRemovedDirectories();
  const dir = await mkdir(volume, 1, 'd');
  const other = await mkdir(volume, 1, 'other');
  vfs.forget([dir]);
  await vfs.rmdir(1, 'd');
  t.equal((await vfs.getattr(dir)).nlink, 0);
  t.same(await vfs.readdir(dir, 0, 0n, 10, false), []);
  t.equal(await outcome(() => vfs.create(dir, 'x', FILE | 0o600, 2, CALLER)), 'ENOENT');
  vfs.forget([999, other, dir, dir]);
  t.equal(await outcome(() => vfs.getattr(dir)), 'ENOENT');
  t.equal((await vfs.getattr(other)).nlink, 2, 'what has a name stays');
  const over = await mkdir(volume, 1, 'over');
  await vfs.rename(1, 'over', 1, 'other', 0);
  t.equal((await vfs.getattr(other)).nlink, 0, 'also where another one took its name');
  vfs.forget([other, over]);
  t.equal(await outcome(() => vfs.getattr(other)), 'ENOENT');
  t.equal(volume.tree.counters.inodes, 2);
});

t.test('a setgid directory hands its group on', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const dir = await mkdir(volume, 1, 'd');
  await vfs.setattr(dir, { mode: 0o2775, gid: 50 });
  t.match(await vfs.getattr(dir), { mode: DIR | 0o2775, gid: 50 });
  t.match(await vfs.mkdir(dir, 'sub', 0o755, CALLER), { mode: DIR | 0o2755, gid: 50, uid: 1000 });
  const { attributes: file } = await vfs.create(dir, 'f', FILE | 0o644, 2, CALLER);
  t.match(file, { mode: FILE | 0o644, gid: 50, uid: 1000 });
  t.match(await vfs.mkdir(1, 'plain', 0o755, CALLER), { mode: DIR | 0o755, gid: 1000 });
});

t.test('times move as POSIX says', async (t) => {
  const clock = new FakeClock(1_000_000_000_000);
  const volume = await opened(t, { clock });
  const { vfs } = volume;
  const dir = await mkdir(volume, 1, 'd');
  const file = await touch(volume, dir, 'f');
  type Times = { atimeNs: bigint; mtimeNs: bigint; ctimeNs: bigint };
  /** Which times of an inode a call moves, as a string of a, m and c. */
  const moved = async (ino: number, call: () => unknown): Promise<string> => {
    const before: Times = await vfs.getattr(ino);
    clock.advance(1_000);
    await call();
    const after: Times = await vfs.getattr(ino);
    return (['atimeNs', 'mtimeNs', 'ctimeNs'] as const)
      .filter((field) => after[field] !== before[field])
      .map((field) => field.charAt(0))
      .join('');
  };
  t.equal(await moved(dir, () => touch(volume, dir, 'new')), 'mc');
  t.equal(await moved(file, () => vfs.link(file, dir, 'l')), 'c');
  t.equal(await moved(dir, () => vfs.unlink(dir, 'new')), 'mc');
  t.equal(await moved(file, () => vfs.unlink(dir, 'l')), 'c');
  t.equal(await moved(file, () => vfs.rename(dir, 'f', 1, 'f', 0)), 'c');
  t.equal(await moved(dir, () => vfs.rename(1, 'f', dir, 'f', 0)), 'mc');
  t.equal(await moved(file, () => vfs.write(file, 0, 0, Buffer.from('x'), false)), 'mc');
  t.equal(await moved(file, () => vfs.write(file, 0, 0, Buffer.from('x'), true)), '', 'the kernel sets them later');
  t.equal(await moved(file, () => vfs.setattr(file, { sizeBytes: 0 })), 'mc');
  t.equal(await moved(file, () => vfs.setattr(file, { mode: 0o600 })), 'c');
  t.equal(await moved(file, () => vfs.setattr(file, { atimeNs: 'now' })), 'ac');
  t.equal(await moved(file, () => vfs.setxattr(file, 'user.a', Buffer.from('v'), 0)), 'c');
  t.equal(await moved(file, () => vfs.removexattr(file, 'user.a')), 'c');
  t.equal(await moved(file, () => readAll(vfs, file)), 'a', 'the first read after a change');
  t.equal(await moved(file, () => readAll(vfs, file)), '', 'not the second');
  clock.advance(24 * 3_600_000);
  t.equal(await moved(file, () => readAll(vfs, file)), 'a', 'once a day');
  await vfs.setattr(file, { mode: 0o600 });
  t.equal(await moved(file, async () => vfs.open(file, 0o1000000)), '', 'O_NOATIME');
  t.equal(
    await moved(dir, async () => vfs.releasedir(dir, await vfs.opendir(dir))),
    'a',
    'a listing counts as reading',
  );
  await vfs.setattr(dir, { mode: 0o700 });
  t.equal(await moved(dir, async () => vfs.readdir(dir, 0, 0n, 10, false)), 'a', 'also without a handle');
  const times = { atimeNs: 1n, mtimeNs: -1n, ctimeNs: 1_234_567_890_123_456_789n };
  t.match(await vfs.setattr(file, times), times, 'to the nanosecond');
  await vfs.setattr(file, { mtimeNs: 2n ** 70n, atimeNs: -(2n ** 70n) });
  await volume.store.commit();
  t.match(await vfs.getattr(file), { mtimeNs: 2n ** 63n - 1n, atimeNs: -(2n ** 63n) }, 'cut to what a record holds');
});

t.test('setuid and setgid go with a new owner and when the kernel says so', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const file = await touch(volume, 1, 'f');
  const modeAfter = async (mode: number, call: () => unknown): Promise<number> => {
    await vfs.setattr(file, { mode });
    await call();
    return (await vfs.getattr(file)).mode & 0o7777;
  };
  const write = (): unknown => vfs.write(file, 0, 0, Buffer.from('x'), false);
  t.equal(await modeAfter(0o6755, write), 0o6755, 'a write alone does not know who writes');
  const kill = (): unknown => vfs.setattr(file, { killPrivileges: true });
  t.equal(await modeAfter(0o6745, kill), 0o2745, 'setgid without group execution is no privilege');
  t.equal(await modeAfter(0o6755, () => vfs.setattr(file, { uid: 5 })), 0o755);
  t.equal(await modeAfter(0o6755, kill), 0o755);
  t.equal(await modeAfter(0o6755, () => vfs.setattr(file, { uid: 5, mode: 0o4711 })), 0o4711);
  t.equal(await modeAfter(0o7777, () => vfs.setattr(file, { mode: 0o170644 })), 0o644, 'the type stays');
});

t.test('extended attributes: flags, sizes, names', async (t) => {
  const volume = await opened(t);
  const { vfs } = volume;
  const file = await touch(volume, 1, 'f');
  const value = Buffer.from('value');
  t.same(await vfs.listxattr(file), []);
  await vfs.setxattr(file, 'user.a', value, 0);
  value.fill(0);
  t.equal((await vfs.getxattr(file, 'user.a')).toString(), 'value', 'the caller keeps its buffer');
  await vfs.setxattr(file, 'user.empty', Buffer.alloc(0), 1);
  t.equal((await vfs.getxattr(file, 'user.empty')).length, 0);
  const cases: [string, () => unknown, ErrorCode | 'ok'][] = [
    ['create what is there', () => vfs.setxattr(file, 'user.a', value, 1), 'EEXIST'],
    ['replace what is not there', () => vfs.setxattr(file, 'user.b', value, 2), 'ENODATA'],
    ['replace', () => vfs.setxattr(file, 'user.a', Buffer.alloc(65_536, 'x'), 2), 'ok'],
    ['too large', () => vfs.setxattr(file, 'user.b', Buffer.alloc(65_537), 0), 'E2BIG'],
    ['too much in all', () => vfs.setxattr(file, 'user.b', Buffer.alloc(65_536), 0), 'ENOSPC'],
    ['long name', () => vfs.setxattr(file, 'u'.repeat(256), value, 0), 'ERANGE'],
    ['no name', () => vfs.setxattr(file, '', value, 0), 'ERANGE'],
    ['longest name', () => vfs.setxattr(file, `user.${'u'.repeat(250)}`, value, 0), 'ok'],
    ['system', () => vfs.setxattr(file, 'system.other', value, 0), 'EOPNOTSUPP'],
    ['get none', () => vfs.getxattr(file, 'user.none'), 'ENODATA'],
    ['get system', () => vfs.getxattr(file, 'system.other'), 'EOPNOTSUPP'],
    ['remove none', () => vfs.removexattr(file, 'user.none'), 'ENODATA'],
    ['of nothing', () => vfs.getxattr(999, 'user.a'), 'ENOENT'],
    ['remove', () => vfs.removexattr(file, 'user.empty'), 'ok'],
  ];
  for (const [name, call, expected] of cases) t.equal(await outcome(call), expected, name);
  t.same(await vfs.listxattr(file), ['user.a', `user.${'u'.repeat(250)}`]);
  await volume.close();
  const again = await opened(t, {}, volume.dir);
  t.equal((await again.vfs.getxattr(file, 'user.a')).length, 65_536);
  t.equal((await again.vfs.listxattr(file)).length, 2);
  await again.vfs.unlink(1, 'f');
  t.same([...again.tree.xattrs(file)], []);
});

t.test('while another device writes, everything is readable and nothing changes', async (t) => {
  let writable = true;
  const volume = await opened(t, { writable: () => writable });
  const { vfs } = volume;
  const dir = await mkdir(volume, 1, 'd');
  const file = await touch(volume, 1, 'f', 'content');
  const unlinked = await touch(volume, 1, 'u', 'u');
  const open = await vfs.open(unlinked, 0);
  await vfs.unlink(1, 'u');
  await volume.store.commit();
  const before = attributesOf(volume.tree.inode(1) ?? ({} as never));
  writable = false;
  const value = Buffer.from('v');
  const calls: [string, () => unknown][] = [
    ['create', () => vfs.create(1, 'x', FILE | 0o600, 2, CALLER)],
    ['mknod', () => vfs.mknod(1, 'x', FILE | 0o600, 0, CALLER)],
    ['mkdir', () => vfs.mkdir(1, 'x', 0o755, CALLER)],
    ['symlink', () => vfs.symlink(1, 'x', value, CALLER)],
    ['link', () => vfs.link(file, 1, 'x')],
    ['unlink', () => vfs.unlink(1, 'f')],
    ['rmdir', () => vfs.rmdir(1, 'd')],
    ['rename', () => vfs.rename(1, 'f', 1, 'g', 0)],
    ['setattr', () => vfs.setattr(file, { mode: 0o600 })],
    ['truncate', () => vfs.setattr(file, { sizeBytes: 0 })],
    ['write', () => vfs.write(file, 0, 0, value, false)],
    ['open to write', () => vfs.open(file, 1)],
    ['open to read and write', () => vfs.open(file, 2)],
    ['open to truncate', () => vfs.open(file, 0o1000)],
    ['setxattr', () => vfs.setxattr(file, 'user.a', value, 0)],
    ['removexattr', () => vfs.removexattr(file, 'user.a')],
  ];
  for (const [name, call] of calls) t.equal(await outcome(call), 'EROFS', name);
  t.equal((await readAll(vfs, file)).toString(), 'content');
  const handle = await vfs.opendir(1);
  t.equal((await vfs.readdir(1, handle, 0n, 10, true)).length, 4);
  await vfs.releasedir(1, handle);
  t.same(await vfs.getattr(1), before);
  t.equal((await vfs.getattr(dir)).nlink, 2);
  await vfs.release(unlinked, open.handle);
  t.equal(volume.store.dirtyRecords, 0, 'not even an orphan is removed');
  t.match(await vfs.statfs(), { blockSizeBytes: 4_096, blocks: 2 ** 28, freeBlocks: 2 ** 27, nameMaxBytes: 255 });
});

// Access control lists and modes: what one makes of the other, and what folders hand down.

import t from 'tap';
import { CALLER, openVolume, temporaryFolder } from '../support/volume.ts';
import { acl } from '../support/acl.ts';

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';
const S_ISGID = 0o2000;

t.test('lists follow modes, modes follow lists', async (t) => {
  const volume = await openVolume(temporaryFolder(t));
  t.teardown(() => volume.close());
  const { vfs } = volume;
  const modeOf = async (ino: number): Promise<number> => (await vfs.getattr(ino)).mode & 0o7777;
  const create = async (parent: number, name: string, mode: number, umask?: number): Promise<number> =>
    (await vfs.mknod(parent, name, 0o100000 | mode, 0, { ...CALLER, umask })).ino;

  const file = await create(1, 'file', 0o666, 0o027);
  t.equal(await modeOf(file), 0o640, 'the umask counts where nothing is handed down');
  await vfs.setxattr(file, ACCESS, acl('u::rw-', 'u:1234:rwx', 'g::r-x', 'm::rwx', 'o::---'), 0);
  t.equal(await modeOf(file), 0o670, 'the mask stands for the group');
  await vfs.setattr(file, { mode: 0o604 });
  t.same(await vfs.getxattr(file, ACCESS), acl('u::rw-', 'u:1234:rwx', 'g::r-x', 'm::---', 'o::r--'), 'chmod');
  await vfs.setxattr(file, ACCESS, acl('u::rwx', 'g::r-x', 'o::--x'), 0);
  t.equal(await modeOf(file), 0o751);
  t.throws(() => vfs.getxattr(file, ACCESS), { code: 'ENODATA' }, 'a list that the mode says is not kept');
  t.strictSame(await vfs.listxattr(file), []);

  await vfs.setattr(file, { mode: 0o2755 });
  await vfs.setxattr(file, ACCESS, acl('u::rwx', 'g::r-x', 'o::--x'), 0, true);
  t.equal((await modeOf(file)) & S_ISGID, 0, 'setgid goes when the kernel says so');

  t.throws(() => vfs.setxattr(file, ACCESS, Buffer.from('rubbish'), 0), { code: 'EINVAL' });
  t.throws(() => vfs.setxattr(file, ACCESS, acl('u::rwx'), 0), { code: 'EINVAL' });
  t.throws(() => vfs.setxattr(file, DEFAULT, acl('u::rwx', 'g::r-x', 'o::--x'), 0), { code: 'EACCES' });
});

t.test('a default list is handed down in the place of the umask', async (t) => {
  const volume = await openVolume(temporaryFolder(t));
  t.teardown(() => volume.close());
  const { vfs } = volume;
  const caller = { ...CALLER, umask: 0o077 };
  const folder = (await vfs.mkdir(1, 'd', 0o755, CALLER)).ino;
  const list = acl('u::rwx', 'u:1234:rwx', 'g::r-x', 'm::rwx', 'o::r-x');
  await vfs.setxattr(folder, DEFAULT, list, 0);

  const file = await vfs.mknod(folder, 'f', 0o100664, 0, caller);
  t.equal(file.mode & 0o7777, 0o664);
  t.same(await vfs.getxattr(file.ino, ACCESS), acl('u::rw-', 'u:1234:rwx', 'g::r-x', 'm::rw-', 'o::r--'));
  t.strictSame(await vfs.listxattr(file.ino), [ACCESS]);
  const below = await vfs.mkdir(folder, 'e', 0o777, caller);
  t.equal(below.mode & 0o7777, 0o775);
  t.same(await vfs.getxattr(below.ino, DEFAULT), list);
  t.same(await vfs.getxattr(below.ino, ACCESS), list);
  const link = await vfs.symlink(folder, 'l', Buffer.from('x'), caller);
  t.strictSame(await vfs.listxattr(link.ino), []);
  const nameless = await vfs.tmpfile(folder, 0o666, 2, caller);
  t.equal(nameless.attributes.mode & 0o7777, 0o664);
  t.strictSame(await vfs.listxattr(nameless.attributes.ino), [ACCESS]);

  await vfs.setxattr(folder, DEFAULT, acl('u::rw-', 'g::r--', 'o::---'), 0);
  const plain = await vfs.mknod(folder, 'g', 0o100666, 0, caller);
  t.equal(plain.mode & 0o7777, 0o640, 'a list without names is but a mode');
  t.strictSame(await vfs.listxattr(plain.ino), []);
  await vfs.setxattr(folder, DEFAULT, acl(), 0);
  t.strictSame(await vfs.listxattr(folder), [], 'an empty list is none');
});

t.test('a file without a name goes with its handle, or gets one', async (t) => {
  const dir = temporaryFolder(t);
  let volume = await openVolume(dir);
  const { vfs } = volume;
  const make = async (flags: number): Promise<{ ino: number; handle: number }> => {
    const { attributes, file } = await vfs.tmpfile(1, 0o600, flags, CALLER);
    t.equal(attributes.nlink, 0);
    await vfs.write(attributes.ino, file.handle, 0, Buffer.from('content'), false);
    return { ino: attributes.ino, handle: file.handle };
  };
  const gone = await make(2);
  await vfs.release(gone.ino, gone.handle);
  t.throws(() => vfs.getattr(gone.ino), { code: 'ENOENT' });

  const named = await make(2);
  t.equal((await vfs.link(named.ino, 1, 'named')).nlink, 1);
  await vfs.release(named.ino, named.handle);
  t.equal((await vfs.lookup(1, 'named'))?.sizeBytes, 7);

  const exclusive = await make(2 | 0o200);
  t.throws(() => vfs.link(exclusive.ino, 1, 'never'), { code: 'ENOENT' });
  const unlinked = await vfs.open(named.ino, 0);
  await vfs.unlink(1, 'named');
  t.throws(() => vfs.link(named.ino, 1, 'never'), { code: 'ENOENT' }, 'what was unlinked has no way back');
  await vfs.release(named.ino, unlinked.handle);
  await vfs.fsync();
  t.strictSame(await volume.tree.orphans(), [exclusive.ino], 'a restart would remove it');
  await volume.close();
  volume = await openVolume(dir);
  t.teardown(() => volume.close());
  t.strictSame(await volume.tree.orphans(), [exclusive.ino]);
});

// The kernel driver for ordinary users: fusermount3 hands over the descriptor.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { isInMountTable, isRoot, newDirectory, startMount } from './mounted.ts';

t.setTimeout(240_000);

const NOBODY = 65534;
/** As root, the mount is made and used by somebody else. */
const asUser = isRoot ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--'] : [];

function run(...command: string[]): { status: number | null; output: string } {
  const [program = '', ...args] = [...asUser, ...command];
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

function ownDirectory(): string {
  const directory = newDirectory();
  if (isRoot) fs.chownSync(directory, NOBODY, NOBODY);
  return directory;
}

/** As root, that user must also be able to read this checkout and to enter the folder for temporary files. */
const isUsable =
  run('test', '-r', '/dev/fuse', '-a', '-w', '/dev/fuse').status === 0 &&
  run('test', '-r', fileURLToPath(import.meta.url), '-a', '-x', tmpdir()).status === 0 &&
  run('fusermount3', '--version').status === 0;

void t.test(
  'an ordinary user mounts, works and unmounts',
  { skip: !isUsable && 'an ordinary user cannot get at /dev/fuse, fusermount3 or this checkout' },
  async (t) => {
    const directory = ownDirectory();
    const mounted = await startMount({ mountPoint: directory, allowOther: false }, asUser);
    t.teardown(async () => {
      await mounted.stop();
      fs.rmSync(directory, { recursive: true, force: true });
    });
    // where the machine's mounts are shared with other namespaces, so is this one
    t.match(
      fs.readFileSync('/proc/self/mountinfo', 'utf8').replace(/(shared|master):\d+ /g, ''),
      ` ${directory} rw,nosuid,nodev,relatime - fuse.xcore xcore-test `,
    );
    const file = join(directory, 'file');
    t.same(run('sh', '-c', `umask 022; echo content > ${file}; cat ${file}; stat -c %U:%a ${file}`), {
      status: 0,
      output: `content\n${isRoot ? 'nobody' : spawnSync('id', ['-un'], { encoding: 'utf8' }).stdout.trim()}:644\n`,
    });
    t.equal(run('dd', 'if=/dev/zero', `of=${file}`, 'bs=1M', 'count=20').status, 0);
    t.match(run('stat', '-c', '%s', file).output, `${20 * 1024 * 1024}`);
    t.equal(run('chmod', '6755', file).status, 0);
    t.equal(run('sh', '-c', `echo x >> ${file}`).status, 0);
    t.match(run('stat', '-c', '%a', file).output, /^755/, 'a write drops setuid and setgid');
    t.equal(run('chmod', '6755', file).status, 0);
    t.equal(run('sh', '-c', `: > ${file}`).status, 0);
    t.match(run('stat', '-c', '%a', file).output, /^755/, 'so does truncation on open');
    // root sees nothing of it unless allow_other is given
    if (isRoot) t.throws(() => fs.readdirSync(directory), { code: 'EACCES' });
    const held = spawnSync(asUser[0] ?? 'sh', [
      ...asUser.slice(1),
      ...(isRoot ? ['sh'] : []),
      '-c',
      `exec 3<${file}; fusermount3 -u ${directory}`,
    ]);
    t.not(held.status, 0, 'busy');
    t.equal(await mounted.ask({ type: 'unmount', lazy: false }), undefined);
    await mounted.ended;
    t.notOk(isInMountTable(directory));
  },
);

void t.test(
  'an ordinary user detaches a dead mount by mounting again',
  { skip: !isUsable && 'an ordinary user cannot get at /dev/fuse, fusermount3 or this checkout' },
  async (t) => {
    const directory = ownDirectory();
    const first = await startMount({ mountPoint: directory }, asUser);
    t.teardown(() => first.stop());
    const killed = new Promise((resolve) => first.child.once('exit', resolve));
    first.child.kill('SIGKILL');
    await killed;
    t.ok(isInMountTable(directory));
    const second = await startMount({ mountPoint: directory }, asUser);
    t.teardown(async () => {
      await second.stop();
      fs.rmSync(directory, { recursive: true, force: true });
    });
    t.equal(run('touch', join(directory, 'alive')).status, 0);
  },
);

void t.test(
  'what an ordinary user cannot do is said',
  { skip: !isUsable && 'an ordinary user cannot get at /dev/fuse, fusermount3 or this checkout' },
  async (t) => {
    const directory = ownDirectory();
    t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
    const allowed =
      fs.existsSync('/etc/fuse.conf') && /^user_allow_other/m.test(fs.readFileSync('/etc/fuse.conf', 'utf8'));
    if (!allowed) {
      await t.rejects(startMount({ mountPoint: directory, allowOther: true }, asUser), {
        code: 'FUSE_MISSING',
        message: /user_allow_other.*fuse\.conf/,
      });
    }
    const empty = newDirectory();
    t.teardown(() => fs.rmSync(empty, { recursive: true, force: true }));
    if (isRoot) {
      fs.chmodSync(empty, 0o755);
      await t.rejects(startMount({ mountPoint: empty }, asUser), { code: 'EACCES', message: /directory of your own/ });
    }
  },
);

/** Runs the child in mounts of its own, with some path hidden. */
function hiding(command: string): string[] {
  return ['unshare', '--mount', 'sh', '-c', `${command} && exec "$@"`, 'sh'];
}

void t.test(
  'a machine without FUSE says what to do',
  { skip: !isRoot && 'needs a private view of the machine' },
  async (t) => {
    const directory = ownDirectory();
    t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
    const mountPoint = directory;
    const noHelper = hiding(
      'for helper in $(command -v fusermount3 fusermount); do mount --bind /dev/null "$helper"; done',
    );
    await t.rejects(startMount({ mountPoint }, [...noHelper, ...asUser]), {
      code: 'FUSE_MISSING',
      message: /apt install fuse3/,
    });
    const noDevice = hiding('mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3');
    await t.rejects(startMount({ mountPoint }, noDevice), { code: 'FUSE_MISSING', message: /modprobe fuse/ });
    await t.rejects(startMount({ mountPoint }, [...noDevice, ...asUser]), {
      code: 'FUSE_MISSING',
      message: /modprobe fuse/,
    });
    const closedDevice = hiding(
      'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 600 /dev/fuse c 10 229',
    );
    await t.rejects(startMount({ mountPoint }, [...closedDevice, ...asUser]), {
      code: 'FUSE_MISSING',
      message: /chmod 666/,
    });
    const noCapability = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin', '--'];
    await t.rejects(startMount({ mountPoint }, noCapability), { code: 'FUSE_MISSING', message: /CAP_SYS_ADMIN/ });
  },
);

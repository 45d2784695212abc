// Does the same random operations in a folder of a mount and in one on a local filesystem, and says
// where they part. One process of several.

import fs from 'node:fs';
import { join } from 'node:path';
import { acl } from '../support/acl.ts';
import {
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  copyFileRange,
  fallocate,
  getxattr,
  linkOpen,
  listxattr,
  mknod,
  O_TMPFILE,
  removexattr,
  rename2,
  setTimesOr,
  setxattr,
} from '../support/libc.ts';
import { Random } from '../support/random.ts';

/** What a worker is told, as JSON in its only argument. */
export interface TwinTask {
  /** Folder on the mount, and its twin. */
  readonly roots: readonly [string, string];
  readonly seed: string;
  readonly endMs: number;
  readonly maxSequences: number;
  /** Users that operations are done as, in turn; only root can be others. */
  readonly users: readonly number[];
  /** Without what native-notes/fuse-native.md lists: second names of a file, rename flags, ranges, single times, access lists, O_TMPFILE. */
  readonly isLimited: boolean;
}

/** What it prints in the end, as JSON. */
export interface TwinResult {
  readonly sequences: number;
  readonly operations: number;
  readonly differences: readonly string[];
}

const OPERATIONS = 20;
const NAMES = ['a', 'b', 'c', 'd'];
const XATTRS = ['user.one', 'user.two'];
const LISTS = [
  acl('u::rwx', 'g::r-x', 'o::--x'),
  acl('u::rw-', 'u:1201:rwx', 'g::r--', 'm::rw-', 'o::---'),
  acl('u::rwx', 'u:1202:r--', 'g::rwx', 'g:1201:-w-', 'm::r-x', 'o::r-x'),
];
/** Choices of steps, and of steps on an open file, that a limited driver does not offer. */
const LIMITED = new Set([13, 14, 15, 24, 28, 29]);
const LIMITED_ON_FILES = new Set([5, 7]);
const { O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } = fs.constants;

const task = JSON.parse(process.argv[2] ?? '') as TwinTask;
const random = new Random(task.seed);
const differences: string[] = [];
let operations = 0;

type Call = (root: string, side: 0 | 1) => unknown;

/** The result of a call as text: a value, or the name of an errno. */
function outcome(call: () => unknown): string {
  try {
    const value = call();
    return Buffer.isBuffer(value) ? value.toString('latin1') : (JSON.stringify(value) ?? 'done');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return code;
  }
}

function somePath(): string {
  const depth = random.pick([1, 1, 1, 2, 2, 3]);
  return Array.from({ length: depth }, () => random.pick(NAMES)).join('/');
}

function facts(stats: fs.Stats): unknown {
  const { mode, nlink, uid, gid, size } = stats;
  return { mode: mode.toString(8), nlink, uid, gid, size: stats.isDirectory() ? 0 : size, rdev: stats.rdev };
}

/** Everything below a folder: names, attributes, contents. */
function snapshot(root: string, path = '.'): unknown[] {
  const full = join(root, path);
  const stats = fs.lstatSync(full);
  const found: unknown[] = [path, facts(stats)];
  if (stats.isSymbolicLink()) found.push(fs.readlinkSync(full));
  if (stats.isFile()) found.push(fs.readFileSync(full).toString('latin1'));
  if (stats.isFile() || stats.isDirectory()) {
    found.push(
      listxattr(full)
        .sort()
        .map((name) => [name, getxattr(full, name).toString('hex')]),
    );
  }
  if (!stats.isDirectory()) return [found];
  const names = fs.readdirSync(full).sort();
  return [found, ...names.flatMap((name) => snapshot(root, join(path, name)))];
}

/** Lets its owner into every folder, so that all of it can be removed. */
function unlock(path: string): void {
  fs.chmodSync(path, 0o700);
  for (const entry of fs.readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) unlock(join(path, entry.name));
  }
}

class Sequence {
  readonly #roots: readonly [string, string];
  readonly #files: [number, number][] = [];
  readonly #trail: string[] = [];
  readonly #canXattrs: boolean;

  constructor(name: string) {
    this.#roots = [join(task.roots[0], name), join(task.roots[1], name)];
    for (const root of this.#roots) {
      fs.mkdirSync(root);
      fs.chmodSync(root, 0o777);
    }
    this.#canXattrs = outcome(() => setxattr(this.#roots[1], 'user.x', Buffer.from('x'))) === 'done';
    if (this.#canXattrs) setxattr(this.#roots[0], 'user.x', Buffer.from('x'));
  }

  run(): void {
    for (let n = 0; n < OPERATIONS && differences.length === 0; n++) {
      const user = random.pick(task.users);
      if (user !== 0) process.setegid?.(user);
      if (user !== 0) process.seteuid?.(user);
      try {
        this.#step(user);
      } finally {
        if (user !== 0) process.seteuid?.(0);
        if (user !== 0) process.setegid?.(0);
      }
      operations++;
    }
    if (differences.length === 0) this.#compare('at the end', (root) => snapshot(root));
    for (const pair of this.#files) for (const fd of pair) fs.closeSync(fd);
    for (const root of this.#roots) {
      unlock(root);
      fs.rmSync(root, { recursive: true, force: true });
    }
  }

  #compare(what: string, call: Call): string {
    const [ours, theirs] = this.#roots.map((root, side) => outcome(() => call(root, side as 0 | 1)));
    this.#trail.push(`${what} -> ${theirs?.slice(0, 300)}`);
    if (ours !== theirs) {
      differences.push(`${this.#trail.join('\n')}\nbut on the mount: ${ours?.slice(0, 3_000)}`);
    }
    return theirs ?? '';
  }

  #open(what: string, open: (root: string) => number): void {
    const pair: number[] = [];
    const result = this.#compare(what, (root) => {
      pair.push(open(root));
    });
    const [ours, theirs] = pair;
    if (result !== 'done' || ours === undefined || theirs === undefined) return;
    this.#files.push([ours, theirs]);
    if (this.#files.length > 6) for (const fd of this.#files.shift() ?? []) fs.closeSync(fd);
  }

  #step(user: number): void {
    const path = somePath();
    const other = somePath();
    const mode = random.pick([0o777, 0o644, 0o600, 0o4755, 0o2775, 0o1777, 0o400, 0o000, random.below(0o10000)]);
    const size = random.pick([0, 1, 100, 4_096, 5_000, random.below(40_000)]);
    const offset = random.pick([0, 10, 4_096, random.below(30_000)]);
    const data = random.bytes(1 + random.below(3_000));
    const pair = this.#files.length > 0 ? random.pick(this.#files) : null;
    const does = (what: string, call: Call): void => {
      this.#compare(`${user}: ${what}`, call);
    };
    const what = random.below(34);
    if (task.isLimited && LIMITED.has(what)) return;
    switch (what) {
      case 0:
      case 1:
      case 2:
        return does(`mkdir ${path} ${mode.toString(8)}`, (root) => fs.mkdirSync(join(root, path), mode));
      case 3:
        return does(`rmdir ${path}`, (root) => fs.rmdirSync(join(root, path)));
      case 4:
      case 5:
        return does(`unlink ${path}`, (root) => fs.unlinkSync(join(root, path)));
      case 6:
      case 7:
      case 8:
      case 9: {
        const flags =
          random.pick([O_RDONLY, O_WRONLY, O_RDWR, O_RDWR]) |
          random.pick([0, O_CREAT, O_CREAT, O_CREAT | O_EXCL]) |
          random.pick([0, 0, O_TRUNC, O_APPEND, O_NOFOLLOW, O_DIRECTORY]) |
          fs.constants.O_NONBLOCK;
        // which the kernel refuses or not depending on its version
        if ((flags & O_CREAT) !== 0 && (flags & O_DIRECTORY) !== 0) return;
        return this.#open(`${user}: open ${path} ${flags.toString(8)} ${mode.toString(8)}`, (root) =>
          fs.openSync(join(root, path), flags, mode),
        );
      }
      case 10:
      case 11:
      case 12:
        return does(`rename ${path} ${other}`, (root) => fs.renameSync(join(root, path), join(root, other)));
      case 13: {
        const flags = random.pick([1, 2, 3]);
        return does(`renameat2 ${path} ${other} ${flags}`, (root) =>
          rename2(join(root, path), join(root, other), flags),
        );
      }
      case 14:
      case 15:
        return does(`link ${path} ${other}`, (root) => fs.linkSync(join(root, path), join(root, other)));
      case 16: {
        const target = random.pick([...NAMES, '../a', '.', 'a/b', 'd/'.repeat(50)]);
        return does(`symlink ${target} ${path}`, (root) => fs.symlinkSync(target, join(root, path)));
      }
      case 17:
        return does(`chmod ${path} ${mode.toString(8)}`, (root) => fs.chmodSync(join(root, path), mode));
      case 18: {
        const [uid, gid] = [random.pick([...task.users]), random.pick([...task.users])];
        return does(`lchown ${path} ${uid} ${gid}`, (root) => fs.lchownSync(join(root, path), uid, gid));
      }
      case 19:
        return does(`truncate ${path} ${size}`, (root) => fs.truncateSync(join(root, path), size));
      case 20:
        return does(`mknod ${path}`, (root) => mknod(join(root, path), random0(path) | (mode & 0o777)));
      case 21:
        return does(`access ${path} ${mode & 7}`, (root) => fs.accessSync(join(root, path), mode & 7));
      case 22:
        return does(`lstat ${path}`, (root) => facts(fs.lstatSync(join(root, path))));
      case 23:
        return does(`readdir ${path}`, (root) => fs.readdirSync(join(root, path)).sort());
      case 24: {
        const times = random.pick(['now', 'omit', 1_000_000_001n] as const);
        return does(`utimensat ${path} ${times}`, (root) => {
          setTimesOr(join(root, path), times, 5n);
          return Number(fs.lstatSync(join(root, path), { bigint: true }).mtimeNs);
        });
      }
      case 25:
        if (!this.#canXattrs) return;
        return does(`setxattr ${path}`, (root) => setxattr(join(root, path), random1(path), data, mode % 3));
      case 26:
        if (!this.#canXattrs) return;
        return does(`getxattr ${path}`, (root) => getxattr(join(root, path), random1(path)));
      case 27:
        if (!this.#canXattrs) return;
        return does(`removexattr ${path}`, (root) => removexattr(join(root, path), random1(path)));
      case 28: {
        const [kind, list] = [random.pick(['access', 'default']), random.pick(LISTS)];
        return does(`setfacl ${kind} ${LISTS.indexOf(list)} ${path}`, (root) =>
          setxattr(join(root, path), `system.posix_acl_${kind}`, list),
        );
      }
      case 29:
        return this.#open(`${user}: tmpfile ${path}`, (root) =>
          fs.openSync(join(root, path), O_TMPFILE | O_RDWR, mode),
        );
      default:
        if (pair !== null) this.#onFile(pair, does, { path, size, offset, data });
    }
  }

  #onFile(
    pair: [number, number],
    does: (what: string, call: Call) => void,
    { path, size, offset, data }: { path: string; size: number; offset: number; data: Buffer },
  ): void {
    const at = `file ${this.#files.indexOf(pair)}`;
    const second = random.pick(this.#files);
    const what = random.below(9);
    if (task.isLimited && LIMITED_ON_FILES.has(what)) return;
    switch (what) {
      case 0:
      case 1:
        return does(`write ${at}`, (_root, side) => fs.writeSync(pair[side], data));
      case 2:
        return does(`pwrite ${at} ${offset}`, (_root, side) => fs.writeSync(pair[side], data, 0, data.length, offset));
      case 3:
        return does(`pread ${at} ${offset}`, (_root, side) => {
          const room = Buffer.alloc(5_000);
          return room.subarray(0, fs.readSync(pair[side], room, 0, room.length, offset));
        });
      case 4:
        return does(`ftruncate ${at} ${size}`, (_root, side) => fs.ftruncateSync(pair[side], size));
      case 5:
        return does(`fallocate ${at} ${offset} ${size}`, (_root, side) => {
          const mode = offset % 2 === 0 ? 0 : FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
          fallocate(pair[side], mode, offset, size);
        });
      case 6:
        return does(`copy_file_range ${at}`, (_root, side) =>
          copyFileRange(pair[side], offset, second[side], size, 5_000),
        );
      case 7:
        return does(`link ${at} ${path}`, (root, side) => linkOpen(pair[side], join(root, path)));
      default:
        return does(`fstat ${at}`, (_root, side) => facts(fs.fstatSync(pair[side])));
    }
  }
}

/** A type of node that depends on the path only. */
function random0(path: string): number {
  return [0o010000, 0o140000, 0o100000, 0o010000][path.length % 4] ?? 0;
}

function random1(path: string): string {
  return XATTRS[path.charCodeAt(0) % XATTRS.length] ?? '';
}

let sequences = 0;
process.umask(0o022);
// one at least, however late the worker comes to it
while (sequences < task.maxSequences && (sequences === 0 || Date.now() < task.endMs) && differences.length === 0) {
  new Sequence(`s${sequences}`).run();
  sequences++;
}
const result: TwinResult = { sequences, operations, differences };
process.stdout.write(JSON.stringify(result));

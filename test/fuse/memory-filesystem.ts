// A small filesystem in memory for the tests of the drivers: simple, whole, and able to misbehave on request.

import { XcoreError } from '../../src/lib/errors.ts';
import type {
  AttributeChanges,
  Attributes,
  Caller,
  DirectoryEntry,
  Filesystem,
  OpenFile,
  SpaceInfo,
} from '../../src/vfs/filesystem.ts';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const O_ACCMODE = 3;
const O_TRUNC = 0o1000;

interface Node {
  attributes: { -readonly [Key in keyof Attributes]: Attributes[Key] };
  data: Buffer;
  entries: Map<string, { ino: number; cookie: bigint }>;
  parent: number;
  nextCookie: bigint;
  xattrs: Map<string, Buffer>;
  opens: number;
}

/** Names that make the filesystem misbehave. */
export const MISCHIEF = {
  /** lookup throws a TypeError. */
  throws: 'throws',
  /** lookup rejects with a plain Error. */
  rejects: 'rejects',
  /** reading hangs until it is aborted. */
  hangs: 'hangs',
  /** reading hangs for ever, also when aborted. */
  deaf: 'deaf',
  /** writing waits until it is aborted. */
  full: 'full',
  /** reading gives more bytes than asked for. */
  generous: 'generous',
  /** making it gives an inode number that ends in the same 32 bits as that of the root. */
  distant: 'distant',
  /** while it is there the filesystem has 2^40 blocks. */
  vast: 'vast',
} as const;

function now(): bigint {
  return process.hrtime.bigint() + clockOffset;
}
const clockOffset = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();

export class MemoryFilesystem implements Filesystem {
  readonly #nodes = new Map<number, Node>();
  readonly #handles = new Map<number, number>();
  readonly #slow: boolean;
  #nextIno = 1;
  #nextHandle = 1;
  readonly directIo: boolean;
  /** What was called, for tests that look at it through the virtual file '.calls'. */
  readonly calls = new Map<string, number>();

  /** `slow`: every answer is a promise that is settled in a later turn of the event loop. */
  constructor(options: { slow?: boolean; directIo?: boolean } = {}) {
    this.#slow = options.slow === true;
    this.directIo = options.directIo === true;
    this.#add(S_IFDIR | 0o755, 0, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, pid: 0 }, 1);
  }

  /** This filesystem, answering late when it is slow. */
  asFilesystem(): Filesystem {
    if (!this.#slow) return this;
    return new Proxy<Filesystem>(this, {
      get: (target, property) => {
        const member: unknown = Reflect.get(target, property, target);
        if (typeof member !== 'function') return member;
        return (...args: unknown[]) => {
          // what is borrowed must be used before returning: so work now, answer later
          const result: unknown = member.apply(target, args);
          return new Promise((resolve) => setImmediate(() => resolve(result)));
        };
      },
    });
  }

  lookup(parent: number, name: string): Attributes | null | Promise<never> {
    if (name === MISCHIEF.throws) throw new TypeError('thrown on purpose');
    if (name === MISCHIEF.rejects) return Promise.reject(new Error('rejected on purpose'));
    if (Buffer.byteLength(name, 'latin1') > 255) throw new XcoreError('ENAMETOOLONG');
    const entry = this.#directory(parent).entries.get(name);
    return entry === undefined ? null : this.getattr(entry.ino);
  }

  getattr(ino: number): Attributes {
    return { ...this.#node(ino).attributes };
  }

  setattr(ino: number, changes: AttributeChanges): Attributes {
    const node = this.#node(ino);
    const { attributes } = node;
    if (changes.mode !== undefined) attributes.mode = (attributes.mode & S_IFMT) | (changes.mode & 0o7777);
    if (changes.uid !== undefined) attributes.uid = changes.uid;
    if (changes.gid !== undefined) attributes.gid = changes.gid;
    if (changes.killPrivileges) attributes.mode &= ~0o6000;
    if (changes.sizeBytes !== undefined) this.#resize(node, changes.sizeBytes);
    if (changes.atimeNs !== undefined) attributes.atimeNs = changes.atimeNs === 'now' ? now() : changes.atimeNs;
    if (changes.mtimeNs !== undefined) attributes.mtimeNs = changes.mtimeNs === 'now' ? now() : changes.mtimeNs;
    attributes.ctimeNs = changes.ctimeNs ?? now();
    return this.getattr(ino);
  }

  readlink(ino: number): Buffer {
    return this.#node(ino).data;
  }

  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Attributes {
    const node = this.#create(parent, name, mode, caller);
    node.attributes.rdev = rdev;
    return this.getattr(node.attributes.ino);
  }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Attributes {
    const node = this.#create(parent, name, S_IFDIR | (mode & 0o7777), caller);
    this.#directory(parent).attributes.nlink++;
    return this.getattr(node.attributes.ino);
  }

  symlink(parent: number, name: string, target: Buffer, caller: Caller): Attributes {
    const node = this.#create(parent, name, S_IFLNK | 0o777, caller);
    node.data = target;
    node.attributes.sizeBytes = target.length;
    return this.getattr(node.attributes.ino);
  }

  link(ino: number, parent: number, name: string): Attributes {
    this.#insert(parent, name, ino);
    const { attributes } = this.#node(ino);
    attributes.nlink++;
    attributes.ctimeNs = now();
    return this.getattr(ino);
  }

  unlink(parent: number, name: string): void {
    const directory = this.#directory(parent);
    const ino = this.#entry(directory, name);
    if (this.#isDirectory(ino)) throw new XcoreError('EISDIR');
    directory.entries.delete(name);
    this.#touch(directory);
    this.#drop(ino);
  }

  rmdir(parent: number, name: string): void {
    const directory = this.#directory(parent);
    const ino = this.#entry(directory, name);
    if (this.#directory(ino).entries.size > 0) throw new XcoreError('ENOTEMPTY');
    directory.entries.delete(name);
    directory.attributes.nlink--;
    this.#touch(directory);
    this.#nodes.delete(ino);
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number): void {
    if (flags > 2) throw new XcoreError('EINVAL');
    const from = this.#directory(parent);
    const to = this.#directory(newParent);
    const ino = this.#entry(from, name);
    const target = to.entries.get(newName)?.ino;
    if (flags === 2) {
      if (target === undefined) throw new XcoreError('ENOENT');
      from.entries.delete(name);
      to.entries.delete(newName);
      this.#insert(newParent, newName, ino);
      this.#insert(parent, name, target);
      return;
    }
    if (target !== undefined) {
      if (flags === 1) throw new XcoreError('EEXIST');
      if (target === ino) return;
      if (this.#isDirectory(target)) this.rmdir(newParent, newName);
      else this.unlink(newParent, newName);
    }
    from.entries.delete(name);
    this.#touch(from);
    this.#insert(newParent, newName, ino);
    if (this.#isDirectory(ino)) {
      from.attributes.nlink--;
      to.attributes.nlink++;
      this.#node(ino).parent = newParent;
    }
  }

  create(parent: number, name: string, mode: number, flags: number, caller: Caller) {
    const node = this.#create(parent, name, mode, caller);
    return { attributes: this.getattr(node.attributes.ino), file: this.open(node.attributes.ino, flags) };
  }

  open(ino: number, flags: number): OpenFile {
    const node = this.#node(ino);
    if (flags & O_TRUNC) this.#resize(node, 0);
    node.opens++;
    const handle = this.#nextHandle++;
    this.#handles.set(handle, ino);
    const mischief = [...this.#node(1).entries].some(([name, entry]) => entry.ino === ino && name in MISCHIEF);
    const readsOnly = (flags & O_ACCMODE) === 0;
    return { handle, directIo: mischief || this.directIo, keepCache: !mischief, accessed: false, readsOnly };
  }

  tmpfile(): never {
    throw new XcoreError('ENOSYS');
  }

  fallocate(): never {
    // EOPNOTSUPP makes posix_fallocate(3) and cp fall back; ENOSYS would reach programs
    throw new XcoreError('EOPNOTSUPP');
  }

  seek(): never {
    throw new XcoreError('ENOSYS');
  }

  copyRange(): never {
    throw new XcoreError('ENOSYS');
  }

  read(
    ino: number,
    handle: number,
    offset: number,
    sizeBytes: number,
    signal?: AbortSignal,
  ): Buffer[] | Promise<Buffer[]> {
    const node = this.#opened(ino, handle);
    const root = this.#node(1).entries;
    if (root.get(MISCHIEF.deaf)?.ino === ino) return new Promise(() => undefined);
    if (root.get(MISCHIEF.generous)?.ino === ino) return [Buffer.alloc(sizeBytes + 1)];
    if (root.get(MISCHIEF.hangs)?.ino === ino) {
      return new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
    }
    const end = Math.min(offset + sizeBytes, node.attributes.sizeBytes);
    const parts: Buffer[] = [];
    // several parts, as a filesystem of extents gives
    for (let at = offset; at < end; at += 256 * 1024)
      parts.push(node.data.subarray(at, Math.min(at + 256 * 1024, end)));
    return parts;
  }

  write(
    ino: number,
    handle: number,
    offset: number,
    data: Buffer,
    cached: boolean,
    signal?: AbortSignal,
  ): void | Promise<void> {
    if (this.#node(1).entries.get(MISCHIEF.full)?.ino === ino) {
      return new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
    }
    const node = this.#opened(ino, handle);
    if (offset + data.length > node.attributes.sizeBytes) this.#resize(node, offset + data.length);
    data.copy(node.data, offset);
    if (!cached) {
      node.attributes.mtimeNs = node.attributes.ctimeNs = now();
      node.attributes.mode &= ~0o6000;
    }
  }

  flush(ino: number, handle: number): void {
    this.#opened(ino, handle);
    this.#count('flush');
  }

  fsync(ino: number, handle: number, dataOnly: boolean): void {
    this.#opened(ino, handle);
    this.#count(dataOnly ? 'fdatasync' : 'fsync');
  }

  release(ino: number, handle: number): void {
    const node = this.#opened(ino, handle);
    this.#handles.delete(handle);
    node.opens--;
    this.#count('release');
    this.#forgetOrphan(node);
  }

  holdRemovedDirectories(): void {
    this.#count('hold');
  }

  forget(inos: readonly number[]): void {
    for (const _ of inos) this.#count('forget');
  }

  opendir(ino: number): number {
    this.#directory(ino);
    const handle = this.#nextHandle++;
    this.#handles.set(handle, ino);
    return handle;
  }

  readdir(ino: number, _handle: number, cookie: bigint, limit: number, plus: boolean): DirectoryEntry[] {
    const directory = this.#directory(ino);
    this.#count(plus ? 'readdirplus' : 'readdir');
    const result: DirectoryEntry[] = [];
    if (cookie < 1n) result.push({ name: '.', ino, type: S_IFDIR, cookie: 1n });
    if (cookie < 2n) result.push({ name: '..', ino: directory.parent, type: S_IFDIR, cookie: 2n });
    for (const [name, entry] of directory.entries) {
      if (result.length >= limit) break;
      if (entry.cookie <= cookie) continue;
      const { attributes } = this.#node(entry.ino);
      result.push({
        name,
        ino: entry.ino,
        type: attributes.mode & S_IFMT,
        cookie: entry.cookie,
        attributes: plus ? { ...attributes } : undefined,
      });
    }
    return result;
  }

  releasedir(ino: number, handle: number): void {
    if (this.#handles.get(handle) !== ino) throw new XcoreError('EBADF');
    this.#handles.delete(handle);
    this.#count('releasedir');
  }

  fsyncdir(): void {
    this.#count('fsyncdir');
  }

  statfs(): SpaceInfo {
    const blocks = this.#directory(1).entries.has(MISCHIEF.vast) ? 2 ** 40 : 1_000_000;
    return {
      blockSizeBytes: 4096,
      blocks,
      freeBlocks: (blocks / 4) * 3,
      files: 1_000_000,
      freeFiles: 1_000_000 - this.#nodes.size,
      nameMaxBytes: 255,
    };
  }

  getxattr(ino: number, name: string): Buffer {
    if (ino === 1 && name === 'user.calls') return Buffer.from(JSON.stringify(Object.fromEntries(this.calls)));
    if (ino === 1 && name === 'user.state') {
      return Buffer.from(JSON.stringify({ nodes: this.#nodes.size, handles: this.#handles.size }));
    }
    const value = this.#node(ino).xattrs.get(name);
    if (value === undefined) throw new XcoreError('ENODATA');
    return value;
  }

  setxattr(ino: number, name: string, value: Buffer, flags: number): void {
    const { xattrs } = this.#node(ino);
    if (flags === 1 && xattrs.has(name)) throw new XcoreError('EEXIST');
    if (flags === 2 && !xattrs.has(name)) throw new XcoreError('ENODATA');
    xattrs.set(name, value);
  }

  listxattr(ino: number): string[] {
    return [...this.#node(ino).xattrs.keys()];
  }

  removexattr(ino: number, name: string): void {
    if (!this.#node(ino).xattrs.delete(name)) throw new XcoreError('ENODATA');
  }

  /** Changes a file behind the kernel's back, as another device would. */
  replaceContent(name: string, content: Buffer): { ino: number } {
    const ino = this.#entry(this.#node(1), name);
    const node = this.#node(ino);
    this.#resize(node, content.length);
    content.copy(node.data);
    return { ino };
  }

  /** Adds an empty file behind the kernel's back. */
  addBehind(name: string): void {
    this.#create(1, name, 0o100644, { uid: 0, gid: 0, pid: 0 });
  }

  /** Removes a file behind the kernel's back. */
  removeBehind(name: string): void {
    this.unlink(1, name);
  }

  #count(call: string): void {
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
  }

  #add(mode: number, rdev: number, caller: Caller, parent: number, ino = this.#nextIno++): Node {
    const time = now();
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    const node: Node = {
      attributes: {
        ino,
        mode: mode & ~(caller.umask ?? 0),
        nlink: isDirectory ? 2 : 1,
        uid: caller.uid,
        gid: caller.gid,
        rdev,
        sizeBytes: 0,
        blocks: 0,
        atimeNs: time,
        mtimeNs: time,
        ctimeNs: time,
        btimeNs: time,
      },
      data: Buffer.alloc(0),
      entries: new Map(),
      parent,
      nextCookie: 3n,
      xattrs: new Map(),
      opens: 0,
    };
    this.#nodes.set(ino, node);
    return node;
  }

  #create(parent: number, name: string, mode: number, caller: Caller): Node {
    if (this.#directory(parent).entries.has(name)) throw new XcoreError('EEXIST');
    const ino = name === MISCHIEF.distant ? 1 + 2 ** 32 : this.#nextIno++;
    const node = this.#add(mode, 0, caller, parent, ino);
    this.#insert(parent, name, node.attributes.ino);
    return node;
  }

  #insert(parent: number, name: string, ino: number): void {
    const directory = this.#directory(parent);
    if (name.length > 255) throw new XcoreError('ENAMETOOLONG');
    if (directory.entries.has(name)) throw new XcoreError('EEXIST');
    directory.entries.set(name, { ino, cookie: directory.nextCookie++ });
    this.#touch(directory);
  }

  #touch(node: Node): void {
    node.attributes.mtimeNs = node.attributes.ctimeNs = now();
  }

  #node(ino: number): Node {
    const node = this.#nodes.get(ino);
    if (node === undefined) throw new XcoreError('ESTALE');
    return node;
  }

  #directory(ino: number): Node {
    if (!this.#isDirectory(ino)) throw new XcoreError('ENOTDIR');
    return this.#node(ino);
  }

  #isDirectory(ino: number): boolean {
    return (this.#node(ino).attributes.mode & S_IFMT) === S_IFDIR;
  }

  #entry(directory: Node, name: string): number {
    const entry = directory.entries.get(name);
    if (entry === undefined) throw new XcoreError('ENOENT');
    return entry.ino;
  }

  #opened(ino: number, handle: number): Node {
    if (this.#handles.get(handle) !== ino) throw new XcoreError('EBADF');
    return this.#node(ino);
  }

  #drop(ino: number): void {
    const node = this.#node(ino);
    node.attributes.nlink--;
    node.attributes.ctimeNs = now();
    this.#forgetOrphan(node);
  }

  #forgetOrphan(node: Node): void {
    if (node.attributes.nlink === 0 && node.opens === 0) this.#nodes.delete(node.attributes.ino);
  }

  #resize(node: Node, sizeBytes: number): void {
    if (sizeBytes > 1 << 30) throw new XcoreError('ENOSPC');
    const oldBytes = node.attributes.sizeBytes;
    if (sizeBytes > node.data.length) {
      const grown = Buffer.alloc(Math.max(sizeBytes, node.data.length * 2));
      node.data.copy(grown, 0, 0, oldBytes);
      node.data = grown;
    } else if (sizeBytes < oldBytes) {
      node.data.fill(0, sizeBytes, oldBytes);
    }
    node.attributes.sizeBytes = sizeBytes;
    node.attributes.blocks = Math.ceil(sizeBytes / 512);
    this.#touch(node);
  }
}

// A Filesystem as fuse-native asks for it: by path, without the caller, without flags.

import { isUtf8 } from 'node:buffer';
import { Handles } from './handles.ts';
import { PathFinder } from './paths.ts';
import { EILSEQ, EOVERFLOW, ErrnoError } from './protocol.ts';
import type { ListedEntry, PathCalls } from './protocol.ts';
import { XcoreError } from '../../lib/errors.ts';
import type { AttributeChanges, Attributes, Caller, Filesystem, SpaceInfo } from '../../vfs/filesystem.ts';

const O_RDWR = 2;
/** Entries asked for at once. */
const ENTRIES_AT_ONCE = 2048;
/** Entries of one folder that a listing holds: libfuse takes it whole. */
const MAX_LISTED = 1_048_576;
/** Lists that nobody would enforce, and names that only the kernel may set. */
const SYSTEM_XATTR = /^system\./;

/** Answers the calls of one mount. Everything belongs to the user whose process this is. */
export class PathFilesystem implements PathCalls {
  readonly #filesystem: Filesystem;
  readonly #paths: PathFinder;
  readonly #handles = new Handles();
  readonly #caller: Caller = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, pid: 0 };

  constructor(filesystem: Filesystem) {
    this.#filesystem = filesystem;
    this.#paths = new PathFinder(filesystem);
  }

  /** Runs the call of that name; its arguments are those of PathCalls. */
  async run(name: keyof PathCalls, args: unknown[]): Promise<unknown> {
    const call: unknown = Reflect.get(this, name);
    if (typeof call !== 'function') throw new XcoreError('ENOSYS');
    return await (Reflect.apply(call, this, args) as unknown);
  }

  /** Names have changed behind the mount's back. */
  forgetNames(): void {
    this.#paths.forget();
  }

  /** Releases what is open: nobody will. */
  async close(): Promise<void> {
    for (const { ino, handle } of this.#handles.values()) {
      await Promise.resolve(this.#filesystem.release(ino, handle)).catch(() => undefined);
    }
  }

  async getattr(path: string): Promise<Attributes> {
    return await this.#filesystem.getattr(await this.#paths.inode(path));
  }

  async setattr(path: string, changes: AttributeChanges): Promise<void> {
    await this.#filesystem.setattr(await this.#paths.inode(path), changes, this.#caller);
  }

  async readlink(path: string): Promise<Buffer> {
    const target = await this.#filesystem.readlink(await this.#paths.inode(path));
    if (!isUtf8(target)) throw new ErrnoError(EILSEQ);
    return target;
  }

  async readdir(path: string): Promise<ListedEntry[]> {
    const ino = await this.#paths.inode(path);
    const handle = await this.#filesystem.opendir(ino);
    try {
      const entries: ListedEntry[] = [];
      for (let cookie = 0n; ;) {
        const some = await this.#filesystem.readdir(ino, handle, cookie, ENTRIES_AT_ONCE, false);
        const last = some.at(-1);
        if (last === undefined) return entries;
        for (const { name, ino, type } of some) {
          if (isUtf8(Buffer.from(name, 'latin1'))) entries.push({ name, ino, type });
        }
        if (entries.length > MAX_LISTED) throw new ErrnoError(EOVERFLOW);
        cookie = last.cookie;
      }
    } finally {
      await this.#filesystem.releasedir(ino, handle);
    }
  }

  async statfs(): Promise<SpaceInfo> {
    return await this.#filesystem.statfs();
  }

  async mknod(path: string, mode: number, rdev: number): Promise<void> {
    const { parent, name } = await this.#paths.place(path);
    await this.#filesystem.mknod(parent, name, mode, rdev, this.#caller);
  }

  async mkdir(path: string, mode: number): Promise<void> {
    const { parent, name } = await this.#paths.place(path);
    await this.#filesystem.mkdir(parent, name, mode, this.#caller);
  }

  async symlink(target: string, path: string): Promise<void> {
    if (target.includes('�')) throw new ErrnoError(EILSEQ);
    const { parent, name } = await this.#paths.place(path);
    await this.#filesystem.symlink(parent, name, Buffer.from(target, 'utf8'), this.#caller);
  }

  async link(from: string, to: string): Promise<void> {
    const ino = await this.#paths.inode(from);
    const { parent, name } = await this.#paths.place(to);
    await this.#filesystem.link(ino, parent, name);
  }

  async unlink(path: string): Promise<void> {
    const hidden = this.#paths.hidden(path);
    if (hidden !== undefined) {
      this.#paths.unhide(hidden);
      return;
    }
    const { parent, name } = await this.#paths.place(path);
    await this.#changeNames(async () => await this.#filesystem.unlink(parent, name));
  }

  async rmdir(path: string): Promise<void> {
    const { parent, name } = await this.#paths.place(path);
    await this.#changeNames(async () => await this.#filesystem.rmdir(parent, name));
  }

  async rename(from: string, to: string): Promise<void> {
    const source = await this.#paths.place(from);
    if (this.#paths.isHidden(to)) {
      // how libfuse keeps an open file that is to go; ours live on without a name
      const ino = await this.#paths.inode(from);
      if (this.#handles.isOpen(ino)) {
        this.#paths.hide(to, ino);
        try {
          await this.#changeNames(async () => await this.#filesystem.unlink(source.parent, source.name));
        } catch (error) {
          this.#paths.unhide(ino);
          throw error;
        }
        return;
      }
    }
    const target = await this.#paths.place(to);
    await this.#changeNames(
      async () => await this.#filesystem.rename(source.parent, source.name, target.parent, target.name, 0),
    );
  }

  async create(path: string, mode: number): Promise<number> {
    this.#handles.requireRoom();
    const { parent, name } = await this.#paths.place(path);
    const { attributes, file } = await this.#filesystem.create(parent, name, mode, O_RDWR, this.#caller);
    return this.#handles.add({ ino: attributes.ino, handle: file.handle });
  }

  async open(path: string, flags: number): Promise<number> {
    this.#handles.requireRoom();
    const ino = await this.#paths.inode(path);
    const { handle } = await this.#filesystem.open(ino, flags);
    return this.#handles.add({ ino, handle });
  }

  async read(handle: number, offset: number, sizeBytes: number, signal?: AbortSignal): Promise<Buffer> {
    const opened = this.#handles.get(handle);
    const parts = this.#filesystem.read(opened.ino, opened.handle, offset, sizeBytes, signal);
    // what is there at once is only lent
    const data = Buffer.concat(parts instanceof Promise ? await parts : parts);
    if (data.length > sizeBytes) throw new RangeError(`read gave ${data.length} bytes of ${sizeBytes}`);
    return data;
  }

  async write(handle: number, offset: number, data: Buffer, signal?: AbortSignal): Promise<void> {
    const opened = this.#handles.get(handle);
    await this.#filesystem.write(opened.ino, opened.handle, offset, data, false, signal);
  }

  async flush(handle: number): Promise<void> {
    const opened = this.#handles.get(handle);
    await this.#filesystem.flush(opened.ino, opened.handle);
  }

  async fsync(handle: number, dataOnly: boolean): Promise<void> {
    const opened = this.#handles.get(handle);
    await this.#filesystem.fsync(opened.ino, opened.handle, dataOnly);
  }

  async release(handle: number): Promise<void> {
    const { ino, handle: own } = this.#handles.remove(handle);
    if (!this.#handles.isOpen(ino)) this.#paths.unhide(ino);
    await this.#filesystem.release(ino, own);
  }

  async fsyncdir(path: string, dataOnly: boolean): Promise<void> {
    await this.#filesystem.fsyncdir(await this.#paths.inode(path), dataOnly);
  }

  async getxattr(path: string, name: string): Promise<Buffer> {
    if (SYSTEM_XATTR.test(name)) throw new XcoreError('EOPNOTSUPP');
    return await this.#filesystem.getxattr(await this.#paths.inode(path), bytesOf(name));
  }

  async setxattr(path: string, name: string, value: Buffer, flags: number): Promise<void> {
    if (SYSTEM_XATTR.test(name)) throw new XcoreError('EOPNOTSUPP');
    await this.#filesystem.setxattr(await this.#paths.inode(path), bytesOf(name), value, flags);
  }

  async listxattr(path: string): Promise<string[]> {
    const names = await this.#filesystem.listxattr(await this.#paths.inode(path));
    return names.filter((name) => !SYSTEM_XATTR.test(name) && isUtf8(Buffer.from(name, 'latin1')));
  }

  async removexattr(path: string, name: string): Promise<void> {
    if (SYSTEM_XATTR.test(name)) throw new XcoreError('EOPNOTSUPP');
    await this.#filesystem.removexattr(await this.#paths.inode(path), bytesOf(name));
  }

  /** Paths looked up before and during the change are not remembered after it. */
  async #changeNames(change: () => Promise<void>): Promise<void> {
    this.#paths.forget();
    try {
      await change();
    } finally {
      this.#paths.forget();
    }
  }
}

function bytesOf(name: string): string {
  if (name.includes('�')) throw new ErrnoError(EILSEQ);
  return Buffer.from(name, 'utf8').toString('latin1');
}

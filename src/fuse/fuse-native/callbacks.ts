// fuse-native's callbacks, told on as PathCalls. Each is answered exactly once, and none throws.

import type { PackageOperations, Reply, XattrOperations } from './package.ts';
import type { PathCalls } from './protocol.ts';
import { errnoOf, XcoreError } from '../../lib/errors.ts';
import type { AttributeChanges, Attributes } from '../../vfs/filesystem.ts';

const UNCHANGED = 0xffff_ffff;
const TWO_32 = 2 ** 32;
/** From here on a time in milliseconds is one before 1970. */
const TWO_63 = 2 ** 63;
const NS_PER_MS = 1_000_000n;
const READDIR_STAT = { size: 0, nlink: 1, atime: 0, mtime: 0, ctime: 0 };

/** Asks the daemon; rejects with an error that errnoOf() knows. */
export type Ask = <Name extends keyof PathCalls>(
  name: Name,
  ...args: Parameters<PathCalls[Name]>
) => Promise<Awaited<ReturnType<PathCalls[Name]>>>;

/** Runs `work` and answers with what it gives: at once or later, whatever it throws, and once only. */
export function answer(reply: Reply, work: () => Promise<[number, ...unknown[]]>): void {
  let isAnswered = false;
  const once: Reply = (...values) => {
    if (isAnswered) return;
    isAnswered = true;
    reply(...values);
  };
  try {
    work().then(
      (values) => once(...values),
      (error: unknown) => once(-errnoOf(error)),
    );
  } catch (error) {
    once(-errnoOf(error));
  }
}

function statOf(attributes: Attributes): object {
  return {
    mode: attributes.mode,
    uid: attributes.uid,
    gid: attributes.gid,
    size: attributes.sizeBytes,
    nlink: attributes.nlink,
    ino: attributes.ino % TWO_32,
    rdev: attributes.rdev,
    blksize: 4096,
    blocks: attributes.blocks,
    atime: milliseconds(attributes.atimeNs),
    mtime: milliseconds(attributes.mtimeNs),
    ctime: milliseconds(attributes.ctimeNs),
  };
}

/** What stat shows: rounded down, and never before 1970. */
function milliseconds(timeNs: bigint): number {
  return timeNs < 0n ? 0 : Number(timeNs / NS_PER_MS);
}

function nanoseconds(timeMs: number): bigint {
  if (Number.isNaN(timeMs)) throw new XcoreError('EOPNOTSUPP');
  return timeMs >= TWO_63 ? 0n : BigInt(timeMs) * NS_PER_MS;
}

/** The operations to give to fuse-native. */
export function callbacksFor(ask: Ask): PackageOperations {
  /** One that answers with 0 when it is done. */
  const done = (reply: Reply, work: () => Promise<unknown>): void =>
    answer(reply, async () => {
      await work();
      return [0];
    });
  const set = (reply: Reply, path: string, changes: AttributeChanges): void =>
    done(reply, () => ask('setattr', path, changes));
  return {
    getattr: (path: string, reply: Reply) => answer(reply, async () => [0, statOf(await ask('getattr', path))]),
    statfs: (_path: string, reply: Reply) =>
      answer(reply, async () => {
        const space = await ask('statfs');
        let { blockSizeBytes, blocks, freeBlocks } = space;
        // counts have 32 bits
        for (; blocks >= TWO_32; blockSizeBytes *= 2) {
          blocks = Math.floor(blocks / 2);
          freeBlocks = Math.floor(freeBlocks / 2);
        }
        const [files, ffree] = [Math.min(space.files, TWO_32 - 1), Math.min(space.freeFiles, TWO_32 - 1)];
        const sizes = { bsize: blockSizeBytes, frsize: blockSizeBytes, blocks, bfree: freeBlocks, bavail: freeBlocks };
        return [0, { ...sizes, files, ffree, favail: ffree, namemax: space.nameMaxBytes }];
      }),
    readlink: (path: string, reply: Reply) =>
      answer(reply, async () => [0, Buffer.from(await ask('readlink', path)).toString('utf8')]),
    readdir: (path: string, reply: Reply) =>
      answer(reply, async () => {
        const entries = await ask('readdir', path);
        const names = entries.map(({ name }) => Buffer.from(name, 'latin1').toString('utf8'));
        return [0, names, entries.map(({ ino, type }) => ({ ...READDIR_STAT, mode: type, ino: ino % TWO_32 }))];
      }),
    truncate: (path: string, sizeBytes: number, reply: Reply) => set(reply, path, { sizeBytes }),
    chmod: (path: string, mode: number, reply: Reply) => set(reply, path, { mode: mode & 0o7777 }),
    chown: (path: string, uid: number, gid: number, reply: Reply) =>
      set(reply, path, { ...(uid === UNCHANGED ? {} : { uid }), ...(gid === UNCHANGED ? {} : { gid }) }),
    utimens: (path: string, atimeMs: number, mtimeMs: number, reply: Reply) =>
      answer(reply, async () => {
        const changes = { atimeNs: nanoseconds(atimeMs), mtimeNs: nanoseconds(mtimeMs) };
        await ask('setattr', path, changes);
        return [0];
      }),
    mknod: (path: string, mode: number, rdev: number, reply: Reply) =>
      done(reply, () => ask('mknod', path, mode, rdev)),
    mkdir: (path: string, mode: number, reply: Reply) => done(reply, () => ask('mkdir', path, mode)),
    symlink: (target: string, path: string, reply: Reply) => done(reply, () => ask('symlink', target, path)),
    link: (from: string, to: string, reply: Reply) => done(reply, () => ask('link', from, to)),
    unlink: (path: string, reply: Reply) => done(reply, () => ask('unlink', path)),
    rmdir: (path: string, reply: Reply) => done(reply, () => ask('rmdir', path)),
    rename: (from: string, to: string, reply: Reply) => done(reply, () => ask('rename', from, to)),
    create: (path: string, mode: number, reply: Reply) =>
      answer(reply, async () => [0, await ask('create', path, mode)]),
    open: (path: string, flags: number, reply: Reply) => answer(reply, async () => [0, await ask('open', path, flags)]),
    read: (_path: string, handle: number, room: Buffer, sizeBytes: number, offset: number, reply: Reply) =>
      answer(reply, async () => {
        const data = await ask('read', handle, offset, sizeBytes);
        Buffer.from(data.buffer, data.byteOffset, data.byteLength).copy(room);
        return [data.length];
      }),
    write: (_path: string, handle: number, data: Buffer, sizeBytes: number, offset: number, reply: Reply) =>
      answer(reply, async () => {
        // the memory is libfuse's, and goes with the answer
        await ask('write', handle, offset, Buffer.from(data.subarray(0, sizeBytes)));
        return [sizeBytes];
      }),
    flush: (_path: string, handle: number, reply: Reply) => done(reply, () => ask('flush', handle)),
    fsync: (_path: string, dataOnly: number, handle: number, reply: Reply) =>
      done(reply, () => ask('fsync', handle, dataOnly !== 0)),
    release: (_path: string, handle: number, reply: Reply) => done(reply, () => ask('release', handle)),
    fsyncdir: (path: string, dataOnly: number, _handle: number, reply: Reply) =>
      done(reply, () => ask('fsyncdir', path, dataOnly !== 0)),
    setxattr: (path: string, name: string, value: Buffer, _position: number, flags: number, reply: Reply) =>
      done(reply, () => ask('setxattr', path, name, Buffer.from(value), flags)),
    removexattr: (path: string, name: string, reply: Reply) => done(reply, () => ask('removexattr', path, name)),
  };
}

/** The two operations that fuse-native must not answer by itself. */
export function xattrCallbacksFor(ask: Ask): XattrOperations {
  const nothing = Buffer.alloc(0);
  const answerBytes = (done: (errno: number, value: Buffer) => void, work: () => Promise<Buffer>): void =>
    answer(
      (result, value) => done(-result, Buffer.isBuffer(value) ? value : nothing),
      async () => [0, await work()],
    );
  return {
    getxattr: (path, name, done) => answerBytes(done, async () => Buffer.from(await ask('getxattr', path, name))),
    listxattr: (path, done) =>
      answerBytes(done, async () => {
        const names = await ask('listxattr', path);
        return Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1');
      }),
  };
}

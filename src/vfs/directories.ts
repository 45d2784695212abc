// Listing directories: a position is a place in the order of hidden names, so that entries may come
// and go while somebody lists, and any position may be returned to.

import { XcoreError } from '../lib/errors.ts';
import type { ListedDentry } from '../tree/tree.ts';
import { attributesOf, noteAccess } from './attributes.ts';
import type { DirectoryEntry } from './filesystem.ts';
import { S_IFDIR } from './modes.ts';
import type { DirectoryHandle, VolumeState } from './volume.ts';

const DOT = 1n;
const DOT_DOT = 2n;
const LAST_COOKIE = 2n ** 63n - 1n;

/** Cookies stay below 2^63 and above those of '.' and '..'. */
function cookieOf(position: bigint): bigint {
  const cookie = position >> 1n;
  return cookie > DOT_DOT ? cookie : DOT_DOT + 1n;
}

/** Opens a directory for listing. */
export function openDirectory(state: VolumeState, ino: number): number {
  noteAccess(state, state.directory(ino), 0);
  const handle = state.newHandle();
  state.directories.set(handle, { ino, entries: null, pending: [], removals: state.removals });
  state.noteOpen(ino);
  return handle;
}

/** Ends a listing. */
export async function closeDirectory(state: VolumeState, handle: number): Promise<void> {
  const directory = state.directories.get(handle);
  if (directory === undefined) return;
  state.directories.delete(handle);
  state.noteClose(directory.ino);
  await directory.entries?.return(undefined);
}

/** Up to `limit` entries after `cookie`. */
export async function readDirectory(
  state: VolumeState,
  ino: number,
  handle: number,
  cookie: bigint,
  limit: number,
  plus: boolean,
): Promise<DirectoryEntry[]> {
  const directory = state.directories.get(handle);
  if (directory === undefined) throw new XcoreError('EBADF');
  const inode = state.tree.inode(ino);
  const result: DirectoryEntry[] = [];
  if (inode === undefined || inode.nlink === 0 || cookie >= LAST_COOKIE) return result;
  if (cookie < DOT) result.push({ name: '.', ino, type: S_IFDIR, cookie: DOT });
  if (cookie < DOT_DOT) result.push({ name: '..', ino: inode.parent, type: S_IFDIR, cookie: DOT_DOT });
  await seek(state, directory, cookie);
  const delivered: ListedDentry[] = [];
  while (result.length < limit) {
    const listed = await next(directory);
    if (listed === undefined) break;
    delivered.push(listed);
    const entry = describe(state, directory, listed, plus);
    if (entry !== null) result.push(entry);
  }
  // the driver may take fewer and come back for the rest
  directory.pending = [...delivered, ...directory.pending];
  return result;
}

/** Places the listing right after a cookie. */
async function seek(state: VolumeState, directory: DirectoryHandle, cookie: bigint): Promise<void> {
  const index = directory.pending.findIndex(({ position }) => cookieOf(position) === cookie);
  if (index >= 0 && directory.entries !== null) {
    directory.pending = directory.pending.slice(index + 1);
    return;
  }
  await directory.entries?.return(undefined);
  directory.pending = [];
  directory.removals = state.removals;
  const position = cookie <= DOT_DOT ? 0n : (cookie + 1n) << 1n;
  directory.entries = state.tree.dentries(directory.ino, position);
}

async function next(directory: DirectoryHandle): Promise<ListedDentry | undefined> {
  const waiting = directory.pending.shift();
  if (waiting !== undefined) return waiting;
  const result = await directory.entries?.next();
  return result === undefined || result.done === true ? undefined : result.value;
}

/** Null for a name that was removed since the listing began. */
function describe(
  state: VolumeState,
  directory: DirectoryHandle,
  { dentry, position }: ListedDentry,
  plus: boolean,
): DirectoryEntry | null {
  const { name, ino, type } = dentry;
  if (directory.removals !== state.removals && state.tree.dentry(directory.ino, name)?.ino !== ino) return null;
  const entry = { name, ino, type, cookie: cookieOf(position) };
  if (!plus) return entry;
  const inode = state.tree.inode(ino);
  return inode === undefined ? null : { ...entry, attributes: attributesOf(inode) };
}

// Listing directories: a position is a place in the order of hidden names, so that entries may come
// and go while somebody lists, and any position may be returned to.

import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import type { DentryList } from '../tree/known-folders.ts';
import type { Inode } from '../tree/records.ts';
import { attributesOf, noteAccess } from './attributes.ts';
import type { DirectoryEntry } from './filesystem.ts';
import { S_IFDIR } from './modes.ts';
import type { ListedEntry, Listing, VolumeState } from './volume.ts';

const DOT = 1n;
const DOT_DOT = 2n;
const LAST_COOKIE = 2n ** 63n - 1n;
/** Entries looked up at once, or as many as are wanted: a program that lists comes back for the next ones. */
const ENTRIES_AHEAD = 512;

/** Cookies stay below 2^63 and above those of '.' and '..'. */
function cookieOf(position: bigint): bigint {
  const cookie = position >> 1n;
  return cookie > DOT_DOT ? cookie : DOT_DOT + 1n;
}

/** Opens a directory for listing. */
export function openDirectory(state: VolumeState, ino: number): number {
  noteAccess(state, state.directory(ino), 0);
  const handle = state.newHandle();
  state.directories.set(handle, { ino, listing: null });
  state.noteOpen(ino);
  return handle;
}

/** Ends a listing. */
export function closeDirectory(state: VolumeState, handle: number): void {
  const directory = state.directories.get(handle);
  if (directory === undefined) return;
  state.directories.delete(handle);
  state.noteClose(directory.ino);
}

/** Up to `limit` entries after `cookie`; `handle` 0 is a directory that nobody opened. */
export function readDirectory(
  state: VolumeState,
  ino: number,
  handle: number,
  cookie: bigint,
  limit: number,
  plus: boolean,
): Now<DirectoryEntry[]> {
  if (handle !== 0 && !state.directories.has(handle)) throw new XcoreError('EBADF');
  const inode = state.tree.inode(ino);
  if (inode === undefined || inode.nlink === 0 || cookie >= LAST_COOKIE) return [];
  if (handle === 0 && cookie === 0n) noteAccess(state, inode, 0);
  const from = seek(state.listing(ino, handle), cookie, state.removals);
  const entries = take(state, inode, from, cookie, limit, plus);
  if (entries !== null) {
    state.keepListing(ino, handle, entries.length === 0 ? null : from);
    return entries;
  }
  return readOn(state, inode, handle, from, cookie, limit, plus);
}

/** What is known of a listing after a cookie. */
function seek(known: Listing | null, cookie: bigint, removals: number): Listing {
  const index = known === null || cookie <= DOT_DOT ? -1 : known.entries.findIndex((entry) => entry.cookie === cookie);
  if (known === null || index < 0) return { entries: [], isWhole: false, removals };
  return { ...known, entries: known.entries.slice(index + 1) };
}

/** Entries out of what is known; null when more must be looked up. */
function take(
  state: VolumeState,
  inode: Inode,
  listing: Listing,
  cookie: bigint,
  limit: number,
  plus: boolean,
): DirectoryEntry[] | null {
  const result: DirectoryEntry[] = [];
  if (cookie < DOT) result.push({ name: '.', ino: inode.ino, type: S_IFDIR, cookie: DOT });
  if (cookie < DOT_DOT) result.push({ name: '..', ino: inode.parent, type: S_IFDIR, cookie: DOT_DOT });
  for (const listed of listing.entries) {
    if (result.length >= limit) return result;
    const entry = describe(state, inode.ino, listing, listed, plus);
    if (entry !== null) result.push(entry);
  }
  return listing.isWhole || result.length >= limit ? result : null;
}

function readOn(
  state: VolumeState,
  inode: Inode,
  handle: number,
  known: Listing,
  cookie: bigint,
  limit: number,
  plus: boolean,
): Now<DirectoryEntry[]> {
  const last = known.entries.at(-1)?.cookie ?? cookie;
  const position = last <= DOT_DOT ? 0n : (last + 1n) << 1n;
  const removals = known.entries.length === 0 ? state.removals : known.removals;
  const extend = ({ dentries, isWhole }: DentryList): Now<DirectoryEntry[]> => {
    const more = dentries.map(({ dentry, position: at }) => ({ dentry, cookie: cookieOf(at) }));
    const listing = { entries: [...known.entries, ...more], isWhole, removals };
    const entries = take(state, inode, listing, cookie, limit, plus);
    if (entries === null) return readOn(state, inode, handle, listing, cookie, limit, plus);
    // the driver may take fewer and come back for the rest
    state.keepListing(inode.ino, handle, entries.length === 0 ? null : listing);
    return entries;
  };
  const listed = state.tree.listDentries(inode.ino, position, Math.max(limit, ENTRIES_AHEAD));
  return listed instanceof Promise ? listed.then(extend) : extend(listed);
}

/** Null for a name that was removed since it was looked up. */
function describe(
  state: VolumeState,
  parent: number,
  listing: Listing,
  { dentry, cookie }: ListedEntry,
  plus: boolean,
): DirectoryEntry | null {
  const { name, ino, type } = dentry;
  if (listing.removals !== state.removals && state.tree.dentry(parent, name)?.ino !== ino) return null;
  if (!plus) return { name, ino, type, cookie };
  const inode = state.tree.inode(ino);
  return inode === undefined ? null : { name, ino, type, cookie, attributes: attributesOf(inode) };
}

// Ranges of files as such: room, holes, and copies that share what is stored.

import { XcoreError } from '../lib/errors.ts';
import type { Now } from '../lib/now.ts';
import type { Inode } from '../tree/records.ts';
import { killPrivileges, MAX_FILE_SIZE_BYTES, noteAccess } from './attributes.ts';
import type { Caller } from './filesystem.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, S_IFDIR, S_IFMT, S_IFREG } from './modes.ts';
import { dropCapabilities } from './xattrs.ts';
import type { VolumeState } from './volume.ts';

function file(state: VolumeState, ino: number): Inode {
  const inode = state.inode(ino);
  if ((inode.mode & S_IFMT) === S_IFDIR) throw new XcoreError('EISDIR');
  if ((inode.mode & S_IFMT) !== S_IFREG) throw new XcoreError('EINVAL');
  return inode;
}

/** Notes a change of content that the kernel leaves the rights and times of to this side. */
function changed(state: VolumeState, inode: Inode, caller: Caller): void {
  // root keeps the bits (CAP_FSETID)
  if (caller.uid !== 0) killPrivileges(inode, caller);
  dropCapabilities(state, inode);
  inode.mtimeNs = inode.ctimeNs = state.c.clock.nowNs();
  state.tree.touch(inode);
}

/** fallocate(2): room is checked, not kept; holes are made and zeros are holes. */
export function fallocate(
  state: VolumeState,
  ino: number,
  mode: number,
  offset: number,
  lengthBytes: number,
  caller: Caller,
): Now<void> {
  state.assertWritable();
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
  const frees = mode & ~FALLOC_FL_KEEP_SIZE;
  if (frees !== 0 && frees !== FALLOC_FL_PUNCH_HOLE && frees !== FALLOC_FL_ZERO_RANGE) {
    throw new XcoreError('EOPNOTSUPP');
  }
  if (frees === FALLOC_FL_PUNCH_HOLE && !keepSize) throw new XcoreError('EOPNOTSUPP');
  if (lengthBytes <= 0) throw new XcoreError('EINVAL');
  const end = offset + lengthBytes;
  if (end > MAX_FILE_SIZE_BYTES) throw new XcoreError('EFBIG');
  const inode = file(state, ino);
  if (frees === 0 && end - inode.sizeBytes > state.c.room().freeBytes) throw new XcoreError('ENOSPC');
  const freed = frees === 0 ? undefined : state.tree.extents.free(inode, offset, end, true);
  const finish = (): void => {
    const current = state.inode(ino);
    if (!keepSize) current.sizeBytes = Math.max(current.sizeBytes, end);
    changed(state, current, caller);
  };
  return freed instanceof Promise ? freed.then(finish) : finish();
}

/** lseek(2) of SEEK_HOLE and SEEK_DATA; ENXIO at or after the end, or when no data follows. */
export function seek(state: VolumeState, ino: number, offset: number, hole: boolean): Now<number> {
  const inode = file(state, ino);
  if (offset >= inode.sizeBytes) throw new XcoreError('ENXIO');
  const known = inode.storedBytes > 0 ? state.tree.store.whole() : null;
  if (known !== null) return known.then(() => seek(state, ino, offset, hole));
  if (hole) return state.tree.extents.nextHole(inode, offset);
  const check = (found: number | null): number => {
    if (found === null || found >= state.inode(ino).sizeBytes) throw new XcoreError('ENXIO');
    return found;
  };
  const found = state.tree.extents.nextData(inode, offset);
  return found instanceof Promise ? found.then(check) : check(found);
}

/** copy_file_range(2) as far as one call goes: both files name the same bytes from then on. */
export function copyRange(
  state: VolumeState,
  ino: number,
  offset: number,
  toIno: number,
  toOffset: number,
  lengthBytes: number,
  caller: Caller,
): Now<number> {
  state.assertWritable();
  const from = file(state, ino);
  const known = from.storedBytes > 0 ? state.tree.store.whole() : null;
  if (known !== null) return known.then(() => copyRange(state, ino, offset, toIno, toOffset, lengthBytes, caller));
  const to = file(state, toIno);
  const wanted = Math.min(lengthBytes, from.sizeBytes - offset);
  if (wanted <= 0) return 0;
  if (toOffset + wanted > MAX_FILE_SIZE_BYTES) throw new XcoreError('EFBIG');
  if (ino === toIno && offset < toOffset + wanted && toOffset < offset + wanted) throw new XcoreError('EINVAL');
  noteAccess(state, from, 0);
  const done = state.tree.extents.share(from, offset, to, toOffset, wanted);
  to.sizeBytes = Math.max(to.sizeBytes, toOffset + done);
  changed(state, to, caller);
  return done;
}

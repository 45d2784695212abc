// Bytes of files: from extents to shards and back.

import type { Reading } from '../cache/read-ahead.ts';
import { MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import { XcoreError } from '../lib/errors.ts';
import { freeBuffer } from '../lib/free-buffer.ts';
import { adviseHugePage, HUGE_MEMORY_BYTES } from '../lib/huge-page.ts';
import type { Now } from '../lib/now.ts';
import type { Span } from '../tree/extents.ts';
import { MAX_FILE_SIZE_BYTES, noteAccess } from './attributes.ts';
import { S_IFMT, S_IFREG } from './modes.ts';
import { dropCapabilities } from './xattrs.ts';
import type { VolumeState } from './volume.ts';

/** What the kernel reads at most. */
const READ_BYTES = 1024 * 1024;
/** How often a read begins anew when its bytes are replaced under it. */
const MAX_TRIES = 8;
/** What a sequential reader comes to next, of which the memory for loads is first. */
const NEAR_BYTES = 2 * MAX_SHARD_SIZE_BYTES;
/** Reads that wait for nothing end here, and their bytes go to the kernel before the next one comes. */
const lent = lendable();

function lendable(): Buffer {
  const memory = new ArrayBuffer(HUGE_MEMORY_BYTES);
  return Buffer.from(memory, adviseHugePage(memory), READ_BYTES);
}

/**
 * Takes a write: encrypted and in the tree when this returns, or when its promise resolves. One that waits
 * for room is given up when `signal` aborts (EINTR).
 */
export function write(
  state: VolumeState,
  ino: number,
  offset: number,
  data: Buffer,
  cached: boolean,
  signal?: AbortSignal,
): Now<void> {
  assertGoesOn(signal);
  state.assertWritable();
  if (offset + data.length > MAX_FILE_SIZE_BYTES) throw new XcoreError('EFBIG');
  if (data.length === 0) return;
  state.c.admit?.(data.length);
  const admitted = state.parts.segments.admit(data.length) ?? state.tree.store.settle();
  if (!(admitted instanceof Promise)) return store(state, ino, offset, data, cached);
  const copy = Buffer.from(data);
  return admitted.then(() => {
    assertGoesOn(signal);
    state.assertWritable(); // which may have changed while this waited
    store(state, ino, offset, copy, cached);
    freeBuffer(copy);
  });
}

function assertGoesOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new XcoreError('EINTR', 'the write was interrupted before it began');
}

function store(state: VolumeState, ino: number, offset: number, data: Buffer, cached: boolean): void {
  const inode = state.inode(ino);
  if ((inode.mode & S_IFMT) !== S_IFREG) throw new XcoreError('EINVAL');
  let at = offset;
  for (const piece of state.parts.segments.append(data)) {
    state.tree.extents.put(inode, at, piece.lengthBytes, piece.shard, piece.shardOffset);
    at += piece.lengthBytes;
  }
  inode.sizeBytes = Math.max(inode.sizeBytes, at);
  dropCapabilities(state, inode);
  if (!cached) {
    inode.mtimeNs = inode.ctimeNs = state.c.clock.nowNs();
  }
  state.tree.touch(inode);
}

/** Reads up to `sizeBytes` bytes; at once when all of them are in memory, and then they are lent until the next call. */
export function read(
  state: VolumeState,
  ino: number,
  handle: number,
  offset: number,
  sizeBytes: number,
  signal?: AbortSignal,
): Now<Buffer[]> {
  const inode = state.inode(ino);
  const length = Math.min(sizeBytes, inode.sizeBytes - offset);
  if (length <= 0) return [];
  // a reader that also writes counts from its first read on, others did when they opened the file
  if (inode.atimeNs <= inode.mtimeNs) noteAccess(state, inode, state.files.get(handle)?.flags ?? 0);
  const pattern = state.files.get(handle)?.readAhead.note(offset, length);
  const result = readRange(state, ino, offset, sizeBytes, length, pattern?.sequential ?? false, signal);
  // what this read needs comes first
  if (pattern?.ahead || pattern?.steps) prefetch(state, ino, offset + length, pattern.ahead);
  return result;
}

function readRange(
  state: VolumeState,
  ino: number,
  offset: number,
  sizeBytes: number,
  length: number,
  whole: boolean,
  signal?: AbortSignal,
): Now<Buffer[]> {
  const inode = state.inode(ino);
  const spans = state.tree.extents.spans(ino, offset, length);
  const hasHoles = inode.storedBytes > 0 && spans.some(({ shard }) => shard === 0);
  // what seems to be a hole may be bytes whose record the disk lost
  const known = hasHoles ? state.tree.store.whole() : null;
  const target = length <= READ_BYTES ? lent.subarray(0, length) : Buffer.allocUnsafeSlow(length);
  if (known === null && readNow(state, spans, offset, target, whole)) return [target];
  const gathered =
    known === null
      ? (readSoon(state, spans, whole, signal) ?? gather(state, spans, whole, signal))
      : known.then(() => gather(state, spans, whole, signal));
  return gathered.catch((error: unknown) => gatherAgain(state, ino, offset, sizeBytes, spans, whole, error, signal));
}

/**
 * Reads anew what could not be read: a write, or another device, may have replaced these bytes, cut the file or removed
 * it while this waited, and their shards may be gone. The failure, where nothing has changed.
 */
async function gatherAgain(
  state: VolumeState,
  ino: number,
  offset: number,
  sizeBytes: number,
  before: readonly Span[],
  whole: boolean,
  failure: unknown,
  signal?: AbortSignal,
): Promise<Buffer[]> {
  let spans = before;
  let last = failure;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const length = Math.min(sizeBytes, state.inode(ino).sizeBytes - offset);
    if (length <= 0) return [];
    const current = state.tree.extents.spans(ino, offset, length);
    if (sameSpans(spans, current)) throw last;
    spans = current;
    try {
      return await gather(state, spans, whole, signal);
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** Fills `target`, which begins at `offset` of the file, with bytes that are in memory; false where some are not. */
function readNow(state: VolumeState, spans: readonly Span[], offset: number, target: Buffer, whole: boolean): boolean {
  return spans.every((span) => {
    const part = target.subarray(span.offset - offset, span.offset - offset + span.lengthBytes);
    if (span.shard !== 0) return state.parts.reader.readNow(span.shard, span.shardOffset, part, whole);
    part.fill(0);
    return true;
  });
}

/** One span that the disk gives before another thread would; null where it is not known to. */
function readSoon(
  state: VolumeState,
  spans: readonly Span[],
  whole: boolean,
  signal?: AbortSignal,
): Promise<Buffer[]> | null {
  const [span] = spans;
  if (span === undefined || spans.length > 1 || whole) return null;
  const { shard, shardOffset, lengthBytes } = span;
  const soon = state.parts.reader.soon(shard, shardOffset, lengthBytes);
  return (
    soon?.then((arrived) => {
      const target = Buffer.allocUnsafe(lengthBytes);
      const isRead = arrived && state.parts.reader.readNow(shard, shardOffset, target, whole);
      return isRead ? [target] : gather(state, spans, whole, signal);
    }) ?? null
  );
}

async function gather(
  state: VolumeState,
  spans: readonly Span[],
  whole: boolean,
  signal?: AbortSignal,
): Promise<Buffer[]> {
  const { reader } = state.parts;
  return await Promise.all(
    spans.map(async ({ shard, shardOffset, lengthBytes }) =>
      shard === 0 ? Buffer.alloc(lengthBytes) : await reader.read(shard, shardOffset, lengthBytes, whole, signal),
    ),
  );
}

function sameSpans(a: readonly Span[], b: readonly Span[]): boolean {
  return (
    a.length === b.length && a.every((span, i) => span.shard === b[i]?.shard && span.shardOffset === b[i].shardOffset)
  );
}

/** Begins to fetch the shards that a sequential reader at `at` needs next, or to bring their files into memory. */
function prefetch(state: VolumeState, ino: number, at: number, ahead: Reading['ahead']): void {
  try {
    const { reader, files } = state.parts;
    for (const { shard, aheadBytes, lengthBytes } of shardsOf(state, ino, at, at + NEAR_BYTES)) {
      if (files.has(shard)) reader.warm(shard, lengthBytes, aheadBytes);
    }
    if (ahead === null) return;
    for (const { shard, aheadBytes, lengthBytes } of shardsOf(state, ino, ahead.from, ahead.to)) {
      if (files.has(shard)) reader.load(shard, lengthBytes, aheadBytes + ahead.from - at);
      else reader.want(shard);
    }
  } catch {
    // whoever reads there meets the error
  }
}

/** Shards of a range, in order, with how far behind its start they begin, and how much of them will be read. */
function shardsOf(
  state: VolumeState,
  ino: number,
  from: number,
  to: number,
): { shard: number; aheadBytes: number; lengthBytes: number }[] {
  const { sizeBytes } = state.inode(ino);
  if (Math.min(to, sizeBytes) <= from) return [];
  // of the last shard, too, all counts
  const end = Math.min(to + MAX_SHARD_SIZE_BYTES, sizeBytes);
  const found = new Map<number, { shard: number; aheadBytes: number; lengthBytes: number }>();
  for (const { shard, offset, lengthBytes } of state.tree.extents.spans(ino, from, end - from)) {
    if (shard === 0 || state.parts.segments.holds(shard)) continue;
    const known = found.get(shard);
    if (known !== undefined) known.lengthBytes += lengthBytes;
    else if (offset < to) found.set(shard, { shard, aheadBytes: offset - from, lengthBytes });
  }
  return [...found.values()];
}

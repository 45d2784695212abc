// Pure arithmetic on the extents of one window of a file. A window is 2 MiB of file offsets; what
// it holds lies in parallel lists by rising offset, never overlapping. Holes are what is absent.

/** File offsets that one window record covers. */
export const WINDOW_SIZE_BYTES = 2_097_152;

/** Extents of one window: offset inside the window, length, shard number, offset in the shard. */
export interface Window {
  readonly offsets: number[];
  readonly lengths: number[];
  readonly shards: number[];
  readonly shardOffsets: number[];
}

/** A range of a window that lies in a shard, or is a hole (shard 0). */
export interface Span {
  /** Offset inside the window. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** Shard number; 0 for a hole. */
  readonly shard: number;
  readonly shardOffset: number;
}

/** A window with nothing in it. */
export function emptyWindow(): Window {
  return { offsets: [], lengths: [], shards: [], shardOffsets: [] };
}

/** Index of the first extent that ends after `offset`. */
function firstEndingAfter(window: Window, offset: number): number {
  let low = 0;
  let high = window.offsets.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((window.offsets[middle] as number) + (window.lengths[middle] as number) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

function splice(window: Window, index: number, remove: number, spans: readonly Span[]): void {
  window.offsets.splice(index, remove, ...spans.map((s) => s.offset));
  window.lengths.splice(index, remove, ...spans.map((s) => s.lengthBytes));
  window.shards.splice(index, remove, ...spans.map((s) => s.shard));
  window.shardOffsets.splice(index, remove, ...spans.map((s) => s.shardOffset));
}

function spanAt(window: Window, index: number): Span {
  return {
    offset: window.offsets[index] as number,
    lengthBytes: window.lengths[index] as number,
    shard: window.shards[index] as number,
    shardOffset: window.shardOffsets[index] as number,
  };
}

/** Spans that cover [from, to) of a window without a gap, holes included. */
export function spansOf(window: Window, from: number, to: number): Span[] {
  const spans: Span[] = [];
  let position = from;
  for (let i = firstEndingAfter(window, from); i < window.offsets.length && position < to; i++) {
    const extent = spanAt(window, i);
    if (extent.offset >= to) break;
    if (extent.offset > position) {
      spans.push({ offset: position, lengthBytes: extent.offset - position, shard: 0, shardOffset: 0 });
      position = extent.offset;
    }
    const end = Math.min(extent.offset + extent.lengthBytes, to);
    const skipped = position - extent.offset;
    spans.push({
      offset: position,
      lengthBytes: end - position,
      shard: extent.shard,
      shardOffset: extent.shardOffset + skipped,
    });
    position = end;
  }
  if (position < to) spans.push({ offset: position, lengthBytes: to - position, shard: 0, shardOffset: 0 });
  return spans;
}

/** Makes [from, to) a hole, in place; returns what was there. */
export function cut(window: Window, from: number, to: number): Span[] {
  const first = firstEndingAfter(window, from);
  let after = first;
  const removed: Span[] = [];
  const kept: Span[] = [];
  for (; after < window.offsets.length; after++) {
    const extent = spanAt(window, after);
    if (extent.offset >= to) break;
    const end = extent.offset + extent.lengthBytes;
    const start = Math.max(extent.offset, from);
    const stop = Math.min(end, to);
    if (extent.offset < from) kept.push({ ...extent, lengthBytes: from - extent.offset });
    removed.push({
      offset: start,
      lengthBytes: stop - start,
      shard: extent.shard,
      shardOffset: extent.shardOffset + (start - extent.offset),
    });
    if (end > to) {
      kept.push({
        offset: to,
        lengthBytes: end - to,
        shard: extent.shard,
        shardOffset: extent.shardOffset + (to - extent.offset),
      });
    }
  }
  if (after > first) splice(window, first, after - first, kept);
  return removed;
}

/** Puts a span over whatever is there, in place, joined to its neighbour where both run on; returns what was there. */
export function place(window: Window, span: Span): Span[] {
  const count = window.offsets.length;
  const appends =
    count === 0 || (window.offsets[count - 1] as number) + (window.lengths[count - 1] as number) <= span.offset;
  const removed = appends ? [] : cut(window, span.offset, span.offset + span.lengthBytes);
  const index = appends ? count : firstEndingAfter(window, span.offset);
  if (index > 0) {
    const before = spanAt(window, index - 1);
    if (
      before.shard === span.shard &&
      before.offset + before.lengthBytes === span.offset &&
      before.shardOffset + before.lengthBytes === span.shardOffset
    ) {
      window.lengths[index - 1] = before.lengthBytes + span.lengthBytes;
      return removed;
    }
  }
  splice(window, index, 0, [span]);
  return removed;
}

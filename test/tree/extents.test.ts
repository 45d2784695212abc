import t from 'tap';
import { cut, emptyWindow, place, spansOf, WINDOW_SIZE_BYTES } from '../../src/tree/extents.ts';
import type { Span, Window } from '../../src/tree/extents.ts';
import { pickSeed, Random } from '../support/random.ts';

/** What each byte of a small window shows: shard number and offset in the shard, or 0 for a hole. */
class ArrayModel {
  readonly shards: number[];
  readonly shardOffsets: number[];

  constructor(sizeBytes: number) {
    this.shards = new Array<number>(sizeBytes).fill(0);
    this.shardOffsets = new Array<number>(sizeBytes).fill(0);
  }

  set(span: Span): void {
    for (let i = 0; i < span.lengthBytes; i++) {
      this.shards[span.offset + i] = span.shard;
      this.shardOffsets[span.offset + i] = span.shard === 0 ? 0 : span.shardOffset + i;
    }
  }

  /** The bytes [from, to) that are no hole. */
  stored(from: number, to: number): string[] {
    const found: string[] = [];
    for (let i = from; i < to; i++) {
      if (this.shards[i] !== 0) found.push(`${i}:${this.shards[i]}:${this.shardOffsets[i]}`);
    }
    return found;
  }
}

function bytesOf(spans: readonly Span[]): string[] {
  const found: string[] = [];
  for (const span of spans) {
    for (let i = 0; i < span.lengthBytes && span.shard !== 0; i++) {
      found.push(`${span.offset + i}:${span.shard}:${span.shardOffset + i}`);
    }
  }
  return found;
}

/** What is wrong with the shape of a window, or null. */
function malformed(window: Window, sizeBytes: number): string | null {
  const { offsets, lengths, shards, shardOffsets } = window;
  if (lengths.length !== offsets.length || shards.length !== offsets.length || shardOffsets.length !== offsets.length) {
    return 'uneven lists';
  }
  let end = 0;
  for (let i = 0; i < offsets.length; i++) {
    const [offset, length] = [offsets[i] as number, lengths[i] as number];
    if (offset < end) return `extent ${i} overlaps`;
    if (length <= 0) return `extent ${i} is empty`;
    if ((shards[i] as number) <= 0) return `extent ${i} is a hole`;
    end = offset + length;
  }
  return end > sizeBytes ? 'past the end' : null;
}

/** What is wrong with spans that should cover [from, to), or null. */
function gaps(spans: readonly Span[], from: number, to: number): string | null {
  let at = from;
  for (const span of spans) {
    if (span.offset !== at || span.lengthBytes <= 0) return `span at ${span.offset}, expected ${at}`;
    at += span.lengthBytes;
  }
  return at === to ? null : `ends at ${at}, expected ${to}`;
}

const at = (offset: number, lengthBytes: number, shard: number, shardOffset: number): Span => ({
  offset,
  lengthBytes,
  shard,
  shardOffset,
});

t.test('100,000 random writes, cuts and reads agree with an array', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const size = 200;
  let window = emptyWindow();
  let model = new ArrayModel(size);
  const appended = [0, 0, 0, 0];
  for (let step = 0; step < 100_000; step++) {
    if (step % 1_000 === 0) {
      window = emptyWindow();
      model = new ArrayModel(size);
    }
    const from = random.below(size);
    const to = random.between(from + 1, Math.min(size, from + 40) + 1);
    const what = random.below(10);
    let problem: string | null = null;
    if (what < 5) {
      const shard = random.between(1, 4);
      // mostly at the end of the shard, as segments grow, so that neighbours can be joined
      const shardOffset = random.below(4) > 0 ? (appended[shard] as number) : random.below(1_000);
      const span = at(from, to - from, shard, shardOffset);
      const before = model.stored(from, to);
      if (bytesOf(place(window, span)).join() !== before.join()) problem = 'place() returned something else';
      appended[shard] = shardOffset + to - from;
      model.set(span);
    } else if (what < 7) {
      const before = model.stored(from, to);
      if (bytesOf(cut(window, from, to)).join() !== before.join()) problem = 'cut() returned something else';
      model.set(at(from, to - from, 0, 0));
    } else {
      const spans = spansOf(window, from, to);
      problem = gaps(spans, from, to);
      if (bytesOf(spans).join() !== model.stored(from, to).join()) problem = 'spansOf() shows something else';
    }
    problem ??= malformed(window, size);
    if (what < 7 && bytesOf(spansOf(window, 0, size)).join() !== model.stored(0, size).join())
      problem ??= 'whole differs';
    if (problem !== null) {
      t.fail(`step ${step}: ${problem}`, { window, from, to, what });
      return;
    }
  }
  t.pass('no step differed');
});

t.test('appends that run on in file and shard are one extent', async (t) => {
  const window = emptyWindow();
  for (let i = 0; i < 100; i++) t.same(place(window, at(i * 10, 10, 5, 700 + i * 10)), []);
  t.same(window, { offsets: [0], lengths: [1000], shards: [5], shardOffsets: [700] });
});

t.test('what does not run on in both stays apart', async (t) => {
  const cases: [string, Span][] = [
    ['another shard', at(10, 10, 6, 10)],
    ['a gap in the shard', at(10, 10, 5, 11)],
    ['a gap in the file', at(11, 10, 5, 10)],
    ['backwards in the shard', at(10, 10, 5, 0)],
  ];
  for (const [name, second] of cases) {
    const window = emptyWindow();
    place(window, at(0, 10, 5, 0));
    place(window, second);
    t.equal(window.offsets.length, 2, name);
  }
});

t.test('a write in the middle splits, a write over all replaces', async (t) => {
  const window = emptyWindow();
  place(window, at(0, 100, 1, 0));
  t.same(place(window, at(40, 20, 2, 0)), [at(40, 20, 1, 40)]);
  t.same(spansOf(window, 0, 100), [at(0, 40, 1, 0), at(40, 20, 2, 0), at(60, 40, 1, 60)]);
  t.same(place(window, at(0, 100, 3, 0)), [at(0, 40, 1, 0), at(40, 20, 2, 0), at(60, 40, 1, 60)]);
  t.same(spansOf(window, 0, 100), [at(0, 100, 3, 0)]);
});

t.test('the whole window can be written, read and cut to its last byte', async (t) => {
  const end = WINDOW_SIZE_BYTES;
  const window = emptyWindow();
  t.same(spansOf(window, 0, end), [at(0, end, 0, 0)]);
  place(window, at(end - 1, 1, 1, 9));
  t.same(spansOf(window, 0, end), [at(0, end - 1, 0, 0), at(end - 1, 1, 1, 9)]);
  t.same(place(window, at(0, end, 2, 0)), [at(end - 1, 1, 1, 9)]);
  t.same(cut(window, end - 1, end), [at(end - 1, 1, 2, end - 1)]);
  t.same(cut(window, 0, end), [at(0, end - 1, 2, 0)]);
  t.same(window, emptyWindow());
});

// One file against an array of bytes, in the manner of fsx: reads, writes, appends, truncations, holes, zeroed
// ranges, shared copies and mappings, in any order, through one descriptor and another.
// XCORE_TEST_LONG=1: 100,000 operations, six minutes on a busy machine; more with XCORE_TEST_DRIVER=fuse-native.

import fs from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
  copyFileRange,
  dropPages,
  fallocate,
  lseek,
  map,
} from '../support/libc.ts';
import { pickSeed, Random } from '../support/random.ts';
import { DRIVER, limit } from '../support/driver.ts';
import { mountVolume } from '../support/volume-mount.ts';

const IS_LONG = process.env['XCORE_TEST_LONG'] === '1';
const OPERATIONS = IS_LONG ? 100_000 : 12_000;
/** However slow the machine is. */
const LEAST_OPERATIONS = 200;
const MAX_MS = IS_LONG ? Infinity : DRIVER === 'fuse-native' ? 6_000 : 20_000;
/** Each byte takes a way through a third process with fuse-native: a smaller file there, for as many operations. */
const MAX_SIZE = IS_LONG && DRIVER === 'fuse-native' ? 2 ** 19 : 3 * 2 ** 20;
const PAGE = 4_096;

t.setTimeout(1_800_000);

/** Ranges that are punched, zeroed or kept, and holes that are found. */
const hasRanges = limit('no fallocate, no holes to be found') === false;

void t.test('random work on one file equals an array of bytes', async (t) => {
  const seed = pickSeed();
  t.comment(`XCORE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const volume = await mountVolume(t);
  const path = join(volume.dir, 'file');
  const otherPath = join(volume.dir, 'other');
  let content = Buffer.alloc(0);
  let other = Buffer.alloc(0);
  let fd = fs.openSync(path, 'w+');
  fs.closeSync(fs.openSync(otherPath, 'w'));
  const trail: string[] = [];

  const resized = (old: Buffer, size: number): Buffer<ArrayBuffer> => {
    const next = Buffer.alloc(size);
    old.copy(next);
    return next;
  };
  const put = (offset: number, data: Buffer): void => {
    if (offset + data.length > content.length) content = resized(content, offset + data.length);
    data.copy(content, offset);
  };
  const check = (what: string, found: Buffer, wanted: Buffer): void => {
    if (found.equals(wanted)) return;
    let at = 0;
    while (found[at] === wanted[at]) at++;
    throw new Error(`${what}: byte ${at} differs, ${found.length} and ${wanted.length} bytes\n${trail.join('\n')}`);
  };
  const range = (): { offset: number; length: number } => {
    const offset = random.pick([random.below(MAX_SIZE), random.below(content.length + 1), random.below(20) * PAGE]);
    const length = random.pick([1, 100, PAGE, 10_000, 200_000]) + random.below(100);
    return { offset: Math.min(offset, MAX_SIZE - 1), length: Math.min(length, MAX_SIZE - offset) };
  };
  const step = async (): Promise<void> => {
    const { offset, length } = range();
    if (length <= 0) return;
    const what = random.below(100);
    if (!hasRanges && ((what >= 56 && what < 70) || what === 98)) return;
    trail.push(`${what}: ${offset} ${length} of ${content.length}`);
    if (trail.length > 30) trail.shift();
    if (what < 25) {
      const room = Buffer.alloc(length);
      const size = fs.readSync(fd, room, 0, length, offset);
      check('read', room.subarray(0, size), content.subarray(offset, offset + length));
    } else if (what < 45) {
      const data = random.bytes(length);
      fs.writeSync(fd, data, 0, length, offset);
      put(offset, data);
    } else if (what < 50) {
      const data = random.bytes(Math.min(length, MAX_SIZE - content.length));
      const appending = fs.openSync(path, 'a');
      fs.writeSync(appending, data);
      fs.closeSync(appending);
      put(content.length, data);
    } else if (what < 56) {
      const size = random.pick([offset, offset + length, Math.min(content.length + 10, MAX_SIZE)]);
      fs.ftruncateSync(fd, size);
      content = resized(content, size);
    } else if (what < 62) {
      fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length);
      content.fill(0, Math.min(offset, content.length), Math.min(offset + length, content.length));
    } else if (what < 68) {
      const keep = random.below(2) === 0;
      fallocate(fd, FALLOC_ZERO_RANGE | (keep ? FALLOC_KEEP_SIZE : 0), offset, length);
      if (!keep && offset + length > content.length) content = resized(content, offset + length);
      content.fill(0, Math.min(offset, content.length), Math.min(offset + length, content.length));
    } else if (what < 70) {
      fallocate(fd, 0, offset, length);
      if (offset + length > content.length) content = resized(content, offset + length);
    } else if (what < 78) {
      const to = random.below(MAX_SIZE - length);
      const wanted = Math.max(0, Math.min(length, content.length - offset));
      if (wanted === 0 || (offset < to + length && to < offset + length)) return;
      const data = Buffer.from(content.subarray(offset, offset + wanted));
      const copied = copyFileRange(fd, offset, fd, to, length);
      if (copied !== wanted) throw new Error(`copied ${copied} of ${wanted}`);
      put(to, data);
    } else if (what < 81) {
      // away to another file and back
      const target = fs.openSync(otherPath, 'r+');
      const copied = content.length === 0 ? 0 : copyFileRange(fd, 0, target, 0, content.length);
      fs.ftruncateSync(target, content.length);
      fs.closeSync(target);
      if (copied !== content.length) throw new Error(`copied ${copied} of ${content.length}`);
      other = Buffer.from(content);
    } else if (what < 84) {
      check('the other file', fs.readFileSync(otherPath), other);
    } else if (what < 92) {
      const end = Math.min(offset + length, content.length);
      const start = Math.floor(Math.min(offset, end) / PAGE) * PAGE;
      if (end <= start) return;
      const mapping = map(fd, start, end - start);
      check('a mapping', mapping.bytes, content.subarray(start, end));
      if (what < 88) {
        const data = random.bytes(random.between(1, end - start + 1));
        data.copy(mapping.bytes);
        data.copy(content, start);
        if (what < 86) mapping.sync();
      }
      mapping.unmap();
    } else if (what < 94) {
      const mapping = content.length > 0 ? map(fd, 0, Math.min(content.length, PAGE), true) : null;
      mapping?.bytes.fill(0xee);
      mapping?.unmap();
    } else if (what < 96) {
      fs.fsyncSync(fd);
      dropPages(fd);
    } else if (what < 98) {
      fs.closeSync(fd);
      fd = fs.openSync(path, 'r+');
    } else if (what < 99) {
      for (let at = 0; at < content.length;) {
        const hole = lseek(fd, at, SEEK_HOLE);
        if (hole >= content.length) break;
        let data = content.length;
        try {
          data = lseek(fd, hole, SEEK_DATA);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
        }
        check('a hole', content.subarray(hole, data), Buffer.alloc(data - hole));
        at = data;
      }
    } else if (random.below(40) === 0) {
      fs.closeSync(fd);
      await volume.remount();
      fd = fs.openSync(path, 'r+');
    } else {
      check('all of it', fs.readFileSync(path), content);
    }
    const { size } = fs.fstatSync(fd);
    if (size !== content.length) throw new Error(`${size} bytes long, not ${content.length}\n${trail.join('\n')}`);
  };

  const endMs = Date.now() + MAX_MS;
  let done = 0;
  for (; done < LEAST_OPERATIONS || (done < OPERATIONS && Date.now() < endMs); done++) await step();
  fs.closeSync(fd);
  await volume.remount();
  check('after a remount', fs.readFileSync(path), content);
  check('the other file after a remount', fs.readFileSync(otherPath), other);
  t.comment(`${done} operations`);
  t.strictSame(await volume.finish(), []);
});

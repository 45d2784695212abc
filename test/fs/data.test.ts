// File contents through a real mount: reads, writes, holes, truncation, append, and random work
// against a model in memory.

import {
  closeSync,
  constants,
  copyFileSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { differences, fingerprint } from '../support/fingerprint.ts';
import { withMount } from '../support/mounted.ts';
import { Random, pickSeed, writeRandomFile } from '../support/random.ts';

t.setTimeout(280_000);

const seed = pickSeed();
t.comment(`seed ${seed}`);
const volume = await withMount(t);
const at = (name: string): string => join(volume.dir, name);

/** Reads a range; shorter than asked at the end of the file. */
function readAt(fd: number, offset: number, sizeBytes: number): Buffer {
  const data = Buffer.alloc(sizeBytes);
  return data.subarray(0, readSync(fd, data, 0, sizeBytes, offset));
}

await t.test('files of every size around a border come back', async (t) => {
  const random = new Random(seed);
  const around = (n: number): number[] => [n - 1, n, n + 1];
  const sizes = [0, 1, ...[16, 4096, 16_384, 131_072, 1_048_576, 2_097_152].flatMap(around), 5_000_000];
  const contents = sizes.map((size) => random.bytes(size));
  contents.forEach((content, n) => writeFileSync(at(`size-${n}`), content));
  const same = (content: Buffer, n: number): boolean => readFileSync(at(`size-${n}`)).equals(content);
  t.ok(contents.every(same), 'at once');
  await volume.remount();
  t.ok(contents.every(same), 'after a remount');
  t.ok(
    contents.every((content, n) => statSync(at(`size-${n}`)).size === content.length),
    'sizes',
  );
});

await t.test('holes, truncation down and up, and reads past the end', async (t) => {
  const path = at('holes');
  let fd = openSync(path, 'w+');
  writeSync(fd, 'end', 10_000_000);
  t.equal(statSync(path).size, 10_000_003);
  t.ok(readAt(fd, 5_000_000, 100_000).equals(Buffer.alloc(100_000)), 'a hole is zeros');
  t.equal(readAt(fd, 10_000_000, 100).toString(), 'end', 'a read across the end is short');
  t.equal(readAt(fd, 20_000_000, 100).length, 0, 'a read past the end is empty');
  writeSync(fd, 'x'.repeat(10_000), 0);
  ftruncateSync(fd, 5000);
  ftruncateSync(fd, 20_000);
  const zeros = Buffer.alloc(15_000);
  t.ok(readAt(fd, 5000, 30_000).equals(zeros), 'what was cut off does not come back');
  t.equal(readAt(fd, 4990, 10).toString(), 'x'.repeat(10));
  closeSync(fd);
  await volume.remount();
  fd = openSync(path, 'r+');
  t.ok(readAt(fd, 5000, 30_000).equals(zeros), 'nor after a remount');
  truncateSync(path, 0);
  t.equal(readAt(fd, 0, 10).length, 0);
  closeSync(fd);
  writeFileSync(path, 'again');
  t.equal(readFileSync(path, 'utf8'), 'again');
  t.throws(() => truncateSync(at('absent')), { code: 'ENOENT' });
  t.throws(() => truncateSync(volume.dir), { code: 'EISDIR' });
});

await t.test('append, overwrite in place, two descriptors on one file', async (t) => {
  const path = at('shared');
  const [one, two] = [openSync(path, 'a'), openSync(path, 'a')];
  for (let n = 0; n < 100; n++) writeSync(n % 2 === 0 ? one : two, `${n},`);
  t.equal(readFileSync(path, 'utf8'), Array.from({ length: 100 }, (_, n) => `${n},`).join(''));
  closeSync(one);
  closeSync(two);
  const writer = openSync(path, 'r+');
  const reader = openSync(path, 'r');
  writeSync(writer, 'HELLO', 3);
  t.equal(readAt(reader, 0, 10).toString().slice(3, 8), 'HELLO', 'a write is seen by another descriptor at once');
  fsyncSync(writer);
  t.throws(() => writeSync(reader, 'x'), { code: 'EBADF' });
  closeSync(writer);
  closeSync(reader);
  const writeOnly = openSync(path, constants.O_WRONLY | constants.O_TRUNC);
  t.equal(statSync(path).size, 0, 'O_TRUNC empties it');
  t.throws(() => readAt(writeOnly, 0, 1), { code: 'EBADF' });
  closeSync(writeOnly);
  const sync = openSync(path, constants.O_WRONLY | constants.O_SYNC);
  writeSync(sync, 'synced');
  closeSync(sync);
  t.equal(readFileSync(path, 'utf8'), 'synced');
});

await t.test('random work on files equals a model in memory', async (t) => {
  const random = new Random(`${seed}/model`);
  const model = new Map<string, Buffer>();
  const names = ['m1', 'm2', 'm3', 'm4'];
  const MAX = 3_000_000;
  const write = (name: string, offset: number, data: Buffer): void => {
    const old = model.get(name) ?? Buffer.alloc(0);
    const whole = Buffer.alloc(Math.max(old.length, offset + data.length));
    old.copy(whole);
    data.copy(whole, offset);
    model.set(name, whole);
    const fd = openSync(at(name), constants.O_RDWR | constants.O_CREAT);
    writeSync(fd, data, 0, data.length, offset);
    if (random.below(10) === 0) fsyncSync(fd);
    closeSync(fd);
  };
  let wrong = 0;
  for (let step = 0; step < 1500; step++) {
    const name = random.pick(names);
    const content = model.get(name);
    const what = random.below(100);
    if (!content || what < 45) {
      const size = random.pick([1, 100, 4096, 5000, 70_000, 200_000]);
      write(
        name,
        random.below(Math.min(MAX, (content?.length ?? 0) + 50_000)),
        random.bytes(random.between(1, size + 1)),
      );
    } else if (what < 75) {
      const offset = random.below(content.length + 1000);
      const size = random.between(1, 150_000);
      const fd = openSync(at(name), 'r');
      if (!readAt(fd, offset, size).equals(content.subarray(offset, offset + size))) wrong++;
      closeSync(fd);
    } else if (what < 85) {
      const size = random.below(Math.min(MAX, content.length + 20_000) + 1);
      truncateSync(at(name), size);
      const cut = Buffer.alloc(size);
      content.copy(cut);
      model.set(name, cut);
    } else if (what < 90) {
      const other = random.pick(names);
      if (other === name) continue;
      renameSync(at(name), at(other));
      model.set(other, content);
      model.delete(name);
    } else if (what < 94) {
      const other = random.pick(names);
      if (other === name) continue;
      copyFileSync(at(name), at(other));
      model.set(other, Buffer.from(content));
    } else if (what < 96) {
      unlinkSync(at(name));
      model.delete(name);
    } else if (what < 99) {
      if (!readFileSync(at(name)).equals(content)) wrong++;
    } else if (random.below(4) === 0) {
      await volume.remount();
    }
    if (wrong > 0) throw new Error(`step ${step} on ${name}: content differs (seed ${seed})`);
  }
  await volume.remount();
  for (const [name, content] of model) t.ok(readFileSync(at(name)).equals(content), `${name} at the end`);
});

await t.test('contents come back from the network when nothing is local', async (t) => {
  const { run } = volume.net;
  const hash = writeRandomFile(at('network'), seed, 20_000_000);
  await volume.client.flush();
  const wanted = await fingerprint(run, volume.dir);
  t.ok(wanted.get('network')?.endsWith(hash));
  const words = await volume.client.phrase();
  await volume.client.umount();
  const other = await volume.net.recovered('other', words);
  const mount = await other.mount('--read-only');
  const fd = openSync(join(mount, 'network'), 'r');
  const random = new Random(seed);
  const content = new Random(seed);
  const whole = Buffer.concat(
    Array.from({ length: 20 }, (_, n) => content.bytes(Math.min(1 << 20, 20_000_000 - (n << 20)))),
  );
  for (let n = 0; n < 200; n++) {
    const offset = random.below(20_000_000);
    if (!readAt(fd, offset, 4096).equals(whole.subarray(offset, offset + 4096))) t.fail(`random read at ${offset}`);
  }
  closeSync(fd);
  t.strictSame(differences(wanted, await fingerprint(run, mount)), []);
  await other.umount();
});

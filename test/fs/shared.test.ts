// Copies that share what is stored, seen from the network: nothing is uploaded for one, other devices see
// it, and hosts keep the bytes until the last copy goes.

import { copyFileSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { withMount } from '../support/mounted.ts';
import { Random } from '../support/random.ts';

t.setTimeout(300_000);

void t.test('a copy is uploaded as names only, and outlives its original', async (t) => {
  const volume = await withMount(t);
  const { client, net } = volume;
  const stored = async (): Promise<number> =>
    // it fails over a file that goes meanwhile, and counts the others
    Number((await net.run.exec('du', ['-sk', net.hosts[0]!.dir])).stdout.split('\t')[0]) * 1024;
  const data = new Random('shared').bytes(12_000_000);
  writeFileSync(join(volume.dir, 'original'), data);
  await client.flush();
  const before = await stored();
  t.ok(before >= data.length);
  for (const name of ['one', 'two', 'three']) copyFileSync(join(volume.dir, 'original'), join(volume.dir, name));
  await client.flush();
  t.ok((await stored()) - before < 1_000_000, 'three copies are no upload');
  unlinkSync(join(volume.dir, 'original'));
  unlinkSync(join(volume.dir, 'one'));
  await client.flush();

  const words = await client.phrase();
  await client.umount();
  const other = await net.recovered('other', words);
  const dir = await other.mount();
  t.ok(readFileSync(join(dir, 'two')).equals(data), 'another device reads a copy of what is gone');
  unlinkSync(join(dir, 'two'));
  t.ok(readFileSync(join(dir, 'three')).equals(data));
  await other.flush();
  await other.umount();
});

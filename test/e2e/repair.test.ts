// The network looks after what it was given: hosts vanish, forget and rot while the owner's machine is gone, and every
// shard comes back to its full number of mirrors.

import { rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import { corruptShards, intactShards, shardFiles } from '../support/hosts.ts';
import { withNetwork } from '../support/network.ts';
import type { Server } from '../support/network.ts';
import { pickSeed, writeRandomFile } from '../support/random.ts';
import { until } from '../support/run.ts';

t.setTimeout(600_000);

const MIRRORS = 3;
const FILES = 10;
const FILE_BYTES = 10 << 20;

/** Shards with fewer intact mirrors than they are to have, over some hosts. */
function below(shards: Iterable<string>, hosts: readonly Server[]): string[] {
  const counts = new Map<string, number>([...shards].map((id) => [id, 0]));
  for (const host of hosts) {
    for (const id of intactShards(host.dir)) if (counts.has(id)) counts.set(id, counts.get(id)! + 1);
  }
  return [...counts].filter(([, count]) => count < MIRRORS).map(([id]) => id);
}

await t.test('a host dies, one forgets and one rots while the client is away: nothing is lost', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const net = await withNetwork(t, {
    hosts: 6,
    bridge: ['--repair-after', '5s', '--audits-per-day', '864000'],
  });
  const writer = await net.newClient('writer');
  const words = await writer.phrase();
  const mount = await writer.mount();
  const hashes = Array.from({ length: FILES }, (_, n) =>
    writeRandomFile(join(mount, `file-${n}`), `${seed} ${n}`, FILE_BYTES),
  );
  await writer.umount();
  rmSync(writer.home, { recursive: true });

  const shards = new Set(net.hosts.flatMap((host) => intactShards(host.dir)));
  t.ok(shards.size >= (FILES * FILE_BYTES) / (2 << 20), `${shards.size} shards`);
  await until('the first mirrors to be there', () => below(shards, net.hosts).length === 0 || undefined);

  // One sound mirror has to be left of each shard, so that there is something to repair it from.
  const [dead, forgetful, rotten, ...sound] = net.hosts;
  const started = Date.now();
  await dead!.kill();
  const safe = new Set(sound.flatMap((host) => intactShards(host.dir)));
  for (const path of shardFiles(forgetful!.dir)) if (safe.has(basename(path))) rmSync(path, { force: true });
  t.ok(corruptShards(rotten!.dir) > 0);
  const living = [forgetful!, rotten!, ...sound];
  const harmed = below(shards, living).length;
  t.ok(harmed > 0, `${harmed} shards have fewer than ${MIRRORS} mirrors`);
  await until('every shard to have all its mirrors', () => below(shards, living).length === 0 || undefined, 300_000);
  t.comment(`${harmed} shards were back at ${MIRRORS} mirrors after ${((Date.now() - started) / 1000).toFixed(1)} s`);

  await dead!.start();
  const reader = await net.recovered('reader', words);
  const again = await reader.mount();
  for (const [n, hash] of hashes.entries()) {
    const sum = await net.run.must('sha256sum', [join(again, `file-${n}`)], { timeoutMs: 120_000 });
    t.equal(sum.slice(0, 64), hash);
  }
  await reader.umount();
});

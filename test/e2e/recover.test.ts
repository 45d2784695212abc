// The whole promise: what was written on one machine comes back on another from 24 words, whatever
// becomes of some of the hosts.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { differences, fingerprint } from '../support/fingerprint.ts';
import type { Fingerprint } from '../support/fingerprint.ts';
import { corruptShards, shardFiles } from '../support/hosts.ts';
import { withNetwork } from '../support/network.ts';
import { pickSeed } from '../support/random.ts';
import { SIZES } from '../support/sizes.ts';
import { makeTree } from '../support/tree.ts';

t.setTimeout(900_000);

const seed = pickSeed();
t.comment(`seed ${seed}`);
const net = await withNetwork(t, { hosts: 5 });
const source = join(net.run.dir, 'source');
let words = '';
let wanted: Fingerprint = new Map();

await t.test('a tree comes back on an empty home from the words, hash by hash', async (t) => {
  await makeTree(net.run, source, { seed, bigFileBytes: SIZES.bigFileBytes });
  wanted = await fingerprint(net.run, source);
  t.ok(wanted.size > 4000, `${wanted.size} entries`);

  const first = await net.newClient('a');
  words = await first.phrase();
  const mount = await first.mount();
  await net.run.must('cp', ['-a', source, join(mount, 'tree')], { timeoutMs: 300_000 });
  t.strictSame(differences(wanted, await fingerprint(net.run, join(mount, 'tree'))), [], 'same through the mount');
  await first.flush();
  const flushed = await first.status();
  t.equal(flushed.stagedBytes, 0, 'nothing is on this machine only');
  t.equal(flushed.log.unpublished, 0, 'all is published');
  await first.umount();
  rmSync(first.home, { recursive: true });
  rmSync(source, { recursive: true });

  const second = await net.recovered('b', words);
  t.equal(await second.phrase(), words, 'the recovered identity has the same words');
  const again = await second.mount();
  t.strictSame(differences(wanted, await fingerprint(net.run, join(again, 'tree'))), [], 'same after recovery');
  await second.umount();
  rmSync(second.home, { recursive: true });
});

await t.test('all reads succeed with two of five hosts stopped', async (t) => {
  const [one, two] = net.hosts;
  await Promise.all([one?.stop(), two?.kill()]);
  const client = await net.recovered('c', words);
  const mount = await client.mount();
  t.strictSame(differences(wanted, await fingerprint(net.run, join(mount, 'tree'))), []);
  await client.umount();
  rmSync(client.home, { recursive: true });
  await Promise.all([one?.start(), two?.start()]);
});

await t.test('all reads succeed with one host that returns corrupted bytes, and it is reported', async (t) => {
  const [bad] = [...net.hosts].sort((a, b) => shardFiles(b.dir).length - shardFiles(a.dir).length);
  if (!bad) throw new Error('there is a host');
  t.ok(corruptShards(bad.dir) > 0, 'its shards are damaged');
  const client = await net.recovered('d', words);
  const mount = await client.mount();
  t.strictSame(differences(wanted, await fingerprint(net.run, join(mount, 'tree'))), []);
  const { problems } = await client.status();
  const reports = problems.filter((problem) => problem.code.includes('CORRUPT'));
  t.ok(reports.length > 0, 'the corrupt mirror is in the status');
  t.ok(
    reports.every((report) => `${report.message} ${report.advice}`.includes(bad.peer)),
    'by the name of its host, and no other',
  );
  await client.umount();
});

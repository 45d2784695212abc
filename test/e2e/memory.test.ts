// The daemon's memory is bounded by its caches, not by what goes through it.

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { differences, fingerprint } from '../support/fingerprint.ts';
import { withNetwork } from '../support/network.ts';
import { pickSeed, writeRandomFile } from '../support/random.ts';
import { ROOT } from '../support/run.ts';
import { SIZES } from '../support/sizes.ts';

t.setTimeout(3_600_000);

const LIMIT_BYTES = 400 * 2 ** 20;
const seed = pickSeed();
t.comment(`seed ${seed}`);
const net = await withNetwork(t, { hosts: 3 });

/** The largest resident size that a process has had, in bytes. */
function peakBytes(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1] ?? Infinity) * 1024;
}

await t.test('a file far larger than the cache is written and read back', async (t) => {
  const client = await net.newClient('a');
  const mount = await client.mount('--cache-size', SIZES.memoryCache);
  const pid = await client.daemonPid();
  const hash = writeRandomFile(join(mount, 'big'), seed, SIZES.memoryFileBytes);
  t.comment(`after writing: ${Math.round(peakBytes(pid) / 2 ** 20)} MiB`);
  t.ok(peakBytes(pid) < LIMIT_BYTES, 'under 400 MiB after writing');
  const found = (await fingerprint(net.run, mount, 1_800_000)).get('big');
  t.ok(found?.endsWith(` ${hash}`), 'it reads back the same');
  t.comment(`after reading: ${Math.round(peakBytes(pid) / 2 ** 20)} MiB`);
  t.ok(peakBytes(pid) < LIMIT_BYTES, 'under 400 MiB after reading');
  await client.umount();
  rmSync(client.home, { recursive: true });
});

await t.test('many small files are written and read back', async (t) => {
  const client = await net.newClient('b');
  const mount = await client.mount();
  const pid = await client.daemonPid();
  const small = (top: string): Promise<string> =>
    net.run.must(process.execPath, [join(ROOT, 'test/support/small-files.ts'), top, String(SIZES.smallFiles), seed], {
      timeoutMs: 1_800_000,
    });
  await small(mount);
  t.comment(`after writing: ${Math.round(peakBytes(pid) / 2 ** 20)} MiB`);
  t.ok(peakBytes(pid) < LIMIT_BYTES, 'under 400 MiB after writing');
  const local = join(net.run.dir, 'local');
  await small(local);
  const files = async (top: string): Promise<Map<string, string>> =>
    new Map(
      [...(await fingerprint(net.run, top, 1_800_000))]
        .filter(([, line]) => line.startsWith('file'))
        .map(([path, line]) => [path, line.slice(line.indexOf('links='))]),
    );
  t.strictSame(differences(await files(local), await files(mount)), [], 'all read back the same');
  t.comment(`after reading: ${Math.round(peakBytes(pid) / 2 ** 20)} MiB`);
  t.ok(peakBytes(pid) < LIMIT_BYTES, 'under 400 MiB after reading');
  await client.umount();
  t.notOk(await client.findMount(), 'and unmounts');
});

// A daemon that is told to end: it unmounts, and nothing is lost.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mountsBelow } from '../support/cleanup.ts';
import { isAlive } from '../support/client.ts';
import { withNetwork } from '../support/network.ts';
import { until } from '../support/run.ts';

t.setTimeout(300_000);

await t.test('SIGTERM unmounts cleanly, also while hosts are away, and the next mount has everything', async (t) => {
  const net = await withNetwork(t, { hosts: 3 });
  const client = await net.newClient('a');
  const mount = await client.mount();
  writeFileSync(join(mount, 'durable'), 'd'.repeat(100_000));
  await client.flush();
  await Promise.all(net.hosts.map((host) => host.kill()));
  writeFileSync(join(mount, 'staged'), 's'.repeat(3_000_000));
  const pid = await client.daemonPid();
  process.kill(pid, 'SIGTERM');
  await until('the daemon to end', () => !isAlive(pid), 60_000);
  t.strictSame(mountsBelow(mount), [], 'nothing is mounted any more');
  t.strictSame(readdirSync(mount), [], 'the folder can be used');
  t.equal((await client.xcore(['status'])).code, 0);

  await client.mount();
  t.equal(readFileSync(join(mount, 'staged'), 'utf8'), 's'.repeat(3_000_000));
  t.equal(readFileSync(join(mount, 'durable'), 'utf8'), 'd'.repeat(100_000));
  t.strictSame(
    (await client.status()).problems.filter(({ code }) => code === 'CORRUPT_SHARD'),
    [],
  );
  await Promise.all(net.hosts.map((host) => host.start()));
  await client.umount();
  const checked = await client.xcore(['fsck']);
  t.equal(checked.code, 0, `xcore fsck: ${checked.stdout}${checked.stderr}`);
});

// What a user meets when something around the mount fails: full disk, absent bridge, absent hosts.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { fillContent } from '../support/fill.ts';
import type { Filled } from '../support/fill.ts';
import { withNetwork } from '../support/network.ts';
import { ROOT } from '../support/run.ts';

t.setTimeout(600_000);

const isRoot = process.getuid?.() === 0;

await t.test('a full disk is ENOSPC for the writer, and the rest stays readable', async (t) => {
  const net = await withNetwork(t, { hosts: 3 });
  const client = net.client('a');
  const options: string[] = [];
  if (isRoot) {
    mkdirSync(client.home, { mode: 0o700 });
    await net.run.must('mount', ['-t', 'tmpfs', '-o', 'size=96m,mode=700', 'none', client.home]);
  } else {
    options.push('--cache-size', '64MiB');
  }
  await client.init(net.bridge.address);
  const mount = await client.mount(...options);
  writeFileSync(join(mount, 'early'), 'before it was full');
  await client.flush();

  await Promise.all(net.hosts.map((host) => host.stop()));
  const output = await net.run.must(process.execPath, [join(ROOT, 'test/support/fill.ts'), mount, '300'], {
    timeoutMs: 180_000,
  });
  const filled = JSON.parse(output) as Filled;
  t.equal(filled.code, 'ENOSPC', 'write() or close() says so');
  t.ok(filled.closed > 10, `after ${filled.closed} MiB`);
  const same = (n: number): boolean => readFileSync(join(mount, `fill-${n}`)).equals(fillContent(n));
  t.ok(Array.from({ length: filled.closed }, (_, n) => n).every(same), 'all files that were closed are whole');
  await client.untilStatus('the status to say what is wrong', ({ problems }) => problems.length > 0);

  await Promise.all(net.hosts.map((host) => host.start()));
  await client.flush();
  t.equal((await client.status()).stagedBytes, 0, 'uploads go on when the hosts are back');
  writeFileSync(join(mount, 'late'), Buffer.alloc(1 << 20, 'x'));
  t.equal(readFileSync(join(mount, 'late')).length, 1 << 20, 'and there is room again');
  t.ok(same(0));
  t.equal(readFileSync(join(mount, 'early'), 'utf8'), 'before it was full', 'what was evicted comes from the hosts');
  await client.umount();
});

await t.test('a bridge that is away at start or goes away later does not stop the mount', async (t) => {
  const net = await withNetwork(t, { hosts: 3 });
  const client = await net.newClient('a');
  const words = await client.phrase();
  const mount = await client.mount();
  writeFileSync(join(mount, 'one'), 'one');
  await client.flush();

  await net.bridge.kill();
  writeFileSync(join(mount, 'two'), 'while the bridge was away');
  t.equal(readFileSync(join(mount, 'one'), 'utf8'), 'one', 'reads go on');
  t.notOk((await client.untilStatus('the loss to be seen', (status) => !status.network.connected)).network.connected);
  await client.umount('--no-wait');

  await client.mount();
  t.strictSame(readdirSync(mount).sort(), ['one', 'two'], 'the mount works from local state');
  t.equal(readFileSync(join(mount, 'two'), 'utf8'), 'while the bridge was away');
  writeFileSync(join(mount, 'three'), 'after a mount without a bridge');
  mkdirSync(join(mount, 'dir'));
  const away = await client.status();
  t.equal(away.network.connected, false, 'the status says that the bridge is away');
  t.ok(away.problems.length > 0 && away.problems.every((problem) => problem.advice !== ''), 'and what to do');

  await net.bridge.start();
  await client.untilStatus('the mount to catch up', (status) => status.network.connected);
  await client.flush();
  t.equal((await client.status()).stagedBytes, 0, 'all is durable');
  await client.umount();

  const second = await net.recovered('b', words);
  const again = await second.mount();
  t.strictSame(readdirSync(again).sort(), ['dir', 'one', 'three', 'two']);
  t.equal(readFileSync(join(again, 'three'), 'utf8'), 'after a mount without a bridge');
  await second.umount();
});

await t.test('umount --no-wait leaves staged work for the next mount; hosts that come back get it', async (t) => {
  const net = await withNetwork(t, { hosts: 3 });
  const client = await net.newClient('a');
  const mount = await client.mount();
  await Promise.all(net.hosts.map((host) => host.kill()));
  writeFileSync(join(mount, 'file'), Buffer.alloc(3_000_000, 'abc'));
  t.ok((await client.status()).stagedBytes > 0, 'it is on this machine only');
  await client.umount('--no-wait');
  t.strictSame(readdirSync(mount), [], 'unmounted at once');
  await client.mount();
  t.ok(readFileSync(join(mount, 'file')).equals(Buffer.alloc(3_000_000, 'abc')), 'it is still there');
  await Promise.all(net.hosts.map((host) => host.start()));
  await client.flush();
  t.equal((await client.status()).stagedBytes, 0, 'and is uploaded after the restart');
  await client.umount();
});

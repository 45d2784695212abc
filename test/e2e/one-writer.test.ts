// One volume on two machines: one writes, the other follows, and nobody's work is lost when they change.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { withNetwork } from '../support/network.ts';
import { until } from '../support/run.ts';

t.setTimeout(600_000);

const net = await withNetwork(t, { hosts: 3 });
const a = await net.newClient('a');
const words = await a.phrase();
const b = await net.recovered('b', words);

/** The content of a file, or undefined while it is not there. */
function content(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

/** Waits for a listing: the kernel is told of it after the names that a program may have looked up. */
async function untilListed(path: string, names: readonly string[]): Promise<void> {
  const isSame = (): boolean => JSON.stringify(readdirSync(path).sort()) === JSON.stringify(names);
  await until(`${path} to hold ${names.length === 0 ? 'nothing' : names.join()}`, isSame);
}

await t.test('the second device is read-only and follows live', async (t) => {
  const writer = await a.mount();
  mkdirSync(join(writer, 'dir'));
  writeFileSync(join(writer, 'dir/first'), 'one');
  await a.flush();

  const reader = await b.mount();
  const status = await b.status();
  t.equal(status.writer, false, 'it is not the writer');
  t.equal(status.leaseHolder, (await a.status()).device, 'and knows who is');
  await until('the first file to appear', () => content(join(reader, 'dir/first')) === 'one');
  t.throws(() => writeFileSync(join(reader, 'dir/mine'), 'x'), { code: 'EROFS' }, 'it cannot write');
  t.throws(() => mkdirSync(join(reader, 'mine')), { code: 'EROFS' });
  for (let n = 0; n < 2; n++) t.strictSame(readdirSync(join(reader, 'dir')), ['first'], 'which the kernel keeps');
  t.throws(() => unlinkSync(join(reader, 'dir/first')), { code: 'EROFS' });

  writeFileSync(join(writer, 'dir/second'), 'x'.repeat(3_000_000));
  writeFileSync(join(writer, 'dir/first'), 'changed');
  await a.flush();
  await until('changed content to appear', () => content(join(reader, 'dir/first')) === 'changed');
  await until('a new file to appear', () => content(join(reader, 'dir/second'))?.length === 3_000_000);
  await untilListed(join(reader, 'dir'), ['first', 'second']);

  renameSync(join(writer, 'dir/second'), join(writer, 'third'));
  rmSync(join(writer, 'dir/first'));
  await a.flush();
  await until('a removed file to go', () => !existsSync(join(reader, 'dir/first')));
  await until('a renamed file to move', () => existsSync(join(reader, 'third')));
  await untilListed(join(reader, 'dir'), []);
  t.equal(statSync(join(reader, 'third')).size, 3_000_000);
});

await t.test('the second device takes over when the first lets go', async (t) => {
  await a.umount();
  await b.untilStatus('b to become the writer', (status) => status.writer);
  writeFileSync(join(b.mountPoint, 'from b'), 'written after the change');
  await b.flush();

  const follower = await a.mount();
  t.equal((await a.status()).writer, false, 'the first device follows now');
  await until('the work of b on a', () => content(join(follower, 'from b')) === 'written after the change');
  t.throws(() => writeFileSync(join(follower, 'mine'), 'x'), { code: 'EROFS' });
});

await t.test('--take-over fences the writer; its staged work is kept, named and never published', async (t) => {
  // Nothing of b can become durable while the hosts are away. What has no contents needs no host, so
  // that bytes come first: all that follows waits behind them.
  await Promise.all(net.hosts.map((host) => host.stop()));
  writeFileSync(join(b.mountPoint, 'from b'), 'staged over it', { flag: 'r+' });
  writeFileSync(join(b.mountPoint, 'staged on b'), 'only on this machine');
  mkdirSync(join(b.mountPoint, 'folder of b'));

  await a.umount('--no-wait');
  await a.mount('--take-over');
  await a.untilStatus('a to become the writer', (status) => status.writer);
  const loser = await b.untilStatus('b to see that it lost', (status) => !status.writer && status.setAside.length > 0);
  const [kept] = loser.setAside;
  t.ok(kept && existsSync(kept.path), 'what b had staged is on its disk');
  t.ok(kept && kept.path.startsWith(b.home), 'below its home');
  t.throws(() => writeFileSync(join(b.mountPoint, 'more'), 'x'), { code: 'EROFS' }, 'b cannot write any more');

  await Promise.all(net.hosts.map((host) => host.start()));
  writeFileSync(join(a.mountPoint, 'from a'), 'the winner');
  await a.flush();
  await until('b to follow a', () => content(join(b.mountPoint, 'from a')) === 'the winner');
  t.notOk(existsSync(join(a.mountPoint, 'staged on b')), 'staged work was not published');
  t.notOk(existsSync(join(a.mountPoint, 'folder of b')));
  t.equal(content(join(b.mountPoint, 'from b')), 'written after the change', 'what was published before stays');

  await b.umount();
  await b.mount();
  const again = await b.status();
  t.ok(
    again.setAside.some((one) => one.path === kept?.path),
    'still named after a restart',
  );
  t.ok(kept && existsSync(kept.path), 'and still there');
  await b.umount();
  await a.umount();

  const third = await net.recovered('c', words);
  await third.mount();
  t.equal(content(join(third.mountPoint, 'from a')), 'the winner');
  t.notOk(existsSync(join(third.mountPoint, 'staged on b')), 'nor is it in the volume');
  await third.umount();
});

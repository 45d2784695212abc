// The network goes away under a volume in use, and comes back.

import t from 'tap';
import { ERRNO, errnoOf } from '../../src/lib/errors.ts';
import { Random, pickSeed } from '../support/random.ts';
import { ROOT, until, World } from './device.ts';

t.setTimeout(300_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

await t.test(
  'without bridge and hosts all names and cached bytes are there, other bytes are EIO, and all resumes',
  async (t) => {
    const world = await World.start(t, 2);
    const device = await (await world.volume()).device(t).on();
    await device.becomesWriter();
    const cached = random.bytes(100_000);
    const evicted = random.bytes(100_000);
    await device.write('evicted', evicted);
    await device.flush();
    await device.write('cached', cached);
    await device.flush();
    const { tree, files, reader } = device.mounted.volume;
    const shard = tree.extents.spans((await device.ino('evicted'))!, 0, 1)[0]!.shard;
    await files.drop(shard);
    reader.forget(shard);

    await world.stopHost(0);
    await world.stopHost(1);
    await world.stopBridge();
    await until('the loss is seen', () => !device.sync.connected);
    // what the kernel asks for ls and df is answered in the turn in which it is asked
    const { fs } = device;
    for (const answer of [fs.lookup(ROOT, 'evicted'), fs.getattr(ROOT), fs.statfs()]) {
      t.notOk(answer instanceof Promise, 'names, attributes and room wait for nothing');
    }
    const folder = await fs.opendir(ROOT);
    t.equal((await fs.readdir(ROOT, folder, 0n, 10, true)).length, 4, 'a listing');
    await fs.releasedir(ROOT, folder);
    t.ok((await device.read('cached'))!.equals(cached), 'cached bytes');
    await device.write('meanwhile', 'written while nobody answers');
    t.equal(await device.text('meanwhile'), 'written while nobody answers');
    const failure: unknown = await device.read('evicted').catch((error: unknown) => error);
    t.ok(failure instanceof Error && errnoOf(failure) === ERRNO.EIO, 'other bytes are EIO, after their deadline');

    await world.startBridge();
    await world.startHost(0);
    await world.startHost(1);
    await until('the bridge is back', () => device.sync.connected);
    await until(
      'the hosts are back',
      async () => (await device.read('evicted').catch(() => null))?.equals(evicted) ?? false,
    );
    await device.flush();
    t.equal(device.mounted.stagedBytes, 0, 'what was written meanwhile is durable');
  },
);

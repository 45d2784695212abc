// What is written and removed while nothing can be published gives its room back, and costs neither the log nor what is
// still needed anything.

import { cpSync, rmSync } from 'node:fs';
import t from 'tap';
import { pickSeed, Random } from '../support/random.ts';
import { ROOT, unreachable, until, World } from './device.ts';
import type { Device } from './device.ts';
import { check, Kills } from './run-fsck.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const MIB = 2 ** 20;

t.setTimeout(240_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

const world = await World.start(t, 2);

/** A bridge that takes nothing. */
const nothingGoes = {
  upload: (): Promise<never> => Promise.reject(unreachable()),
  append: (): Promise<never> => Promise.reject(unreachable()),
};

/** Bytes of the local cache. */
function used(device: Device): number {
  return device.mounted.volume.files.usedBytes;
}

await t.test('offline work that was removed gives its room back, and the rest is published', async (t) => {
  const volume = await world.volume();
  const device = volume.device(t, { leastDeadBytes: MIB, entryTargetBytes: 2_000 });
  await device.on();
  await device.becomesWriter();
  await device.flush();
  device.wrap = () => nothingGoes;
  const kept = random.bytes(300_000);
  // changes of which an entry could not hold all
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 4; n++) await device.write(`passing ${n}`, random.bytes(3 * MIB));
    await device.write(`kept ${round}`, kept);
    for (let n = 0; n < 4; n++) await device.fs.unlink(ROOT, `passing ${n}`);
  }
  await device.mounted.volume.segments.seal();
  // some of them are being tried just now
  await until('most of the room is back', () => used(device) <= 22 * MIB);
  for (let round = 0; round < 3; round++) t.ok((await device.read(`kept ${round}`))?.equals(kept));

  await device.off();
  t.equal((await check(device, false)).state, 'clean');
  device.wrap = () => ({});
  await device.on();
  await device.becomesWriter();
  await device.write('later', 'after it');
  await device.flush();
  const other = await volume.device(t).on();
  t.strictSame(await other.names(), ['kept 0', 'kept 1', 'kept 2', 'later']);
  t.strictSame(await other.records(), await device.records());
  for (let round = 0; round < 3; round++) t.ok((await other.read(`kept ${round}`))?.equals(kept));
  await other.off();
  await device.off();
});

await t.test('bytes that an entry needs stay until it is published', async (t) => {
  const volume = await world.volume();
  // an entry must end between the making and the removal
  const device = volume.device(t, { leastDeadBytes: 1, maxRunBytes: 1 });
  await device.on();
  await device.becomesWriter();
  await device.flush();
  device.wrap = () => nothingGoes;
  await device.write('passing', random.bytes(3 * MIB));
  await device.store.commit();
  await device.fs.unlink(ROOT, 'passing');
  await device.mounted.volume.segments.seal();
  await device.store.commit();
  // it looks every two seconds
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  t.ok(used(device) >= 3 * MIB);
  device.wrap = () => ({});
  await device.flush();
  await device.off();
});

await t.test('a kill while segments are freed leaves what is needed, and no more work than before', async (t) => {
  const volume = await world.volume();
  const folder = `${world.dir}/killed`;
  const kills = new Kills(folder, isLong ? 1 : 4, random);
  const { disk, guard } = kills.watched;
  const { onPoint } = kills.watched;
  kills.watched.onPoint = () => undefined;
  const device = volume.device(t, { leastDeadBytes: MIB, folder, watched: { disk, guard } });
  await device.on();
  await device.becomesWriter();
  await device.flush();
  device.wrap = () => nothingGoes;
  const kept = random.bytes(50_000);
  await device.write('passing', random.bytes(9 * MIB));
  await device.write('kept', kept);
  await device.mounted.volume.segments.seal();
  await device.fs.unlink(ROOT, 'passing');
  await device.store.commit();
  kills.watched.onPoint = onPoint;
  await until('it is freed', () => used(device) < 4 * MIB);
  kills.watched.onPoint = () => undefined;
  await device.off();
  t.ok(kills.left.length > 0);
  for (const { dir, what } of kills.left) {
    rmSync(device.dir, { recursive: true });
    cpSync(dir, device.dir, { recursive: true });
    rmSync(dir, { recursive: true });
    t.equal((await check(device, false)).state, 'clean', what);
    await device.on({ readOnly: true });
    t.ok((await device.read('kept'))?.equals(kept), what);
    t.strictSame(await device.names(), ['kept']);
    await device.off();
  }
});

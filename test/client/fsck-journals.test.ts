// What only the journals of close(2) and fsync(2) hold when the index is damaged as well: a repair carries it over, or
// says what it could not use and keeps it.

import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { pickSeed, Random } from '../support/random.ts';
import { until, World } from './device.ts';
import type { Device, Volume } from './device.ts';
import { check, compare, Kills, NOTHING } from './run-fsck.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';

t.setTimeout(600_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);
const readOnly = true;

/** What a power cut left of a device. */
interface Left {
  readonly volume: Volume;
  readonly dir: string;
  /** The same after an fsync, without the journal of close(2), and without any of the bytes. */
  readonly fsynced: string;
  readonly files: ReadonlyMap<string, Buffer>;
  /** Of LevelDB's log: its size when all was synced, and after each synced batch. */
  readonly logBytes: readonly number[];
}

function logIn(index: string): string {
  const logs = readdirSync(index).filter((name) => name.endsWith('.log'));
  return join(index, logs.sort().at(-1)!);
}

function onlyFileIn(cache: string): string {
  const names = readdirSync(cache, { recursive: true, encoding: 'utf8' }).filter((name) => name.includes('/'));
  const newest = names.sort((a, b) => Number.parseInt(a.split('/')[1]!, 16) - Number.parseInt(b.split('/')[1]!, 16));
  return join(cache, newest.at(-1)!);
}

/**
 * Files that were published, that lie in the index, in the sync journal only, and in the journal of close(2) only; the
 * bytes that were synced through the journal are gone from their segment.
 */
async function cutOff(world: World): Promise<Left> {
  const volume = await world.volume();
  const device = await volume.device(t).on();
  await device.becomesWriter();
  const files = new Map<string, Buffer>();
  const write = async (name: string): Promise<void> => {
    const content = random.bytes(random.between(1_000, 20_000));
    files.set(name, content);
    await device.write(name, content);
  };
  for (let n = 0; n < 5; n++) await write(`published ${n}`);
  await device.flush();
  // what was in LevelDB's log goes into a table
  await device.off();
  await device.on();
  await device.becomesWriter();
  const index = join(device.dir, 'current/index');
  const journal = join(device.dir, 'current/sync-journal');
  await device.store.commit(true);
  const isUsed = async (): Promise<boolean> => {
    await write('first');
    await device.store.commit(true);
    return existsSync(journal) && readFileSync(journal).subarray(0, 4).toString() === 'XCJ2';
  };
  const logBytes = [statSync(logIn(index)).size];
  await until('the sync journal is in use', async () => {
    if (await isUsed()) return true;
    logBytes[0] = statSync(logIn(index)).size;
    return false;
  });
  await write('indexed');
  await device.store.commit(true);
  logBytes.push(statSync(logIn(index)).size);
  const before = device.copy();
  const segment = onlyFileIn(join(before, 'current/cache'));
  for (let n = 0; n < 3; n++) {
    await write(`synced ${n}`);
    await device.store.commit(true);
  }
  const syncedBytes = statSync(onlyFileIn(join(device.dir, 'current/cache'))).size;
  for (let n = 0; n < 3; n++) await write(`closed ${n}`);
  // in the same turn, before a batch
  const dir = device.copy();
  await device.fs.fsync(1, 0, false);
  const fsynced = device.copy();
  await device.off();
  // the power took what LevelDB did not sync, and the bytes
  for (const copy of [dir, fsynced]) {
    for (const name of readdirSync(join(copy, 'current/index'))) {
      if (name !== 'journal') rmSync(join(copy, 'current/index', name));
    }
    for (const name of readdirSync(join(before, 'current/index'))) {
      if (name !== 'journal') cpSync(join(before, 'current/index', name), join(copy, 'current/index', name));
    }
    const there = segment.replace(before, copy);
    const lost = statSync(segment).size;
    writeFileSync(there, readFileSync(there).fill(0, lost, copy === dir ? syncedBytes : undefined));
  }
  rmSync(join(fsynced, 'current/index/journal'));
  rmSync(before, { recursive: true });
  return { volume, dir, fsynced, files, logBytes };
}

const world = await World.start(t, 2);
const left = await cutOff(world);

function deviceWith(damage: (current: string) => void): Device {
  const device = left.volume.device(t, { copyOf: left.dir });
  damage(join(device.dir, 'current'));
  return device;
}

async function found(device: Device): Promise<Awaited<ReturnType<typeof compare>>> {
  await device.on({ readOnly });
  const result = await compare(device, left.files);
  await device.off();
  return result;
}

function flipIn(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(path, bytes);
}

const withoutCurrent = (current: string): void => rmSync(join(current, 'index/CURRENT'));

await t.test('a start finds all of it', async (t) => {
  t.strictSame(await found(deviceWith(() => undefined)), NOTHING);
});

await t.test('a repair carries over what only the journals hold, however LevelDB is damaged', async (t) => {
  const damages: [string, (current: string) => void][] = [
    [
      'a table is damaged',
      (current) => {
        const tables = readdirSync(join(current, 'index')).filter((name) => name.endsWith('.ldb'));
        t.ok(tables.length > 0);
        for (const name of tables) flipIn(join(current, 'index', name), 100);
      },
    ],
    [
      'the end of the log is gone, and CURRENT',
      (current) => {
        truncateSync(logIn(join(current, 'index')), left.logBytes[0]);
        withoutCurrent(current);
      },
    ],
  ];
  for (const [what, damage] of damages) {
    const device = deviceWith(damage);
    const report = await check(device, true);
    t.equal(report.state, 'repaired', `${what}: ${[...report.left.map(({ message }) => message)].join('; ')}`);
    t.comment(`${what}: ${report.repairs.join('; ')}; ${report.notCarried.join('; ')}`);
    t.strictSame(await found(device), NOTHING, what);
    if (what !== 'a table is damaged') t.strictSame([report.setAside, report.notCarried], [null, []], what);
  }
});

await t.test('a repair carries over what an fsync left in the sync journal alone', async (t) => {
  const device = left.volume.device(t, { copyOf: left.fsynced });
  withoutCurrent(join(device.dir, 'current'));
  const report = await check(device, true);
  t.strictSame([report.state, report.setAside, report.notCarried], ['repaired', null, []]);
  t.strictSame(await found(device), NOTHING);
});

await t.test('what cannot be used is said and kept', async (t) => {
  const synced = [...left.files].filter(([name]) => /^(?:synced|closed)/.test(name));
  const rest = new Map([...left.files].filter(([name]) => !/^(?:synced|closed)/.test(name)));
  const cases: [string, (current: string) => void, string[]][] = [
    [
      'the sync journal is damaged at its start',
      (current) => flipIn(join(current, 'sync-journal'), 200),
      synced.map(([name]) => name),
    ],
    [
      'the journal is damaged at its start',
      (current) => flipIn(join(current, 'index/journal'), 60),
      synced.map(([name]) => name).filter((name) => name.startsWith('closed')),
    ],
  ];
  for (const [what, damage, gone] of cases) {
    const device = deviceWith((current) => {
      withoutCurrent(current);
      damage(current);
    });
    const before = readFileSync(join(device.dir, 'current/sync-journal'));
    const report = await check(device, true);
    t.equal(report.state, 'repaired', what);
    t.ok(report.notCarried.length > 0, `${what}: ${report.notCarried.join('; ')}`);
    t.ok(report.setAside !== null && readFileSync(join(report.setAside, 'sync-journal')).equals(before), 'it is kept');
    await device.on({ readOnly });
    t.strictSame(await compare(device, rest), NOTHING, 'all else is there');
    t.strictSame((await compare(device, left.files)).missing.sort(), gone.sort());
    await device.off();
  }
});

await t.test('a start does not take an index that lost what was synced for whole', async (t) => {
  const device = deviceWith((current) => {
    flipIn(join(current, 'sync-journal'), 200);
  });
  await t.rejects(device.on({ readOnly }), { code: 'CORRUPT_RECORD', message: /fsck --repair/ });
  await device.off();
});

await t.test('a repair that is killed at any call loses nothing of it, begun anew', async (t) => {
  const device = deviceWith(withoutCurrent);
  const kills = new Kills(device.dir, isLong ? 1 : 40, random);
  const { disk, guard } = kills.watched;
  t.equal((await check(device, true, true, { disk, guard })).state, 'repaired');
  t.comment(`${kills.watched.points} calls, ${kills.left.length} kills`);
  for (const { dir, what } of kills.left) {
    rmSync(device.dir, { recursive: true });
    cpSync(dir, device.dir, { recursive: true });
    rmSync(dir, { recursive: true });
    const report = await check(device, true);
    t.not(report.state, 'damaged', what);
    t.strictSame([report.setAside, report.notCarried], [null, []], what);
    t.strictSame(await found(device), NOTHING, what);
  }
});

// Bits that change on the local disk: never a wrong byte to a reader, found by a check, and repaired from
// the log and the hosts, with what only this machine had.

import { cpSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import t from 'tap';
import { hasCode } from '../../src/lib/errors.ts';
import { inodeKey, keyBytes } from '../../src/tree/keys.ts';
import { pickSeed, Random } from '../support/random.ts';
import { unreachable, until, World } from './device.ts';
import type { Device, Volume } from './device.ts';
import { check, compare, Kills, NOTHING } from './run-fsck.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const INDEX_ROUNDS = isLong ? 200 : 12;
/** What nobody has is asked for so long. */
const FETCH_TIMEOUT_MS = 5_000;

t.setTimeout(isLong ? 3_600_000 : 600_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);

/** Published files, and files that only this device has. */
interface Files {
  readonly published: Map<string, Buffer>;
  readonly staged: Map<string, Buffer>;
}

async function fill(device: Device): Promise<Files> {
  const files: Files = { published: new Map(), staged: new Map() };
  for (let n = 0; n < 12; n++) files.published.set(`published ${n}`, random.bytes(random.between(1, 60_000)));
  files.published.set('large', random.bytes(3_000_000));
  for (const [name, content] of files.published) await device.write(name, content);
  await device.flush();
  for (let n = 0; n < 6; n++) files.staged.set(`staged ${n}`, random.bytes(random.between(1, 60_000)));
  for (const [name, content] of files.staged) await device.write(name, content);
  return files;
}

function flip(path: string, flips = 1): void {
  const bytes = readFileSync(path);
  for (let n = 0; n < flips; n++) {
    const at = random.below(bytes.length);
    bytes[at] = bytes[at]! ^ (1 << random.below(8));
  }
  writeFileSync(path, bytes);
}

function shardFilesOf(device: Device): string[] {
  const cache = join(device.dir, 'current/cache');
  return readdirSync(cache, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('/'))
    .map((name) => join(cache, name));
}

const world = await World.start(t, 2);

/** A device with files, off. */
async function prepared(volume: Volume): Promise<{ device: Device; files: Files }> {
  const device = await volume.device(t, { fetchTimeoutMs: FETCH_TIMEOUT_MS }).on();
  await device.becomesWriter();
  const files = await fill(device);
  await device.off();
  return { device, files };
}

await t.test('a sound volume is clean, with what is staged, and a repair leaves it alone', async (t) => {
  const { device, files } = await prepared(await world.volume());
  const report = await check(device, true);
  t.strictSame(report.findings, []);
  t.equal(report.state, 'clean');
  t.strictSame(report.repairs, []);
  t.ok(report.checked!.logEntries > 0 && report.checked!.unpublished > 0 && report.checked!.localFiles > 0);
  const offline = await check(device, false, false);
  t.equal(offline.state, 'clean');
  t.equal(offline.notChecked.length, 1, 'what was not looked at is said');
  await device.on();
  t.strictSame(await compare(device, new Map([...files.published, ...files.staged])), NOTHING);
  await t.rejects(check(device, false), { code: 'HOME_LOCKED' }, 'not while it is mounted');
  await device.off();
});

await t.test('flips in cached shards reach no reader: another mirror is used, or it is EIO and said', async (t) => {
  const { device, files } = await prepared(await world.volume());
  const all = new Map([...files.published, ...files.staged]);
  const sound = device.copy();
  for (let round = 0; round < 3; round++) {
    for (const path of shardFilesOf(device)) flip(path, 3);
    const found = await check(device, false);
    t.equal(found.state, 'damaged');
    t.ok(found.findings.some(({ area, remedy }) => area === 'files' && remedy === 'refetch'));
    t.ok(found.lostFiles.length > 0 && found.lostFiles.every((name) => files.staged.has(name.slice(1))));
    // what it published of the rest would be news to the copy
    await device.on({ readOnly: true });
    const read = await compare(device, all);
    t.strictSame([read.wrong, read.missing], [[], []], 'no wrong byte');
    t.ok(
      read.failed.every((name) => files.staged.has(name)),
      'what hosts have is whole',
    );
    t.ok(read.failed.length > 0, 'what only this disk had is an error');
    t.match(device.problem('CORRUPT_SHARD'), /damaged/, 'which the status names');
    await device.off();
    rmSync(device.dir, { recursive: true });
    cpSync(sound, device.dir, { recursive: true });
  }
  for (const path of shardFilesOf(device).slice(0, 1)) flip(path, 3);
  const repaired = await check(device, true);
  t.equal(repaired.state, 'repaired', repaired.left.map(({ message }) => message).join());
  await device.on();
  t.strictSame(await compare(device, all), NOTHING);
  await device.off();
});

await t.test(
  'what only this machine had, and lost, is EIO at once; a host that has it all the same gives it',
  async (t) => {
    const volume = await world.volume();
    const device = await volume.device(t).on();
    await device.becomesWriter();
    await device.write('published', 'on hosts');
    await device.flush();
    const before = new Set(shardFilesOf(device));
    const loseStaged = async (): Promise<void> => {
      await device.off();
      for (const path of shardFilesOf(device)) if (!before.has(path)) rmSync(path);
    };
    await device.write('lost', 'on this disk');
    await loseStaged();
    const asked: string[] = [];
    device.wrap = () => ({
      fetchShard: () => Promise.reject((asked.push('shard'), unreachable())),
      fetchLeaves: () => Promise.reject((asked.push('leaves'), unreachable())),
    });
    await device.on();
    await t.rejects(device.read('lost'), { code: 'EIO' });
    t.strictSame(asked, [], 'no host was asked for it');
    t.match(device.problem('CORRUPT_SHARD'), /only this machine had/, 'the status names it');
    await device.becomesWriter();
    await device.flush();
    t.equal(await device.text('published'), 'on hosts', 'and nothing waits for it');

    let uploads = 0;
    device.wrap = (real) => ({
      upload: async (...args) => {
        await real.upload(...args);
        uploads++;
        throw unreachable();
      },
    });
    await device.write('unacknowledged', 'on hosts, too');
    await device.mounted.volume.segments.seal();
    await until('hosts have it', () => uploads > 0);
    await loseStaged();
    await device.on();
    await until('the bridge is there', () => device.sync.connected);
    t.equal(await device.text('unacknowledged'), 'on hosts, too');
    await device.off();
  },
);

await t.test('flips in the files of the index are found and repaired, with what was staged', async (t) => {
  const { device, files } = await prepared(await world.volume());
  const all = new Map([...files.published, ...files.staged]);
  // from its log into a table
  t.equal((await check(device, false, false)).state, 'clean');
  const sound = device.copy();
  const counts = { refused: 0, harmless: 0, repaired: 0, setAside: 0 };
  for (let round = 0; round < INDEX_ROUNDS; round++) {
    const index = join(device.dir, 'current/index');
    const kinds = [/\.ldb$/, /\.log$/, /^MANIFEST/, /^CURRENT$/].filter((kind) =>
      readdirSync(index).some((name) => kind.test(name) && readFileSync(join(index, name)).length > 0),
    );
    const kind = kinds[round % kinds.length]!;
    const name = random.pick(
      readdirSync(index).filter((each) => kind.test(each) && readFileSync(join(index, each)).length > 0),
    );
    const how = random.below(4);
    if (how === 0) rmSync(join(index, name));
    else flip(join(index, name), [1, 1, 8, 64][how]);
    const what = `round ${round}: ${name}, ${how === 0 ? 'removed' : `${[1, 1, 8, 64][how]} flips`}`;

    const damaged = device.copy();
    // what it published would be news to the next round's copy
    const readOnly = true;
    try {
      await device.on({ readOnly });
      const read = await compare(device, all);
      t.strictSame(read.wrong, [], `${what}: no wrong byte`);
    } catch (error) {
      counts.refused++;
      const message = (error as Error).message;
      t.ok(hasCode(error, 'CORRUPT_RECORD') && /xcore fsck --repair/.test(message), `${what}: ${message}`);
    }
    await device.off();
    rmSync(device.dir, { recursive: true });
    cpSync(damaged, device.dir, { recursive: true });
    rmSync(damaged, { recursive: true });

    const report = await check(device, true);
    t.not(report.state, 'damaged', `${what}: ${report.left.map(({ message }) => message).join('; ')}`);
    if (report.state === 'clean') counts.harmless++;
    else counts.repaired++;
    if (report.setAside !== null) {
      counts.setAside++;
      t.ok(existsSync(join(report.setAside, 'index')), `${what}: the old state is kept`);
    }
    await device.on({ readOnly });
    t.strictSame(await compare(device, files.published), NOTHING, `${what}: what was published is there`);
    const staged = await compare(device, files.staged);
    t.strictSame(staged.wrong, []);
    if (report.setAside === null) t.strictSame(staged, NOTHING, `${what}: what was staged is there, or set aside`);
    await device.off();
    rmSync(device.dir, { recursive: true });
    cpSync(sound, device.dir, { recursive: true });
  }
  t.comment(JSON.stringify(counts));
  t.ok(counts.repaired > counts.setAside, 'staged work can be carried over');
});

await t.test(
  'a damaged record is EIO for whoever needs it, a line in the status, and nothing for the others',
  async (t) => {
    const { device, files } = await prepared(await world.volume());
    await device.on();
    const ino = (await device.ino('staged 1'))!;
    await device.off();
    const db = new Level<Buffer, Buffer>(join(device.dir, 'current/index'), {
      ...{ keyEncoding: 'buffer', valueEncoding: 'buffer' },
    });
    const key = keyBytes(inodeKey(ino));
    const value = await db.get(key);
    value[30]! ^= 1;
    await db.put(key, value);
    await db.close();
    await device.on();
    const read = await compare(device, new Map([...files.published, ...files.staged]));
    t.strictSame(read, { missing: [], failed: ['staged 1'], wrong: [] });
    // what a late host does may be told as well
    const told = device.problems.list().filter(({ code }) => code === 'CORRUPT_RECORD');
    t.match(told, [{ advice: /xcore fsck --repair/ }]);
    await device.off();
    t.equal((await check(device, true)).state, 'repaired');
    await device.on();
    t.strictSame(await compare(device, new Map([...files.published, ...files.staged])), NOTHING);
    await device.off();
  },
);

await t.test('a volume of the first format is brought to the newest', async (t) => {
  const { device, files } = await prepared(await world.volume());
  const file = join(device.dir, 'current/volume.json');
  const db = new Level<Buffer, Buffer>(join(device.dir, 'current/index'), { keyEncoding: 'buffer' });
  await db.clear({ gte: Buffer.from('t'), lt: Buffer.from('u') });
  await db.close();
  rmSync(join(device.dir, 'current/index/closed.json'));
  rmSync(join(device.dir, 'current/index/journal'));
  rmSync(join(device.dir, 'current/sync-journal'), { force: true });
  writeFileSync(file, readFileSync(file, 'utf8').replace('"version": 3', '"version": 1'));
  await device.on();
  t.strictSame(await compare(device, new Map([...files.published, ...files.staged])), NOTHING);
  await device.off();
  t.match(readFileSync(file, 'utf8'), '"version": 3');
  t.equal((await check(device, false)).state, 'clean');
});

await t.test('what a repair carried over is published, and reaches another device', async (t) => {
  const volume = await world.volume();
  const { device, files } = await prepared(volume);
  writeFileSync(join(device.dir, 'current/index/CURRENT'), 'nonsense');
  t.equal((await check(device, false)).state, 'damaged');
  await t.rejects(check(device, true, false), { code: 'UNREACHABLE' }, 'a repair needs the log');
  const report = await check(device, true);
  t.equal(report.state, 'repaired');
  await device.on();
  await device.becomesWriter();
  await device.write('after', 'the repair');
  await device.flush();
  const other = await volume.device(t).on();
  t.equal(report.setAside, null);
  t.strictSame(await compare(other, new Map([...files.published, ...files.staged])), NOTHING);
  t.equal(await other.text('after'), 'the repair');
  await other.off();
  await device.off();
});

await t.test('a repair that is killed at any call can be run again, and ends in the same tree', async (t) => {
  const { device, files } = await prepared(await world.volume());
  const all = new Map([...files.published, ...files.staged]);
  writeFileSync(join(device.dir, 'current/index/CURRENT'), 'nonsense');
  const kills = new Kills(device.dir, isLong ? 1 : 10, random);
  const { disk, guard } = kills.watched;
  t.equal((await check(device, true, true, { disk, guard })).state, 'repaired');
  t.comment(`${kills.watched.points} calls, ${kills.left.length} kills`);
  t.ok(kills.left.some(({ what }) => / rename \/current$/.test(what)) && kills.left.length > 2);
  const readOnly = true;
  await device.on({ readOnly });
  const wanted = await device.records();
  await device.off();
  for (const { dir, what } of kills.left) {
    rmSync(device.dir, { recursive: true });
    cpSync(dir, device.dir, { recursive: true });
    rmSync(dir, { recursive: true });
    const report = await check(device, true);
    t.not(report.state, 'damaged', what);
    t.equal(report.setAside, null, what);
    await device.on({ readOnly });
    t.strictSame(await device.records(), wanted, `${what}: the same tree`);
    t.strictSame(await compare(device, all), NOTHING, `${what}: the same bytes`);
    await device.off();
  }
});

await t.test('a first reading of the log that is killed at any call goes on at the next start', async (t) => {
  const volume = await world.volume();
  const a = await volume.device(t, { checkpointLogBytes: 4_000 }).on();
  for (let n = 0; a.tree.head.checkpointSeq === 0 && n < 50; n++) {
    await a.write(`file ${n}`, random.bytes(2_000));
    await a.flush();
  }
  await a.write('last', 'after the checkpoint');
  await a.flush();
  t.ok(a.tree.head.checkpointSeq > 0);
  const wanted = await a.records();
  const device = volume.device(t);
  const kills = new Kills(device.dir, isLong ? 1 : 3, random);
  const { disk, guard } = kills.watched;
  const b = volume.device(t, { watched: { disk, guard }, folder: device.dir });
  await b.on();
  await b.reaches(a);
  await b.off();
  t.comment(`${kills.watched.points} calls, ${kills.left.length} kills`);
  t.ok(kills.left.length > 1);
  for (const { dir, what } of kills.left) {
    const again = volume.device(t, { copyOf: dir });
    await again.on();
    await again.reaches(a);
    t.strictSame(await again.records(), wanted, what);
    t.equal(await again.text('last'), 'after the checkpoint', what);
    await again.off();
  }
  await a.off();
});

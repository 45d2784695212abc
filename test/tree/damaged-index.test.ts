// Files of an index that were damaged in any way: LevelDB ends its process over some of them, and ours never does.
// XCORE_TEST_LONG=1: thousands of damages, and how many of them LevelDB itself survives.

import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { findDamagedTable, tablesIn } from '../../src/tree/check-tables.ts';
import { IndexDatabase } from '../../src/tree/index-database.ts';
import { openDatabase } from '../../src/tree/open-database.ts';
import { readInUse } from '../../src/tree/in-use.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import { copyAtOnce } from '../support/copy-at-once.ts';
import type { DamageMode } from '../support/damaged-child.ts';
import { pickSeed, Random } from '../support/random.ts';
import { CALLER, indexSealer, LINEAGE, openVolume, readAll, writeFileAt } from '../support/volume.ts';

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const CHILD = fileURLToPath(new URL('../support/damaged-child.ts', import.meta.url));

t.setTimeout(isLong ? 3_600_000 : 300_000);
const seed = pickSeed();
t.comment(`XCORE_TEST_SEED=${seed}`);
const random = new Random(seed);
const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'xc-damaged-'));
t.teardown(() => rmSync(root, { recursive: true, force: true }));

/** Copies an index that is in use at a moment in which no table is being written. */
async function copySound(from: string, to: string): Promise<void> {
  do {
    rmSync(to, { recursive: true, force: true });
    copyAtOnce(from, to);
  } while ((await findDamagedTable(to, tablesIn(to).now)) !== null);
}

/** An index of several tables and a log, as a process leaves it that was killed. */
async function prepare(): Promise<string> {
  const dir = join(root, 'sound');
  mkdirSync(dir);
  for (let round = 0; round < 4; round++) {
    const volume = await openVolume(dir);
    for (let n = 0; n < 250; n++) {
      const { ino } = await volume.vfs.mknod(1, `file ${round} ${n}`, 0o100644, 0, CALLER);
      if (n % 10 === 0) await volume.vfs.setxattr(ino, 'user.text', Buffer.alloc(3_000, 'text '), 0);
      if (n % 5 === 0) await volume.store.commit();
    }
    if (round === 3) await copySound(join(dir, 'index'), join(root, 'killed'));
    await volume.close();
  }
  return join(root, 'killed');
}

/** Where the checksum of a block is that LevelDB does not miss: the first that a table's footer names. */
function checksumIn(table: Buffer): number {
  let at = table.length - 48;
  const varint = (): number => {
    for (let [value, factor] = [0, 1]; ; factor *= 128) {
      const byte = table[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };
  return varint() + varint() + 1;
}

const killed = await prepare();

/** Lets processes do all damages, the next one behind that over which one ended; results, and those that ended one. */
async function damages(mode: DamageMode, count: number): Promise<{ results: Map<string, number>; deaths: string[] }> {
  const results = new Map<string, number>();
  const deaths: string[] = [];
  const scratch = join(root, mode);
  mkdirSync(scratch);
  for (let next = 0; next < count;) {
    const args = [CHILD, killed, scratch, seed, String(next), String(count), mode];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', isLong ? 'ignore' : 'inherit'] });
    t.teardown(() => child.kill('SIGKILL'));
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
      child.once('close', (...ended) => resolve(ended)),
    );
    let last = '';
    for (const line of output.split('\n')) {
      if (line.startsWith('= ')) results.set(line.slice(2), (results.get(line.slice(2)) ?? 0) + 1);
      if (/^\d/.test(line)) last = line;
    }
    next = Number.parseInt(last, 10) + 1;
    if (code !== 0) deaths.push(`${signal ?? code}: ${last}`);
    if (Number.isNaN(next)) break;
  }
  rmSync(scratch, { recursive: true, force: true });
  t.comment(`${mode}: ${JSON.stringify(Object.fromEntries(results))}, ${deaths.length} ends`);
  return { results, deaths };
}

await t.test('a sound index is opened, a damaged table is refused before LevelDB sees it', async (t) => {
  t.equal(readInUse(killed), 'left', 'a copy is nobody’s');
  const { now: tables } = tablesIn(killed);
  t.equal(await findDamagedTable(killed, tables), null);
  t.ok(tables.length > 0, `${tables.length} tables`);
  const dir = join(root, 'one');
  for (const name of tables) {
    const bytes = readFileSync(join(killed, name));
    const ends = [0, bytes.length - 1, bytes.length - 48, bytes.length - 9];
    for (const at of [...ends, ...Array.from({ length: 20 }, () => random.below(bytes.length))]) {
      cpSync(killed, dir, { recursive: true });
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1 << random.below(8);
      writeFileSync(join(dir, name), changed);
      const found = await findDamagedTable(dir, tables);
      // padding of a footer is nobody's
      if (found === null) t.ok(at >= bytes.length - 48 && at < bytes.length - 8, `${name}: ${at} of ${bytes.length}`);
      else t.equal(found.name, name);
      rmSync(dir, { recursive: true });
    }
  }
});

await t.test('a table that was being written when the process ended is in nobody’s way', async (t) => {
  const dir = join(root, 'half');
  cpSync(killed, dir, { recursive: true });
  for (const state of ['left', 'free']) {
    t.equal(readInUse(dir), state);
    writeFileSync(join(dir, '999990.ldb'), random.bytes(10_000));
    const store = await RecordStore.open(dir, indexSealer(), LINEAGE);
    t.ok(store.tally.records > 500);
    await store.close();
  }
});

await t.test('an index that is closed while LevelDB writes tables is opened again', async (t) => {
  const dir = join(root, 'busy');
  let halves = 0;
  for (let round = 0; round < 30 && halves < 2; round++) {
    const database = await IndexDatabase.open(dir);
    const keys: Buffer[] = [];
    for (let batch = 0; batch < 6; batch++) {
      const operations = Array.from({ length: 90 }, () => ({
        ...{ type: 'put' as const, key: random.bytes(8), value: random.bytes(50_000) },
      }));
      keys.push(...operations.map(({ key }) => key));
      await database.write(operations, false);
    }
    await database.close();
    if ((await findDamagedTable(dir, tablesIn(dir).now)) === null) continue;
    halves++;
    const opened = await openDatabase(dir, {});
    const missing = keys.filter((key) => opened.db.get(key) === undefined);
    t.equal(missing.length, 0, 'nothing is missing');
    await opened.close();
  }
  t.comment(`${halves} halves of tables`);
});

await t.test('an index in use is told from one that was left, and from one that was closed', async (t) => {
  const dir = join(root, 'used');
  const store = await RecordStore.open(dir, indexSealer(), LINEAGE);
  t.equal(readInUse(dir), 'held');
  cpSync(dir, `${dir}-copy`, { recursive: true });
  t.equal(readInUse(`${dir}-copy`), 'left');
  await t.rejects(RecordStore.open(dir, indexSealer(), LINEAGE), { code: 'HOME_LOCKED' });
  t.equal(readInUse(dir), 'held', 'also after somebody else tried');
  await store.close();
  t.equal(readInUse(dir), 'free');
  writeFileSync(join(dir, 'in-use'), '');
  t.equal(readInUse(dir), 'left');
  await (await RecordStore.open(dir, indexSealer(), LINEAGE)).close();
});

await t.test(
  'a hole is told once the tables are known to be whole, else it is EIO, and the damage is told',
  async (t) => {
    const dir = join(root, 'holes');
    mkdirSync(dir);
    const before = await openVolume(dir);
    const ino = await writeFileAt(before.vfs, 1, 'file', Buffer.alloc(10_000, 1));
    await before.vfs.setattr(ino, { sizeBytes: 5_000_000 });
    await before.close();
    // from the log into a table
    await (await openVolume(dir)).close();
    const damages: Error[] = [];
    const options = { checkedAtOpenBytes: 0, onIndexDamaged: (error: Error) => damages.push(error) };

    const sound = await openVolume(dir, options);
    t.ok((await readAll(sound.vfs, ino)).subarray(10_000).every((byte) => byte === 0));
    t.equal(sound.store.whole(), null, 'known from then on');
    t.equal(await sound.vfs.seek(ino, 0, true), 10_000);
    await sound.close();

    const [name = ''] = tablesIn(join(dir, 'index')).now;
    const table = readFileSync(join(dir, 'index', name));
    table[checksumIn(table)]! ^= 1;
    writeFileSync(join(dir, 'index', name), table);
    const damaged = await openVolume(dir, options);
    const { handle } = await damaged.vfs.open(ino, 0);
    t.equal(Buffer.concat(await damaged.vfs.read(ino, handle, 0, 10_000)).length, 10_000, 'what is there is read');
    await t.rejects(async () => damaged.vfs.read(ino, handle, 0, 20_000), { code: 'CORRUPT_RECORD' });
    await t.rejects(async () => damaged.vfs.seek(ino, 0, true), { code: 'CORRUPT_RECORD' });
    t.equal(damages.length, 1);
    await damaged.close();
    await t.rejects(
      openVolume(dir),
      { code: 'CORRUPT_RECORD', message: /xcore fsck --repair/ },
      'a small index at once',
    );
  },
);

await t.test(
  'whatever is damaged, no process ends: it is refused with the way to repair it, told, or used',
  async (t) => {
    const { results, deaths } = await damages('guarded', isLong ? 6_000 : 100);
    t.strictSame(deaths, []);
    t.strictSame(
      [...results.keys()].filter((result) => result.startsWith('failed')),
      [],
    );
    t.ok((results.get('refused') ?? 0) > 0 && (results.get('used') ?? 0) > 0);
  },
);

await t.test('whatever is damaged, a repair saves what it can and does not end', async (t) => {
  const { results, deaths } = await damages('salvage', isLong ? 600 : 6);
  t.strictSame(deaths, []);
  t.strictSame(
    [...results.keys()].filter((result) => result.startsWith('failed')),
    [],
  );
});

await t.test('LevelDB itself ends over some', { skip: !isLong && 'XCORE_TEST_LONG=1' }, async (t) => {
  const { deaths } = await damages('raw', 2_000);
  t.comment(deaths.slice(0, 20).join('\n'));
});

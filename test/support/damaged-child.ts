// Damages copies of an index, one after the other, and uses each as a mount or a repair would. Says before each which
// it is, and behind it what came of it, so that whoever started it knows over which it ended.

import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { hasCode } from '../../src/lib/errors.ts';
import { ALL_KEYS, KIND, xattrsKey } from '../../src/tree/keys.ts';
import { RecordStore } from '../../src/tree/record-store.ts';
import { salvage } from '../../src/tree/salvage.ts';
import { Random } from './random.ts';
import { indexSealer, LINEAGE } from './volume.ts';

/** `raw`: by LevelDB itself. */
export type DamageMode = 'raw' | 'guarded' | 'salvage';

const [template = '', scratch = '', seed = '', from = '0', to = '0', mode = ''] = process.argv.slice(2);
const KINDS = [/\.ldb$/, /\.ldb$/, /\.log$/, /^MANIFEST/, /^CURRENT$/];

/** Changes one file; says how. */
function damage(dir: string, random: Random): string {
  const kind = random.pick(KINDS);
  const names = readdirSync(dir).filter((name) => kind.test(name) && statSync(join(dir, name)).size > 0);
  if (names.length === 0) return 'nothing';
  const name = random.pick(names.sort());
  const path = join(dir, name);
  const bytes = readFileSync(path);
  // what tells where everything lies comes last in a table
  const start = random.below(2) === 0 ? 0 : Math.max(0, bytes.length - 600);
  const at = random.between(start, bytes.length);
  const how = random.pick(['flip', 'flip', 'flips', 'garbage', 'zeros', 'cut', 'gone'] as const);
  if (how === 'gone') {
    rmSync(path);
    return `${name} ${how}`;
  }
  if (how === 'cut') {
    truncateSync(path, at);
    return `${name} ${how} at ${at} of ${bytes.length}`;
  }
  const flips = how === 'flip' ? 1 : how === 'flips' ? random.between(2, 64) : 0;
  for (let n = 0; n < flips; n++) {
    const where = n === 0 ? at : random.between(start, bytes.length);
    bytes[where] = bytes[where]! ^ (1 << random.below(8));
  }
  if (how === 'zeros') bytes.fill(0, at, Math.min(at + 4_096, bytes.length));
  if (how === 'garbage') random.bytes(random.between(1, 200)).copy(bytes, at);
  writeFileSync(path, bytes);
  return `${name} ${how} at ${at} of ${bytes.length}`;
}

async function everyKey(dir: string): Promise<void> {
  const db = new Level<Buffer, Buffer>(dir, { keyEncoding: 'buffer', valueEncoding: 'buffer' });
  await db.open();
  try {
    for await (const [key] of db.iterator(ALL_KEYS)) db.getSync(key);
    for (let n = 0; n < 200; n++) await db.put(Buffer.from(`x${n}`), Buffer.alloc(2_000, n));
    await (db as unknown as { compactRange(start: Buffer, end: Buffer): Promise<void> }).compactRange(
      Buffer.alloc(1),
      Buffer.alloc(1, 255),
    );
  } finally {
    await db.close();
  }
}

async function guarded(dir: string): Promise<string> {
  const store = await RecordStore.open(dir, indexSealer(), LINEAGE).catch((error: unknown) => {
    if (hasCode(error, 'CORRUPT_RECORD') && /xcore fsck --repair/.test(error.message)) return null;
    throw error;
  });
  if (store === null) return 'refused';
  let damaged = 0;
  try {
    for (const kind of [KIND.inode, KIND.dentry, KIND.xattrs]) {
      for await (const { key } of store.plaintexts(kind)) store.get(key);
    }
    for (let n = 0; n < 200; n++) store.put(xattrsKey(5_000 + n), new Map([['n', Buffer.alloc(2_000, n)]]));
    await store.commit(true);
  } catch (error) {
    if (!hasCode(error, 'CORRUPT_RECORD', 'EIO', 'BAD_FORMAT')) throw error;
    damaged++;
  }
  await store.close().catch(() => undefined);
  await everyKey(dir);
  return damaged > 0 ? 'told' : 'used';
}

const work: Record<DamageMode, (dir: string) => Promise<string>> = {
  raw: (dir) =>
    everyKey(dir).then(
      () => 'used',
      () => 'refused',
    ),
  guarded,
  salvage: async (dir) => {
    const places = { index: dir, syncJournal: `${dir}-sync`, scratch: `${dir}-salvage` };
    const { missing, commits } = await salvage(places, indexSealer());
    return `${missing.length === 0 ? 'whole' : 'part'} ${commits.size > 0 ? 'some' : 'none'}`;
  },
};

for (let n = Number(from); n < Number(to); n++) {
  const dir = join(scratch, String(n));
  cpSync(template, dir, { recursive: true });
  writeSync(1, `${n} ${damage(dir, new Random(`${seed}/${n}`))}\n`);
  const result = await work[mode as DamageMode](dir).catch((error: unknown) => `failed ${String(error)}`);
  writeSync(1, `= ${result}\n`);
  rmSync(dir, { recursive: true, force: true });
}

// A process of its own for an index that may be damaged, since LevelDB ends its process over some damage: repairs it
// if told, opens it, and writes its records of some kinds to standard output, sealed as they are, or the numbers of its tables.
// Arguments: folder, first letters of the keys that are wanted, `repair`, `tables` or nothing.

import { once } from 'node:events';
import { Level } from 'level';
import { hasCode } from '../lib/errors.ts';
import { IndexDatabase } from './index-database.ts';
import { ALL_KEYS } from './keys.ts';

const ITERATOR_BATCH = 512;
const NOTHING = Buffer.alloc(0);
/** Exit codes. */
const LOCKED = 3;
const DAMAGED = 4;

/** On Node, `level` is `classic-level`, which can repair. */
const classic = Level as unknown as { repair(dir: string): Promise<void> };

const [dir = '', wanted = '', mode = ''] = process.argv.slice(2);

function frame(key: Buffer, value: Buffer): Buffer[] {
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32LE(key.length);
  sizes.writeUInt32LE(value.length, 4);
  return [sizes, key, value];
}

async function dump(): Promise<void> {
  const database = await IndexDatabase.open(dir);
  try {
    if (mode === 'tables') {
      for (const number of database.tables)
        process.stdout.write(Buffer.concat(frame(Buffer.from(`${number}`), NOTHING)));
      return;
    }
    for await (const entries of database.lists(ALL_KEYS, ITERATOR_BATCH)) {
      const frames = entries.filter(([key]) => wanted.includes(String.fromCharCode(key[0] ?? 0)));
      const bytes = Buffer.concat(frames.flatMap(([key, value]) => frame(key, value)));
      if (bytes.length > 0 && !process.stdout.write(bytes)) await once(process.stdout, 'drain');
    }
  } finally {
    await database.close();
  }
}

try {
  if (mode === 'repair') await classic.repair(dir);
  await dump();
} catch (error) {
  process.exitCode = hasCode(error, 'HOME_LOCKED') ? LOCKED : DAMAGED;
}

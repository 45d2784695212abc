// Writes many small seeded files, a thousand to a folder.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from './random.ts';

const [top, count, seed] = process.argv.slice(2);
if (!top || !count || !seed) throw new TypeError('usage: small-files.ts DIR COUNT SEED');

const random = new Random(seed);
for (let n = 0; n < Number(count); n++) {
  const dir = join(top, String(Math.floor(n / 1000)));
  if (n % 1000 === 0) mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, `file-${n}`), random.bytes(random.between(100, 3000)));
}

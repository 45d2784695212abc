// Makes, lists with attributes, or removes many empty files, and prints how long it took in
// milliseconds. A program of its own, so that nothing else runs in its event loop.

import { closeSync, mkdirSync, openSync, readdirSync, rmdirSync, statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

const [what, dir, count] = process.argv.slice(2);
if (!what || !dir || !count) throw new TypeError('usage: files.ts create|stat|unlink DIR COUNT');

const names = Array.from({ length: Number(count) }, (_, n) => `file-${n}`);
const started = performance.now();
if (what === 'create') {
  mkdirSync(dir);
  for (const name of names) closeSync(openSync(join(dir, name), 'wx'));
} else if (what === 'stat') {
  const found = readdirSync(dir);
  if (found.length !== names.length) throw new Error(`${found.length} entries instead of ${names.length}`);
  for (const name of found) statSync(join(dir, name));
} else {
  for (const name of names) unlinkSync(join(dir, name));
  rmdirSync(dir);
}
process.stdout.write(String(performance.now() - started));

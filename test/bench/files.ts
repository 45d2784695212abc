// Makes, lists, renames or removes many small files, and prints how long it took in milliseconds.
// A program of its own, so that nothing else runs in its event loop.

import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

const [what, dir, count, folders, bytes] = process.argv.slice(2);
if (!what || !dir || !count) {
  throw new TypeError('usage: files.ts create|stat|rename|unlink DIR COUNT [FOLDERS [BYTES]]');
}

const CONTENT = Buffer.alloc(Number(bytes ?? 4096), 'x');
const spread = Number(folders ?? 0);
const folderOf = (n: number): string => (spread > 0 ? join(dir, `folder-${n % spread}`) : dir);
const paths = Array.from({ length: Number(count) }, (_, n) => join(folderOf(n), `file-${n}`));
if (what === 'create') {
  mkdirSync(dir);
  for (let n = 0; n < spread; n++) mkdirSync(folderOf(n));
}
const started = performance.now();
if (what === 'create') {
  for (const path of paths) {
    const fd = openSync(path, 'wx');
    if (CONTENT.length > 0) writeSync(fd, CONTENT);
    closeSync(fd);
  }
} else if (what === 'stat') {
  let found = 0;
  for (const folder of new Set(paths.map((_, n) => folderOf(n)))) {
    for (const name of readdirSync(folder)) {
      statSync(join(folder, name));
      found++;
    }
  }
  if (found !== paths.length) throw new Error(`${found} entries instead of ${paths.length}`);
} else if (what === 'rename') {
  for (const path of paths) renameSync(path, `${path}.renamed`);
  // what comes next finds the same names
  for (const path of paths) renameSync(`${path}.renamed`, path);
} else {
  for (const path of paths) unlinkSync(path);
}
const took = performance.now() - started;
if (what === 'unlink') rmSync(dir, { recursive: true });
process.stdout.write(String(took));

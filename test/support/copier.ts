// Copies a folder's files into a mount, again and again, until an error stops it, and says on
// standard output what the system has acknowledged. Every second file is saved as editors do it:
// written under another name and renamed over.

import { closeSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { filesBelow } from './hosts.ts';

const [source, target] = process.argv.slice(2);
if (!source || !target) throw new TypeError('usage: copier.ts SOURCE TARGET');

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const WRITE_BYTES = 50_000;
const files = filesBelow(source).map((path) => path.slice(source.length + 1));

for (let pass = 0; ; pass++) {
  files.forEach((file, n) => {
    const path = `${pass}/${file}`;
    mkdirSync(join(target, dirname(path)), { recursive: true });
    const written = n % 2 === 0 ? path : `${path}~`;
    const data = readFileSync(join(source, file));
    say(`begin ${written}`);
    const fd = openSync(join(target, written), 'w');
    for (let at = 0; at < data.length;) at += writeSync(fd, data, at, Math.min(WRITE_BYTES, data.length - at));
    closeSync(fd);
    say(`closed ${written}`);
    if (written === path) return;
    renameSync(join(target, written), join(target, path));
    say(`renamed ${path}`);
  });
}

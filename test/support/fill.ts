// Writes seeded files of 1 MiB until an error or a limit, and prints what happened as JSON.

import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from './random.ts';

/** How it ended: files whose close() returned, and the error, if any. */
export interface Filled {
  readonly closed: number;
  readonly code: string | undefined;
}

/** Content of file number `n`. */
export function fillContent(n: number): Buffer {
  return new Random(`fill ${n}`).bytes(1 << 20);
}

function fill(dir: string, files: number): Filled {
  let closed = 0;
  try {
    for (; closed < files; closed++) {
      const data = fillContent(closed);
      const fd = openSync(join(dir, `fill-${closed}`), 'w');
      try {
        for (let at = 0; at < data.length;) at += writeSync(fd, data, at, Math.min(65_536, data.length - at));
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      closeSync(fd);
    }
  } catch (error) {
    return { closed, code: (error as NodeJS.ErrnoException).code };
  }
  return { closed, code: undefined };
}

if (process.argv[1] === import.meta.filename) {
  const [dir, files] = process.argv.slice(2);
  if (!dir || !files) throw new TypeError('usage: fill.ts DIR FILES');
  process.stdout.write(JSON.stringify(fill(dir, Number(files))));
}

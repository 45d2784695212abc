// Tests leave nothing behind, whatever becomes of them.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { markedPids, mountsBelow } from '../support/cleanup.ts';
import { isAlive } from '../support/client.ts';
import { ROOT, until } from '../support/run.ts';

await t.test('a test that is killed leaves no process, no mount and no folder', async (t) => {
  const output = await new Promise<string>((resolve) =>
    execFile(process.execPath, [join(ROOT, 'test/support/dying.ts')], (_error, stdout) => resolve(stdout)),
  );
  const { dir, pid } = JSON.parse(output) as { dir: string; pid: number };
  await until('the folder to go', () => !existsSync(dir));
  await until('the process to be gone', () => !isAlive(pid));
  t.strictSame(markedPids(dir), []);
  t.strictSame(mountsBelow(dir), []);
});

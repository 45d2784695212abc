// Stands for a test that dies badly: leaves a process, and a mount if root, and kills itself.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Run } from './run.ts';

const run = new Run({ teardown: () => {}, comment: () => {}, passing: () => false });
const child = run.spawn('left', ['-e', 'console.log(1); setInterval(() => {}, 1e6)']);
await new Promise((resolve) => child.stdout?.once('data', resolve));
if (process.getuid?.() === 0) {
  mkdirSync(join(run.dir, 'mnt'));
  await run.must('mount', ['-t', 'tmpfs', 'none', join(run.dir, 'mnt')]);
}
process.stdout.write(`${JSON.stringify({ dir: run.dir, pid: child.pid })}\n`, () =>
  process.kill(process.pid, 'SIGKILL'),
);

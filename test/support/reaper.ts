// Started beside a test: waits until the test's process is gone, however it went, and cleans up.

import { existsSync } from 'node:fs';
import { endEverything } from './cleanup.ts';

const dir = process.argv[2];
if (!dir) throw new TypeError('usage: reaper.ts DIR');

process.on('SIGTERM', () => {});
process.on('SIGINT', () => {});
process.on('SIGHUP', () => {});
process.stdin.resume();
process.stdin.on('error', () => {});
process.stdin.on('close', () => {
  if (existsSync(dir)) endEverything(dir, process.env['XCORE_TEST_KEEP'] === '1');
  process.exit(0);
});

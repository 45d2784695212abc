// Runs tap over all tests, or over the files and folders named, and ends with one line of totals. The long tests
// of the network have a command of their own (`npm run test:network`), so that all others take minutes.

import { spawn } from 'node:child_process';
import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { TapLines } from './tap-lines.ts';

const ROOT = resolve(import.meta.dirname, '..');
const TAP = join(ROOT, 'node_modules/tap/dist/esm/run.mjs');

const NETWORK_TESTS = ['test/sim', 'test/fuzz', 'test/e2e/repair.test.ts', 'test/e2e/weather.test.ts'];

/** Runs tap with arguments, gives each line it prints to `onLine`, and resolves with its exit code. */
async function tap(args: readonly string[], onLine: (line: string) => void): Promise<number> {
  const child = spawn(process.execPath, [TAP, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  const lines = createInterface({ input: child.stdout });
  lines.on('line', onLine);
  const [code] = await Promise.all([
    new Promise<number>((done, fail) => {
      child.on('error', fail);
      child.on('exit', (status) => done(status ?? 1));
    }),
    new Promise((done) => lines.on('close', done)),
  ]);
  return code;
}

/** Whether tap's generated Test class still has the plugin that .taprc removes. */
function needsBuild(): boolean {
  const built = join(ROOT, 'node_modules/@tapjs/test/test-built/dist/esm/index.js');
  return !existsSync(built) || readFileSync(built, 'utf8').includes('@tapjs/typescript');
}

/** The arguments with each folder replaced by the test files below it. */
function expand(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const folder = resolve(ROOT, name);
    if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [name];
    return globSync(join(folder, '**/*.test.ts')).map((file) => relative(ROOT, file));
  });
}

async function main(names: readonly string[]): Promise<number> {
  if (needsBuild()) {
    const code = await tap(['build'], () => undefined);
    if (code !== 0) return code;
  }
  const network = expand(NETWORK_TESTS);
  const isAll = names.length === 0;
  const files = isAll
    ? expand(['test']).filter((file) => !network.includes(file))
    : names[0] === '--network'
      ? network
      : expand(names);
  const tapLines = new TapLines();
  const { totals } = tapLines;
  let code = 1;
  if (files.length === 0) console.log(`no tests below ${names.join(' ')}`);
  else {
    code = await tap(['run', '--reporter=tap', ...files], (line) => {
      for (const shown of tapLines.take(line)) console.log(shown);
    });
  }
  // A run that ends badly without a failed assertion has failed all the same.
  if ((code !== 0 || totals.passed === 0) && totals.failed === 0) totals.failed = 1;
  console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
  return totals.failed > 0 ? code || 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));

// Runs tap over all tests, or over the files and folders named, and ends with one line of totals.

import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const TAP = join(ROOT, 'node_modules/tap/dist/esm/run.mjs');

interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

/** Runs tap with arguments and gives its exit code; the output goes where ours goes. */
async function tap(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [TAP, ...args], { cwd: ROOT, stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  return await new Promise((done, fail) => {
    child.on('error', fail);
    child.on('exit', (code, signal) => done(code ?? (signal === null ? 1 : 128)));
  });
}

/** Whether tap's generated Test class still has the plugin that .taprc removes. */
function needsBuild(): boolean {
  const built = join(ROOT, 'node_modules/@tapjs/test/test-built/dist/esm/index.js');
  return !existsSync(built) || readFileSync(built, 'utf8').includes('@tapjs/typescript');
}

/** Counts the assertions of a TAP 14 stream: points that are not the summary of a subtest. */
function countAssertions(text: string): Totals {
  const totals: Totals = { passed: 0, failed: 0, skipped: 0 };
  // Depths of subtests whose own summary point has not come yet, with the points seen below each.
  const open: { indent: number; points: number; failed: number }[] = [];
  for (const line of text.split('\n')) {
    const subtest = /^( *)# Subtest/.exec(line);
    if (subtest) {
      open.push({ indent: subtest[1]!.length, points: 0, failed: 0 });
      continue;
    }
    const point = /^( *)(not )?ok\b(.*)$/.exec(line);
    if (!point) continue;
    const indent = point[1]!.length;
    const failed = point[2] !== undefined;
    const skipped = /# (skip|todo)/i.test(point[3]!);
    const last = open.at(-1);
    if (last?.indent === indent) {
      open.pop();
      const parent = open.at(-1);
      if (parent) {
        parent.points += last.points;
        parent.failed += last.failed;
      }
      if (!failed || last.failed > 0) {
        if (skipped && last.points === 0) totals.skipped += 1;
        continue;
      }
    }
    if (skipped) totals.skipped += 1;
    else if (failed) totals.failed += 1;
    else totals.passed += 1;
    const around = open.at(-1);
    if (around) {
      around.points += 1;
      if (failed && !skipped) around.failed += 1;
    }
  }
  return totals;
}

async function main(): Promise<number> {
  if (needsBuild()) {
    const code = await tap(['build']);
    if (code !== 0) return code;
  }
  const dir = mkdtempSync(join(tmpdir(), 'xcore-tap-'));
  const output = join(dir, 'output.tap');
  const reporter = process.stdout.isTTY ? 'base' : 'terse';
  const named = process.argv.slice(2).flatMap((name) => {
    const folder = resolve(ROOT, name);
    if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [name];
    return globSync(join(folder, '**/*.test.ts')).map((file) => relative(ROOT, file));
  });
  if (process.argv.length > 2 && named.length === 0) {
    console.log('no test is named so\n0 passed, 1 failed, 0 skipped');
    return 1;
  }
  const code = await tap(['run', `--reporter=${reporter}`, `--output-file=${output}`, ...named]);
  const totals = countAssertions(existsSync(output) ? readFileSync(output, 'utf8') : '');
  rmSync(dir, { recursive: true, force: true });
  if (code !== 0 && totals.failed === 0) totals.failed = 1;
  console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
  return totals.failed > 0 || totals.passed === 0 ? code || 1 : 0;
}

process.exitCode = await main();

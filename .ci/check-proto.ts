// Checks that the generated messages in src/*/proto are what protoc makes of the .proto files today; --write makes them.

import { spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const write = process.argv.includes('--write');

/** The plugin's parameter, as the committed code names it in its first lines. */
function parameter(dir: string): string {
  for (const name of readdirSync(dir)) {
    const match = /with parameter "([^"]+)"/.exec(readFileSync(join(dir, name), 'utf8'));
    if (match) return match[1]!;
  }
  return 'target=ts,import_extension=ts';
}

/** Generates the messages of one folder into `out`; null when protoc is not installed. */
function generate(dir: string, out: string): boolean | null {
  const result = spawnSync(
    'protoc',
    [
      `--plugin=protoc-gen-es=${join(ROOT, 'node_modules/.bin/protoc-gen-es')}`,
      `--es_out=${out}`,
      `--es_opt=${parameter(dir)}`,
      `--proto_path=${dir}`,
      ...readdirSync(dir).filter((name) => name.endsWith('.proto')),
    ],
    { cwd: dir, stdio: ['ignore', 'inherit', 'inherit'] },
  );
  return result.error ? null : result.status === 0;
}

/** Whether the committed messages of one folder are current; null when that cannot be told. */
function check(dir: string): boolean | null {
  const out = mkdtempSync(join(tmpdir(), 'xcore-proto-'));
  try {
    const made = generate(dir, out);
    if (made !== true) return made;
    const stale = readdirSync(out).filter((name) => {
      const committed = join(dir, name);
      return !existsSync(committed) || readFileSync(committed, 'utf8') !== readFileSync(join(out, name), 'utf8');
    });
    for (const name of stale) console.error(`${join(dir, name)} is stale: npm run proto`);
    return stale.length === 0;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

const dirs = [...new Set(globSync('src/*/proto/*.proto', { cwd: ROOT }).map((file) => join(ROOT, dirname(file))))];
const results = dirs.map((dir) => (write ? generate(dir, dir) : check(dir)));
if (results.includes(null)) {
  console.log('proto: protoc is not installed (apt-get install protobuf-compiler)');
  process.exitCode = write ? 1 : 0;
} else if (results.includes(false)) process.exitCode = 1;
else console.log(`proto: generated code ${write ? 'is written' : 'is up to date'} in ${dirs.length} folders`);

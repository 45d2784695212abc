// Checks that the generated messages in src/net/proto are what protoc makes of wire.proto today.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const PROTO = join(ROOT, 'src/net/proto');
const write = process.argv.includes('--write');

/** The plugin's parameter, as the committed code names it in its first lines. */
function parameter(): string {
  for (const name of readdirSync(PROTO)) {
    const match = /with parameter "([^"]+)"/.exec(readFileSync(join(PROTO, name), 'utf8'));
    if (match) return match[1]!;
  }
  return 'target=js+dts';
}

/** Generates into a folder; null when protoc is not installed. */
function generate(out: string): boolean | null {
  const result = spawnSync(
    'protoc',
    [
      `--plugin=protoc-gen-es=${join(ROOT, 'node_modules/.bin/protoc-gen-es')}`,
      `--es_out=${out}`,
      `--es_opt=${parameter()}`,
      `--proto_path=${PROTO}`,
      ...readdirSync(PROTO).filter((name) => name.endsWith('.proto')),
    ],
    { cwd: PROTO, stdio: ['ignore', 'inherit', 'inherit'] },
  );
  if (result.error) return null;
  return result.status === 0;
}

function main(): number {
  if (write) {
    const made = generate(PROTO);
    if (made === null) console.error('protoc is not installed: apt-get install protobuf-compiler');
    return made ? 0 : 1;
  }
  const out = mkdtempSync(join(tmpdir(), 'xcore-proto-'));
  try {
    const made = generate(out);
    if (made === null) {
      console.log('proto: not checked, protoc is not installed');
      return 0;
    }
    if (!made) return 1;
    const stale = readdirSync(out).filter((name) => {
      const committed = join(PROTO, name);
      return !existsSync(committed) || readFileSync(committed, 'utf8') !== readFileSync(join(out, name), 'utf8');
    });
    for (const name of stale) console.error(`src/net/proto/${name} is stale: npm run proto`);
    if (stale.length === 0) console.log('proto: generated code is up to date');
    return stale.length === 0 ? 0 : 1;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

process.exitCode = main();

// Checks the house's import rules: which room may import which, and that no cycle exists.

import { readFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { globSync } from 'node:fs';

const ROOT = resolve(import.meta.dirname, '..');

/** Rooms that each room may import besides itself; src/lib is open to all. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  bin: ['cli', 'client', 'bridge', 'host', 'fuse', 'vfs', 'tree', 'cache', 'net', 'crypto'],
  cli: ['client', 'bridge', 'host', 'fuse', 'vfs', 'tree', 'cache', 'net', 'crypto'],
  client: ['fuse', 'vfs', 'tree', 'cache', 'net', 'crypto'],
  fuse: ['vfs', 'tree', 'cache', 'crypto'],
  vfs: ['tree', 'cache', 'crypto'],
  tree: ['crypto'],
  cache: ['crypto'],
  bridge: ['net', 'crypto'],
  host: ['net', 'crypto'],
  net: ['crypto'],
  crypto: [],
  lib: [],
};

/** What the two servers must not reach, however indirectly: a host has no keys and cannot import anything that decrypts. */
const KEYLESS_ROOMS = ['host', 'bridge'];
const DECRYPTS = /^src\/crypto\/(phrase|passphrase|keys|ctr|sealer|hidden-name)\.ts$/;

/** src/vfs/filesystem.ts is all that a driver may know of the rooms below it. */
const FUSE_SEES = /^src\/vfs\/filesystem\.ts$/;

function roomOf(file: string): string | null {
  const parts = file.split('/');
  if (parts[0] === 'bin') return 'bin';
  return parts[0] === 'src' && parts.length > 2 ? parts[1]! : null;
}

/** Relative import targets in a source text: static, re-export, dynamic, and worker or URL references. */
function importsOf(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const found: string[] = [];
  for (const pattern of [
    /\b(?:import|export)\s[^'";]*?\bfrom\s*['"](\.[^'"]+)['"]/g,
    /\bimport\s*['"](\.[^'"]+)['"]/g,
    /\bimport\(\s*['"](\.[^'"]+)['"]\s*\)/g,
  ]) {
    for (const match of code.matchAll(pattern)) found.push(match[1]!);
  }
  return found;
}

async function main(): Promise<void> {
  const files = globSync(['src/**/*.ts', 'src/**/*.js', 'bin/*.js'], { cwd: ROOT }).filter((f) => !f.endsWith('.d.ts'));
  const problems: string[] = [];
  const graph = new Map<string, string[]>();
  for (const file of files) {
    const text = await readFile(join(ROOT, file), 'utf8');
    const room = roomOf(file);
    const targets: string[] = [];
    if (room === null || MAY_IMPORT[room] === undefined) problems.push(`${file}: not in a known room`);
    for (const specifier of importsOf(text)) {
      const target = relative(ROOT, resolve(ROOT, dirname(file), specifier));
      targets.push(target);
      const targetRoom = roomOf(target);
      if (room === null || targetRoom === null || targetRoom === room || targetRoom === 'lib') continue;
      if (!MAY_IMPORT[room]?.includes(targetRoom)) problems.push(`${file}: ${room} must not import ${target}`);
      else if (room === 'fuse' && !FUSE_SEES.test(target)) problems.push(`${file}: a driver must not see ${target}`);
    }
    graph.set(file, targets);
  }
  problems.push(...cyclesOf(graph));
  for (const file of graph.keys()) {
    if (!KEYLESS_ROOMS.includes(roomOf(file) ?? '')) continue;
    for (const seen of reachableFrom(file, graph)) {
      if (DECRYPTS.test(seen)) problems.push(`${file}: a ${roomOf(file)!} must not reach ${seen}`);
    }
  }
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
  else console.log(`imports: ${files.length} files, no cycle, all downward`);
}

/** All files that a file imports, directly or through others. */
function reachableFrom(file: string, graph: ReadonlyMap<string, readonly string[]>): Set<string> {
  const seen = new Set<string>();
  const open = [file];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const target of graph.get(next) ?? []) {
      if (seen.has(target)) continue;
      seen.add(target);
      open.push(target);
    }
  }
  return seen;
}

/** Each cycle once, as text; type-only imports count too. */
function cyclesOf(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const state = new Map<string, 'open' | 'done'>();
  const path: string[] = [];
  const cycles: string[] = [];
  const visit = (file: string): void => {
    state.set(file, 'open');
    path.push(file);
    for (const target of graph.get(file) ?? []) {
      if (state.get(target) === 'open')
        cycles.push(`cycle: ${[...path.slice(path.indexOf(target)), target].join(' → ')}`);
      else if (!state.has(target) && graph.has(target)) visit(target);
    }
    path.pop();
    state.set(file, 'done');
  };
  for (const file of graph.keys()) if (!state.has(file)) visit(file);
  return cycles;
}

await main();

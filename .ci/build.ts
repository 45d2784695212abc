// Builds dist/ for publishing: tsc emits JavaScript, then the generated messages are copied, which tsc leaves out.

import { spawnSync } from 'node:child_process';
import { cpSync, globSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const TSC = join(ROOT, 'node_modules/.bin/tsc');

rmSync(join(ROOT, 'dist'), { recursive: true, force: true });
const result = spawnSync(TSC, ['-p', 'tsconfig.build.json'], { cwd: ROOT, stdio: 'inherit' });
if (result.status !== 0) process.exit(result.status ?? 1);
const generated = globSync(['src/**/*.js', 'src/**/*.d.ts', 'src/**/*.wasm'], { cwd: ROOT });
for (const file of generated) cpSync(join(ROOT, file), join(ROOT, 'dist', file));
console.log(`build: dist/ is ready, ${generated.length} generated files copied`);

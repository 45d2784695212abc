#!/usr/bin/env node
// Starts the command line on a Node that can run it: this one, or the one that came with the package.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

// Read when libuv's pool is first used, so before anything else: requests of a mount, LevelDB and
// file reads share it.
process.env.UV_THREADPOOL_SIZE ??= '16';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const [major, minor] = process.versions.node.split('.').map(Number);

if (major > 22 || (major === 22 && minor >= 18)) {
  // Node strips types of sources, but not below node_modules, where only dist/ is installed.
  const source = join(ROOT, 'src', 'cli', 'main.ts');
  const built = join(ROOT, 'dist', 'src', 'cli', 'main.js');
  const installed = ROOT.split(sep).includes('node_modules');
  const entry = installed || !existsSync(source) ? built : source;
  const { main } = await import(pathToFileURL(entry).href);
  await main(process.argv.slice(2));
} else {
  const node = [join(ROOT, 'node_modules'), dirname(ROOT)]
    .map((folder) => join(folder, 'node', 'bin', 'node'))
    .find((path) => existsSync(path));
  if (node === undefined || process.env.XCORE_REEXEC === '1') {
    process.stderr.write(
      `xcore: Node ${process.versions.node} is too old; xcore needs Node 22.18 or newer (npm ci in the checkout brings its own)\n`,
    );
    process.exitCode = 1;
  } else {
    const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
      stdio: 'inherit',
      env: { ...process.env, XCORE_REEXEC: '1' },
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
    child.on('exit', (code, signal) => {
      if (signal === null) process.exitCode = code ?? 1;
      else {
        process.removeAllListeners(signal);
        process.kill(process.pid, signal);
      }
    });
  }
}

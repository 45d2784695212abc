// After npm ci in a checkout: puts the package's own command beside those of its dependencies, so that
// `npx xcore` finds it without asking npm for a package of that name. Runs on any Node.

import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const bin = join(dirname(dirname(fileURLToPath(import.meta.url))), 'node_modules', '.bin');
if (process.platform !== 'win32' && existsSync(dirname(bin))) {
  mkdirSync(bin, { recursive: true });
  rmSync(join(bin, 'xcore'), { force: true });
  symlinkSync('../../bin/xcore.js', join(bin, 'xcore'));
}

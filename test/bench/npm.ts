// A project for `npm ci` to install: a part of our own packages, at the versions that our lock names.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/run.ts';

/** With all that they need some 120 packages, 50 MB in 3,700 files. */
const WANTED = ['eslint', 'prettier', 'libp2p', '@libp2p/yamux'];

interface Package {
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Packages by their places below a project, as package-lock.json has them. */
type Packages = Record<string, Package>;

/** Where a package that lies at `from` finds another, as Node looks for it. */
function placeOf(packages: Packages, from: string, name: string): string | null {
  for (let at = from; ;) {
    const place = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
    if (packages[place] !== undefined) return place;
    if (at === '') return null;
    at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')));
  }
}

function take(packages: Packages, place: string, taken: Packages): void {
  const found = packages[place];
  if (found === undefined || taken[place] !== undefined) return;
  taken[place] = found;
  for (const name of Object.keys({ ...found.dependencies, ...found.optionalDependencies })) {
    const next = placeOf(packages, place, name);
    if (next !== null) take(packages, next, taken);
  }
}

/** Makes the project in a folder, which need not exist. */
export function makeProject(dir: string): void {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as { packages: Packages };
  const taken: Packages = {};
  for (const name of WANTED) take(packages, `node_modules/${name}`, taken);
  const dependencies = Object.fromEntries(WANTED.map((name) => [name, taken[`node_modules/${name}`]?.version ?? '*']));
  const project = { name: 'bench', version: '1.0.0', private: true, dependencies };
  const { private: _private, ...root } = project;
  const lock = { name: 'bench', version: '1.0.0', lockfileVersion: 3, packages: { '': root, ...taken } };
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'package.json'), JSON.stringify(project));
  writeFileSync(join(dir, 'package-lock.json'), JSON.stringify(lock));
}

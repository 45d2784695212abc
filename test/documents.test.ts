// What the documents say of the code, as far as a program can check it: files, tests and bounds.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import t from 'tap';

const ROOT = new URL('..', import.meta.url);
const DOCUMENTS = readdirSync(ROOT).filter((name) => name.endsWith('.md'));

function read(path: string): string {
  return readFileSync(new URL(path, ROOT), 'utf8');
}

void t.test('every file that a document names is there', async (t) => {
  for (const document of DOCUMENTS) {
    const named = read(document).matchAll(/`((?:src|test|bin|native-notes|\.ci)\/[\w./-]*\w)`/g);
    for (const [, path = ''] of named) t.ok(existsSync(new URL(path, ROOT)), `${document}: ${path}`);
  }
});

void t.test('every test that a document names by its title is in that file', async (t) => {
  for (const document of ['SEMANTICS.md', 'SECURITY.md']) {
    const named = [...read(document).matchAll(/`(test\/[\w./-]+\.test\.ts)` “([^”]+)”/g)];
    t.ok(named.length > 10, document);
    for (const [, path = '', title = ''] of named) t.ok(read(path).includes(title), `${path}: ${title}`);
  }
});

void t.test('the bounds of ARCHITECTURE.md are those of the code', async (t) => {
  const rows = [...read('ARCHITECTURE.md').matchAll(/^\| `(\w+)` +\| `(src\/[\w./-]+)` +\| ([\d,]+) +\|/gm)];
  t.ok(rows.length > 50);
  for (const [, name = '', path = '', value = ''] of rows) {
    const source = new RegExp(`const ${name}(?:: number)? = ([\\d_ *.]+);`).exec(read(path))?.[1] ?? '';
    t.equal(evaluate(source), Number(value.replaceAll(',', '')), `${path}: ${name}`);
  }
});

/** The value of numbers joined by * and **. */
function evaluate(expression: string): number {
  const factors = expression.replaceAll('_', '').split(/ \* /);
  return factors.reduce((product, factor) => {
    const [base = NaN, exponent = 1] = factor.split(' ** ').map(Number);
    return product * base ** exponent;
  }, 1);
}

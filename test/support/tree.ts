// Folder trees to copy into a mount: a real package set, and every odd thing a folder may hold.

import { chmodSync, linkSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimes } from './libc.ts';
import { Random, writeRandomFile } from './random.ts';
import { ROOT } from './run.ts';
import type { Run } from './run.ts';

const PACKAGES = ['@libp2p', 'eslint', 'typescript-eslint', '@typescript-eslint', 'prettier', '@tapjs'];

/** What makeTree puts in. */
export interface TreeOptions {
  readonly seed: string;
  /** Names below node_modules to copy; all of the package set unless told. */
  readonly packages?: readonly string[];
  /** Size of the big file; none when 0. */
  readonly bigFileBytes?: number;
}

/** Makes a tree at `top`, which must not exist, on a local disk. */
export async function makeTree(run: Run, top: string, options: TreeOptions): Promise<void> {
  mkdirSync(top);
  const random = new Random(options.seed);
  for (const name of options.packages ?? PACKAGES) {
    await run.must('cp', ['-a', join(ROOT, 'node_modules', name), join(top, name)]);
  }
  makeOdd(join(top, 'odd'), random);
  if (options.bigFileBytes) writeRandomFile(join(top, 'big.bin'), `${options.seed}/big`, options.bigFileBytes);
}

/** Odd names, modes, times, links and sizes, in a new folder. */
export function makeOdd(dir: string, random: Random): void {
  mkdirSync(dir);
  const names: (string | Buffer)[] = [
    ' leading and trailing ',
    '-rf',
    'new\nline',
    'tab\tand "quotes" \'both\' \\ back',
    '*?[a-z]{x}$HOME`id`',
    '.hidden',
    '...',
    'ünï.caf\u00e9',
    'caf\u0065\u0301 (decomposed)',
    '日本語 🚀',
    'CON',
    'a'.repeat(255),
    'é'.repeat(127),
    Buffer.from([0xff, 0xfe, 0x80, 0x2e, 0xc3]),
  ];
  for (const name of names) {
    const path = Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name)]);
    writeFileSync(path, random.bytes(random.below(20_000)));
  }
  for (const sizeBytes of [
    0, 1, 15, 16, 17, 4095, 4096, 4097, 16_383, 16_384, 16_385, 131_073, 2_097_151, 2_097_152, 2_097_153,
  ]) {
    writeFileSync(join(dir, `size-${sizeBytes}`), random.bytes(sizeBytes));
  }
  for (const mode of [0o400, 0o600, 0o640, 0o644, 0o755, 0o777, 0o4755, 0o2755]) {
    const path = join(dir, `mode-${mode.toString(8)}`);
    writeFileSync(path, 'x');
    chmodSync(path, mode);
  }
  mkdirSync(join(dir, 'empty dir'), 0o700);
  mkdirSync(join(dir, 'sticky'));
  chmodSync(join(dir, 'sticky'), 0o1777);
  mkdirSync(join(dir, ...Array.from({ length: 40 }, (_, n) => `deep${n}`)), { recursive: true });

  symlinkSync('size-4096', join(dir, 'link'));
  symlinkSync('nowhere/at all', join(dir, 'dangling'));
  symlinkSync('../odd', join(dir, 'loop'));
  symlinkSync('/'.padEnd(4000, 'long/'), join(dir, 'long link'));
  linkSync(join(dir, 'size-4097'), join(dir, 'hard link'));

  writeFileSync(join(dir, 'sparse'), 'head');
  truncateSync(join(dir, 'sparse'), 5_000_000);

  const times = [
    -1n,
    -86_400_000_000_001n,
    0n,
    1n,
    999_999_999n,
    1_000_000_000_123_456_789n,
    1_763_812_345_000_000_001n,
    4_102_444_800_987_654_321n,
  ];
  times.forEach((timeNs, n) => {
    const path = join(dir, `time-${n}`);
    writeFileSync(path, 'x');
    setTimes(path, timeNs, timeNs);
  });
}

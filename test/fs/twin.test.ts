// A mount beside a tmpfs: several workers do the same random operations on both, as several users where
// they may, and every result must be the same, errno for errno.

import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { pickSeed } from '../support/random.ts';
import { ROOT } from '../support/run.ts';
import { DRIVER, limit } from '../support/driver.ts';
import { mountVolume } from '../support/volume-mount.ts';
import type { TwinResult, TwinTask } from './twin-worker.ts';

const WORKERS = 4;
const IS_LONG = process.env['XCORE_TEST_LONG'] === '1';
const MAX_MS = IS_LONG ? 300_000 : DRIVER === 'fuse-native' ? 6_000 : 15_000;
const MAX_SEQUENCES = IS_LONG ? 20_000 : 1_000;
const TMPFS = '/dev/shm';
const TMPFS_MAGIC = 0x01021994;

t.setTimeout(MAX_MS + 120_000);

const hasTmpfs = existsSync(TMPFS) && statfsSync(TMPFS).type === TMPFS_MAGIC;

void t.test(
  'a mount and a tmpfs give the same results for random operations',
  { skip: hasTmpfs ? false : `${TMPFS} is no tmpfs` },
  async (t) => {
    const seed = pickSeed();
    t.comment(`XCORE_TEST_SEED=${seed}`);
    const isLimited = limit('one user only, no rename flags, one name a file') !== false;
    const isRoot = process.geteuid?.() === 0 && !isLimited;
    const volume = await mountVolume(t, { allowOther: isRoot });
    const local = mkdtempSync(join(TMPFS, 'xc-'));
    t.teardown(() => rmSync(local, { recursive: true, force: true }));
    // other users pass through these
    if (isRoot) for (const path of [volume.run.dir, volume.dir, local]) chmodSync(path, 0o755);
    const endMs = Date.now() + MAX_MS;
    const work = Array.from({ length: WORKERS }, async (_, n): Promise<TwinResult> => {
      const roots = [join(volume.dir, `w${n}`), join(local, `w${n}`)] as const;
      for (const root of roots) mkdirSync(root);
      const users = isRoot ? [0, 1201, 1202] : [0];
      const task: TwinTask = { roots, seed: `${seed}/${n}`, endMs, maxSequences: MAX_SEQUENCES, users, isLimited };
      const script = join(ROOT, 'test/fs/twin-worker.ts');
      const output = await volume.run.must(process.execPath, [script, JSON.stringify(task)], {
        timeoutMs: MAX_MS + 60_000,
      });
      return JSON.parse(output) as TwinResult;
    });
    const results = await Promise.all(work);
    const sum = (field: 'sequences' | 'operations'): number => results.reduce((total, one) => total + one[field], 0);
    t.comment(`${sum('sequences')} sequences, ${sum('operations')} operations`);
    for (const { differences } of results) t.strictSame(differences, []);
    t.ok(sum('sequences') >= WORKERS);
    t.strictSame(await volume.finish(), [], 'the index is whole');
  },
);

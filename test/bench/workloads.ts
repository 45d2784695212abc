// What the benchmark measures on one folder, be it a mount or not.

import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../support/run.ts';
import { fio } from './fio.ts';
import { makeProject } from './npm.ts';
import type { Amounts, Occasion } from './occasion.ts';

const MINUTES = 60_000;
const FOLDERS = 100;
const TRANSACTIONS = 500;
const SYNCED_WRITES = 500;
const RANDOM_SECONDS = 5;
const SETTLE_MS = 20_000;

/** One thing to measure. The benchmark runs them in this order: later ones use what earlier ones left. */
export interface Workload {
  readonly name: string;
  readonly unit: 'MB/s' | 'op/s' | 's';
  /** Only where contents lie elsewhere, too. */
  readonly remote?: true;
  /** Only where a mount can be taken away and brought back. */
  readonly remounts?: true;
  /** Works on what the workload before it left, and says nothing where that one failed. */
  readonly goesOn?: true;
  /** Brings the target into the state to measure from; not counted. */
  prepare?(occasion: Occasion): Promise<void>;
  measure(occasion: Occasion): Promise<number>;
}

/** Writes back and forgets the page cache, the kernel's names and attributes included; root only. */
async function dropCaches({ run }: Occasion): Promise<void> {
  await run.exec('sync', [], { timeoutMs: 5 * MINUTES });
  if (process.getuid?.() === 0) writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/** Waits for what the target does in the background, for a while: what takes longer belongs to what it is. */
async function settle({ target }: Occasion): Promise<void> {
  await target.settle(SETTLE_MS).catch((error: unknown) => {
    console.error(`${target.name} has not settled: ${String(error)}`);
  });
}

async function settleAndDropCaches(occasion: Occasion): Promise<void> {
  await settle(occasion);
  await dropCaches(occasion);
}

async function forget(occasion: Occasion): Promise<void> {
  await occasion.target.settle();
  await occasion.target.forget?.();
  await dropCaches(occasion);
}

function randomRead(depth: number): (occasion: Occasion) => Promise<number> {
  const timed = ['--rw=randread', '--bs=4k', '--time_based', `--runtime=${RANDOM_SECONDS}`];
  return async (occasion) => (await fio(occasion, [...timed, '--thread', `--numjobs=${depth}`])).operations;
}

async function readAll(occasion: Occasion): Promise<number> {
  return (await fio(occasion, ['--rw=read', '--bs=1M'])).bytes / 1e6;
}

function manyFiles(what: string, folders: number): (occasion: Occasion) => Promise<number> {
  return async ({ run, target, amounts, round, limitMs }) => {
    const dir = join(target.dir, `files-${folders}-${round}`);
    const args = [join(ROOT, 'test/bench/files.ts'), what, dir, String(amounts.files), String(folders)];
    const ms = Number(await run.must(process.execPath, args, { timeoutMs: limitMs }));
    return (what === 'rename' ? 2 : 1) * (amounts.files / (ms / 1000));
  };
}

/** `ls -l` of all folders; as GNU's does, it also asks for the access list of each file. */
function listLong(folders: number): (occasion: Occasion) => Promise<number> {
  return async ({ run, target, amounts, round, limitMs }) => {
    const started = performance.now();
    const listing = await run.must('ls', ['-lR', join(target.dir, `files-${folders}-${round}`)], {
      timeoutMs: limitMs,
    });
    const ms = performance.now() - started;
    if (listing.split('file-').length - 1 !== amounts.files) throw new Error('ls listed something else');
    return amounts.files / (ms / 1000);
  };
}

/** Seconds that a program takes; its folder is the source tree of this round unless told. */
async function timed(occasion: Occasion, command: string, args: readonly string[], dir?: string): Promise<number> {
  const { run, limitMs } = occasion;
  const env = { HOME: run.dir, GIT_CONFIG_NOSYSTEM: '1' };
  const started = performance.now();
  await run.must(command, args, { cwd: dir ?? treeOf(occasion), env, timeoutMs: limitMs });
  return (performance.now() - started) / 1000;
}

function treeOf({ target, round }: Occasion): string {
  return join(target.dir, `tree-${round}`);
}

const GIT = ['-c', 'user.name=bench', '-c', 'user.email=bench@localhost', '-c', 'gc.auto=0'];

async function sqlite(occasion: Occasion): Promise<number> {
  const { run, target, limitMs } = occasion;
  const database = join(target.dir, 'bench.sqlite');
  rmSync(database, { force: true });
  const inserts = Array.from({ length: TRANSACTIONS }, (_, n) => `INSERT INTO t VALUES (${n}, 'a row of some bytes');`);
  const started = performance.now();
  await run.must('sqlite3', [database], {
    input: `CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);\n${inserts.join('\n')}\n`,
    timeoutMs: limitMs,
  });
  return TRANSACTIONS / ((performance.now() - started) / 1000);
}

// links, which rclone does not have, are left out
const NPM = ['ci', '--no-bin-links', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];

/** Runs npm in a project that is made anew; what it downloads is in its cache from then on. */
async function npmInstall({ run, limitMs }: Occasion, dir: string, more: readonly string[]): Promise<number> {
  const env = { npm_config_cache: join(homedir(), '.npm'), HOME: run.dir };
  const started = performance.now();
  await run.must('npm', [...NPM, ...more], { cwd: dir, env, timeoutMs: limitMs });
  return (performance.now() - started) / 1000;
}

function projectOf({ target, round }: Occasion): string {
  return join(target.dir, `project-${round}`);
}

/** Brings the empty files of a volume to a number, a thousand to a folder, and takes the mount away. */
async function fillAndUnmount({ run, target }: Occasion, files: number): Promise<void> {
  const dir = join(target.dir, `mounted-${files}`);
  const folders = Math.ceil(files / 1000);
  const args = [join(ROOT, 'test/bench/files.ts'), 'create', dir, String(files), String(folders), '0'];
  if (!existsSync(dir)) await run.must(process.execPath, args, { timeoutMs: 60 * MINUTES });
  await target.settle();
  await target.remount?.umount();
}

/** Seconds until a volume is mounted again; all of its files are looked at then, which the processor time and memory include. */
async function mountAgain({ run, target }: Occasion, files: number): Promise<number> {
  const started = performance.now();
  await target.remount?.mount();
  const seconds = (performance.now() - started) / 1000;
  await target.remount?.find();
  await run.must('find', [join(target.dir, `mounted-${files}`), '-size', '+1'], { timeoutMs: 20 * MINUTES });
  return seconds;
}

/** What a mount costs that has so many files. */
export function mountWorkloads({ mounted }: Amounts): Workload[] {
  return mounted.map((files) => ({
    name: `mount with ${files.toLocaleString('en')} files`,
    unit: 's',
    remounts: true,
    prepare: (occasion) => fillAndUnmount(occasion, files),
    measure: (occasion) => mountAgain(occasion, files),
  }));
}

/** Writes a file of half the size and waits until none of it is on this machine only. */
async function upload(occasion: Occasion): Promise<number> {
  const { run, target, amounts, round, limitMs } = occasion;
  const path = join(target.dir, `upload-${round}`);
  const mib = Math.max(1, Math.floor(amounts.sizeMib / 2));
  const source = join(run.dir, 'random');
  if (!existsSync(source)) await run.must('dd', ['if=/dev/urandom', `of=${source}`, 'bs=1M', `count=${mib}`]);
  const started = performance.now();
  await run.must('cp', [source, path], { timeoutMs: limitMs });
  await target.settle(limitMs);
  return (mib * 2 ** 20) / 1e6 / ((performance.now() - started) / 1000);
}

/** All workloads. */
export const WORKLOADS: readonly Workload[] = [
  {
    name: 'sequential write, fsync at the end',
    unit: 'MB/s',
    prepare: settle,
    measure: async (occasion) => (await fio(occasion, ['--rw=write', '--bs=1M', '--end_fsync=1'])).bytes / 1e6,
  },
  { name: 'sequential read, cold page cache', unit: 'MB/s', prepare: settleAndDropCaches, measure: readAll },
  { name: 'random read 4 KiB, 1 reader, cold page cache', unit: 'op/s', prepare: dropCaches, measure: randomRead(1) },
  {
    name: 'random read 4 KiB, 16 readers, cold page cache',
    unit: 'op/s',
    prepare: dropCaches,
    measure: randomRead(16),
  },
  {
    name: 'random write 4 KiB, fsync at the end',
    unit: 'op/s',
    measure: async (occasion) => {
      const bytes = `--io_size=${Math.max(1, Math.floor(occasion.amounts.sizeMib / 16))}M`;
      return (await fio(occasion, ['--rw=randwrite', '--bs=4k', bytes, '--end_fsync=1'])).operations;
    },
  },
  {
    name: 'random write 4 KiB, fsync each',
    unit: 'op/s',
    measure: async (occasion) =>
      (await fio(occasion, ['--rw=randwrite', '--bs=4k', `--io_size=${SYNCED_WRITES * 4}K`, '--fsync=1'])).operations,
  },
  { name: 'sequential read from the network', unit: 'MB/s', remote: true, prepare: forget, measure: readAll },
  {
    name: 'random read 4 KiB from the network, 1 reader',
    unit: 'op/s',
    remote: true,
    prepare: forget,
    measure: randomRead(1),
  },
  {
    name: 'random read 4 KiB from the network, 16 readers',
    unit: 'op/s',
    remote: true,
    prepare: forget,
    measure: randomRead(16),
  },
  ...[0, FOLDERS].flatMap((folders): Workload[] => {
    const where = folders === 0 ? 'one folder' : `${folders} folders`;
    const row = (what: string, name: string, prepare?: Workload['prepare']): Workload => ({
      name: `${name}, ${where}`,
      unit: 'op/s',
      ...(what === 'create' ? {} : { goesOn: true }),
      prepare,
      measure: manyFiles(what, folders),
    });
    return [
      row('create', 'create 4 KiB files', settle),
      row('stat', 'list and stat, cold caches', settleAndDropCaches),
      row('stat', 'list and stat again', async (occasion) => {
        await manyFiles('stat', folders)(occasion);
      }),
      {
        name: `ls -l, cold caches, ${where}`,
        unit: 'op/s',
        goesOn: true,
        prepare: settleAndDropCaches,
        measure: listLong(folders),
      },
      row('rename', 'rename'),
      row('unlink', 'unlink'),
    ];
  }),
  {
    name: 'untar a source tree',
    unit: 's',
    prepare: async (occasion) => {
      await settle(occasion);
      mkdirSync(treeOf(occasion));
    },
    measure: async (occasion) => await timed(occasion, 'tar', ['-xf', occasion.archive]),
  },
  {
    name: 'git add and commit of it',
    unit: 's',
    goesOn: true,
    prepare: async (occasion) => {
      await timed(occasion, 'git', ['init', '-q']);
    },
    measure: async (occasion) =>
      (await timed(occasion, 'git', [...GIT, 'add', '.'])) +
      (await timed(occasion, 'git', [...GIT, 'commit', '-qm', 'all'])),
  },
  {
    name: 'git status, cold caches',
    unit: 's',
    goesOn: true,
    prepare: settleAndDropCaches,
    measure: async (occasion) => await timed(occasion, 'git', ['status', '--porcelain']),
  },
  {
    name: 'git checkout of all files',
    unit: 's',
    goesOn: true,
    prepare: async (occasion) => {
      const tree = treeOf(occasion);
      await occasion.run.must('sh', ['-c', 'find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +'], {
        cwd: tree,
        timeoutMs: 10 * MINUTES,
      });
    },
    measure: async (occasion) => await timed(occasion, 'git', ['checkout', '-q', '--', '.']),
  },
  {
    name: 'rm -rf of it',
    unit: 's',
    goesOn: true,
    measure: async (occasion) => await timed(occasion, 'rm', ['-rf', treeOf(occasion)], '/'),
  },
  {
    name: 'npm ci from a warm cache',
    unit: 's',
    prepare: async (occasion) => {
      const warm = join(occasion.run.dir, 'project');
      if (!existsSync(warm)) {
        makeProject(warm);
        await npmInstall(occasion, warm, ['--prefer-offline']);
      }
      await settle(occasion);
      makeProject(projectOf(occasion));
    },
    measure: async (occasion) => await npmInstall(occasion, projectOf(occasion), ['--offline']),
  },
  {
    name: 'rm -rf of what npm installed',
    unit: 's',
    goesOn: true,
    measure: async (occasion) => await timed(occasion, 'rm', ['-rf', projectOf(occasion)], '/'),
  },
  { name: 'sqlite, a transaction per row', unit: 'op/s', measure: sqlite },
  {
    name: 'write and upload until durable',
    unit: 'MB/s',
    remote: true,
    prepare: settle,
    measure: upload,
  },
];

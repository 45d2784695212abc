// What `npm run bench` measures on one folder, be it a mount or not.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../support/run.ts';
import type { Run } from '../support/run.ts';

const MINUTES = 60_000;

/** A folder to measure. */
export interface Target {
  readonly name: string;
  readonly dir: string;
  /** Waits until nothing goes on in the background that would disturb the next measurement. */
  settle(): Promise<void>;
}

/** How much to move. */
export interface Amounts {
  readonly sizeMib: number;
  readonly files: number;
}

/** One thing to measure; the rounds run all workloads in this order. */
export interface Workload {
  readonly name: string;
  readonly unit: string;
  measure(run: Run, target: Target, amounts: Amounts): Promise<number>;
}

/** Writes back and forgets the page cache, the kernel's names and attributes included; root only. */
async function dropCaches(run: Run): Promise<void> {
  await run.exec('sync', [], { timeoutMs: 5 * MINUTES });
  if (process.getuid?.() === 0) writeFileSync('/proc/sys/vm/drop_caches', '3');
}

interface FioOutput {
  readonly jobs: readonly { job_runtime: number; read: FioSide; write: FioSide }[];
}

interface FioSide {
  readonly io_bytes: number;
  readonly total_ios: number;
}

/** Runs one fio job on a file of the target; bytes and operations per second over its whole time, fsync included. */
async function fio(run: Run, target: Target, args: readonly string[]): Promise<{ bytes: number; operations: number }> {
  const common = ['--name=xcore', '--ioengine=psync', '--fallocate=none', '--output-format=json'];
  const output = await run.must('fio', [...common, `--filename=${join(target.dir, 'fio.bin')}`, ...args], {
    timeoutMs: 20 * MINUTES,
  });
  // fio may say something before its JSON.
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as FioOutput;
  const [job] = jobs;
  if (!job) throw new Error('fio reported no job');
  const seconds = job.job_runtime / 1000;
  return {
    bytes: (job.read.io_bytes + job.write.io_bytes) / seconds,
    operations: (job.read.total_ios + job.write.total_ios) / seconds,
  };
}

async function manyFiles(run: Run, target: Target, what: string, count: number): Promise<number> {
  const args = [join(ROOT, 'test/bench/files.ts'), what, join(target.dir, 'files'), String(count)];
  const ms = Number(await run.must(process.execPath, args, { timeoutMs: 20 * MINUTES }));
  return count / (ms / 1000);
}

/** All workloads. */
export const WORKLOADS: readonly Workload[] = [
  {
    name: 'sequential write, 1 MiB, fsync at the end',
    unit: 'MB/s',
    measure: async (run, target, { sizeMib }) => {
      const { bytes } = await fio(run, target, ['--rw=write', '--bs=1M', `--size=${sizeMib}M`, '--end_fsync=1']);
      return bytes / 1e6;
    },
  },
  {
    name: 'sequential read, 1 MiB, cold page cache',
    unit: 'MB/s',
    measure: async (run, target, { sizeMib }) => {
      await target.settle();
      await dropCaches(run);
      const { bytes } = await fio(run, target, ['--rw=read', '--bs=1M', `--size=${sizeMib}M`]);
      return bytes / 1e6;
    },
  },
  {
    name: 'random read, 4 KiB, cold page cache',
    unit: 'op/s',
    measure: async (run, target, { sizeMib }) => {
      await dropCaches(run);
      const args = ['--rw=randread', '--bs=4k', `--size=${sizeMib}M`, '--time_based', '--runtime=5', '--randrepeat=0'];
      return (await fio(run, target, args)).operations;
    },
  },
  {
    name: 'random write, 4 KiB, fsync at the end',
    unit: 'op/s',
    measure: async (run, target, { sizeMib }) => {
      const ioSize = `--io_size=${Math.max(1, Math.floor(sizeMib / 16))}M`;
      const args = ['--rw=randwrite', '--bs=4k', `--size=${sizeMib}M`, ioSize, '--end_fsync=1', '--randrepeat=0'];
      return (await fio(run, target, args)).operations;
    },
  },
  {
    name: 'create, empty files',
    unit: 'op/s',
    measure: async (run, target, { files }) => {
      await target.settle();
      return await manyFiles(run, target, 'create', files);
    },
  },
  {
    name: 'list and stat, cold caches',
    unit: 'op/s',
    measure: async (run, target, { files }) => {
      await dropCaches(run);
      return await manyFiles(run, target, 'stat', files);
    },
  },
  {
    name: 'unlink',
    unit: 'op/s',
    measure: async (run, target, { files }) => await manyFiles(run, target, 'unlink', files),
  },
];

// Runs fio on one file of a target.

import { join } from 'node:path';
import type { Occasion } from './occasion.ts';

interface FioOutput {
  readonly jobs: readonly { job_runtime: number; read: FioSide; write: FioSide }[];
}

interface FioSide {
  readonly io_bytes: number;
  readonly total_ios: number;
}

/** Runs fio on a file of the target; bytes and operations per second over its whole time, fsync included. */
export async function fio(
  { run, target, amounts, limitMs }: Occasion,
  args: readonly string[],
): Promise<{ bytes: number; operations: number }> {
  const common = ['--name=xcore', '--ioengine=psync', '--fallocate=none', '--output-format=json', '--group_reporting'];
  const file = [`--filename=${join(target.dir, 'fio.bin')}`, `--size=${amounts.sizeMib}M`, '--randrepeat=0'];
  const output = await run.must('fio', [...common, ...file, ...args], { timeoutMs: limitMs });
  // fio may say something before its JSON.
  const { jobs } = JSON.parse(output.slice(output.indexOf('{'))) as FioOutput;
  const [job] = jobs;
  if (!job) throw new Error('fio reported no job');
  const threads = Number(args.find((arg) => arg.startsWith('--numjobs='))?.slice('--numjobs='.length) ?? 1);
  // fio sums the running times of the jobs of a group
  const seconds = job.job_runtime / 1000 / threads;
  return {
    bytes: (job.read.io_bytes + job.write.io_bytes) / seconds,
    operations: (job.read.total_ios + job.write.total_ios) / seconds,
  };
}

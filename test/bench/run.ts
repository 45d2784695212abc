// `npm run bench`: figures of a real mount (a bridge and three hosts as processes on loopback) beside
// those of the folder below it without FUSE. No thresholds: it prints what it measured.

import { mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { withNetwork } from '../support/network.ts';
import type { Scope } from '../support/run.ts';
import { WORKLOADS } from './workloads.ts';
import type { Amounts, Target } from './workloads.ts';

interface Figure {
  readonly workload: string;
  readonly unit: string;
  /** Median and all rounds of each target. */
  readonly mount: { median: number; rounds: number[] };
  readonly plain: { median: number; rounds: number[] };
}

const teardowns: (() => unknown)[] = [];
let finished = false;
/** Stands for a test: helpers clean up through it, however this ends. */
const scope: Scope = {
  teardown: (handler) => teardowns.push(handler),
  comment: (...args) => console.error(...args),
  passing: () => finished,
};

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1] ?? NaN, sorted[middle] ?? NaN];
  return (low + high) / 2;
}

function peakMib(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1] ?? NaN) / 1024);
}

async function bench(rounds: number, amounts: Amounts): Promise<{ figures: Figure[]; peakMemoryMib: number }> {
  const net = await withNetwork(scope, { hosts: 3 });
  const fio = await net.run.exec('fio', ['--version']);
  if (fio.code !== 0) throw new Error('fio is missing; install it with: apt-get install fio');
  const client = await net.newClient('a');
  const plain = join(net.run.dir, 'plain');
  mkdirSync(plain);
  const targets: Record<'mount' | 'plain', Target> = {
    plain: { name: 'plain', dir: plain, settle: async () => {} },
    mount: { name: 'mount', dir: await client.mount(), settle: async () => await client.flush() },
  };
  const results = WORKLOADS.map(() => ({ mount: [] as number[], plain: [] as number[] }));
  for (let round = 1; round <= rounds; round++) {
    for (const name of ['plain', 'mount'] as const) {
      for (const [n, workload] of WORKLOADS.entries()) {
        const value = await workload.measure(net.run, targets[name], amounts);
        results[n]?.[name].push(value);
        console.error(`round ${round}/${rounds} ${name}: ${workload.name}: ${Math.round(value)} ${workload.unit}`);
      }
      await targets[name].settle();
    }
  }
  const figures = WORKLOADS.map(({ name, unit }, n) => {
    const { mount, plain: below } = results[n] ?? { mount: [], plain: [] };
    return {
      workload: name,
      unit,
      mount: { median: median(mount), rounds: mount },
      plain: { median: median(below), rounds: below },
    };
  });
  const peakMemoryMib = peakMib(await client.daemonPid());
  await client.umount();
  return { figures, peakMemoryMib };
}

function print(figures: readonly Figure[], peakMemoryMib: number, machine: string): void {
  const width = Math.max(...figures.map((figure) => figure.workload.length));
  const cell = (text: string): string => text.padStart(12);
  console.log(`${machine}\n`);
  console.log(`${''.padEnd(width)}${cell('mount')}${cell('no FUSE')}${cell('share')}`);
  for (const { workload, unit, mount, plain } of figures) {
    const share = `${Math.round((mount.median / plain.median) * 100)} %`;
    const [above, below] = [mount, plain].map(({ median: value }) => cell(Math.round(value).toLocaleString('en')));
    console.log(`${workload.padEnd(width)}${above}${below}${cell(share)}  ${unit}`);
  }
  console.log(`\nlargest resident size of the daemon: ${peakMemoryMib} MiB`);
}

const options = yargs(hideBin(process.argv))
  .usage('npm run bench -- [options]')
  .option('rounds', { type: 'number', default: 3, describe: 'rounds; the table shows medians' })
  .option('size', { type: 'number', default: 1024, describe: 'size of the file, MiB' })
  .option('files', { type: 'number', default: 10_000, describe: 'files to create, stat and unlink' })
  .option('json', { type: 'boolean', default: false, describe: 'print JSON with every round' })
  .strict()
  .parseSync();

try {
  const { figures, peakMemoryMib } = await bench(options.rounds, { sizeMib: options.size, files: options.files });
  const processor = `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown processor'}`;
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const filesystem = `filesystem type 0x${statfsSync(process.env['XCORE_TEST_TMP'] ?? tmpdir()).type.toString(16)}`;
  const machine = `${processor}, ${memory}, Linux ${release()}, Node ${process.version}, ${filesystem}`;
  if (options.json) console.log(JSON.stringify({ machine, options, figures, peakMemoryMib }, null, 2));
  else print(figures, peakMemoryMib, machine);
  finished = true;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  for (const handler of teardowns.reverse()) await handler();
}

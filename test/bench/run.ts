// `npm run bench`: the same work on a real mount (a bridge and hosts as processes on loopback), on the
// plain folder below it and, with --peers, on other filesystems, by turns. No thresholds: it prints
// what it measured.

import { mkdirSync, statfsSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { withNetwork } from '../support/network.ts';
import { ROOT } from '../support/run.ts';
import type { Run, Scope } from '../support/run.ts';
import type { Amounts } from './occasion.ts';
import { PEER_PACKAGES, Peers } from './peers.ts';
import { drawingOf, markdownOf, median, tableOf } from './report.ts';
import type { Cell, Report, Row } from './report.ts';
import type { Target } from './target.ts';
import { cpuSeconds, peakMib, resetPeak } from './usage.ts';
import { mountWorkloads, WORKLOADS } from './workloads.ts';
import type { Workload } from './workloads.ts';
import { startXcore } from './xcore-target.ts';

/** What our own turns, and those on the plain folder, may take. */
const LIMIT_MS = 20 * 60_000;
const ARCHIVED = ['eslint', '@typescript-eslint', 'prettier', '@libp2p', '@tapjs', 'typescript-eslint'];

const teardowns: (() => unknown)[] = [];
let finished = false;
/** Stands for a test: helpers clean up through it, however this ends. */
const scope: Scope = {
  teardown: (handler) => teardowns.push(handler),
  comment: (...args) => console.error(...args),
  passing: () => finished,
};

async function tearDown(): Promise<void> {
  for (const handler of teardowns.splice(0).reverse()) await handler();
}

interface Options {
  readonly rounds: number;
  readonly hosts: number;
  readonly mirrors: number;
  readonly peers: readonly string[];
  readonly only: string;
  /** After so long a peer's turn is ended. */
  readonly limitSeconds: number;
  readonly amounts: Amounts;
}

async function startTargets(run: Run, xcore: () => Promise<Target>, names: readonly string[]): Promise<Target[]> {
  const plain = join(run.dir, 'plain');
  mkdirSync(plain);
  const targets: Target[] = [{ name: 'plain', dir: plain, pids: () => [], settle: async () => {} }];
  const peers = new Peers(run);
  teardowns.push(() => peers.stop());
  for (const name of names) {
    const target = await peers.start(name);
    if (target) targets.push(target);
    else console.error(`${name} is left out; install it with: apt-get install ${PEER_PACKAGES[name]?.join(' ')}`);
  }
  return [...targets, await xcore()];
}

/** Targets that had a turn since they were quiet. */
const busy = new Set<Target>();

/** Lets only one target do anything: what another has left to do must not slow it. */
async function quieten(target: Target): Promise<void> {
  target.resume?.();
  for (const other of busy) {
    if (other === target) continue;
    if (other.pause) other.pause();
    else await other.settle();
    busy.delete(other);
  }
  busy.add(target);
}

/** Targets, with the round, in which a workload failed, so that those that go on from it say nothing. */
const broken = new Set<string>();

/** All rounds of one workload, the targets by turns and a different one first in each round. */
async function measureRow(
  run: Run,
  workload: Workload,
  targets: readonly Target[],
  archive: string,
  { rounds, amounts, limitSeconds }: Options,
): Promise<Row> {
  const seen = new Map(
    targets.map(({ name }) => [
      name,
      { rounds: [] as number[], cpu: [] as number[], network: [] as number[], peak: 0, isEnded: false },
    ]),
  );
  for (let round = 1; round <= rounds; round++) {
    const turn = (round - 1) % targets.length;
    for (const target of [...targets.slice(turn), ...targets.slice(0, turn)]) {
      if ((workload.remote && !target.forget) || (workload.remounts && !target.remount)) continue;
      const what = `${workload.name}: round ${round}/${rounds} ${target.name}`;
      const cell = seen.get(target.name);
      const isPeer = target.name in PEER_PACKAGES;
      const attempt = `${target.name} ${round}`;
      if (workload.goesOn === true && broken.has(attempt)) continue;
      broken.delete(attempt);
      const limitMs = isPeer ? limitSeconds * 1000 : LIMIT_MS;
      let startedMs = Infinity;
      try {
        const occasion = { run, target, amounts, round, archive, limitMs };
        await quieten(target);
        await workload.prepare?.(occasion);
        resetPeak(target.pids());
        const servers = target.servers?.() ?? [];
        const before = [cpuSeconds(target.pids()), cpuSeconds(servers)] as const;
        startedMs = performance.now();
        const value = await workload.measure(occasion);
        cell?.rounds.push(value);
        cell?.cpu.push(cpuSeconds(target.pids()) - before[0]);
        cell?.network.push(cpuSeconds(servers) - before[1]);
        if (cell) cell.peak = Math.max(cell.peak, peakMib(target.pids()));
        console.error(`${what}: ${value.toFixed(2)} ${workload.unit}`);
      } catch (error) {
        // what another filesystem cannot do is a result; what ours cannot do is a fault
        if (!isPeer) throw error;
        broken.add(attempt);
        const isEnded = performance.now() - startedMs >= limitMs;
        if (isEnded && cell) cell.isEnded = true;
        console.error(`${what}: ${isEnded ? `ended after ${limitSeconds} s` : `failed: ${String(error)}`}`);
      }
    }
  }
  const cells: Record<string, Cell> = {};
  for (const [name, { rounds: values, cpu, network, peak, isEnded }] of seen) {
    if (values.length === 0 && !isEnded) continue;
    cells[name] = {
      rounds: values,
      median: median(values),
      cpuSeconds: median(cpu),
      serverCpuSeconds: median(network),
      peakMib: peak,
      ...(isEnded ? { endedAfter: limitSeconds } : {}),
    };
  }
  return { workload: workload.name, unit: workload.unit, cells };
}

/** Measures row by row; `report` has those that are done, also while it goes on. */
async function bench(options: Options, report: Report & { rows: Row[]; targets: string[] }): Promise<void> {
  const net = await withNetwork(scope, { hosts: options.hosts, bridge: ['--mirrors', String(options.mirrors)] });
  const { run } = net;
  for (const tool of ['fio', 'git', 'sqlite3', 'tar']) {
    const { code } = await run.exec(tool, ['--version']);
    if (code !== 0) throw new Error(`${tool} is missing; install it with: apt-get install ${tool}`);
  }
  const archive = join(run.dir, 'tree.tar');
  // without links, which rclone does not have
  const args = ['-cf', archive, '--exclude=node_modules', '-C', join(ROOT, 'node_modules'), ...ARCHIVED];
  await run.must('tar', args, { timeoutMs: 120_000 });
  const targets = await startTargets(run, async () => await startXcore(net), options.peers);
  report.targets.push(...targets.map(({ name }) => name));
  for (const workload of [...WORKLOADS, ...mountWorkloads(options.amounts)]) {
    if (!options.only.split(',').some((text) => workload.name.includes(text))) continue;
    report.rows.push(await measureRow(run, workload, targets, archive, options));
  }
}

const args = yargs(hideBin(process.argv))
  .usage('npm run bench -- [options]')
  .option('rounds', { type: 'number', default: 3, describe: 'rounds; the table shows medians' })
  .option('size', { type: 'number', default: 1024, describe: 'size of the big file, MiB' })
  .option('files', { type: 'number', default: 10_000, describe: 'small files to create, stat, rename and unlink' })
  .option('mounted', {
    type: 'string',
    default: '10,100000',
    coerce: (list: string) => list.split(',').filter(Boolean).map(Number),
    describe: 'files of volumes to mount; 1000000 takes many minutes',
  })
  .option('hosts', { type: 'number', default: 4, describe: 'hosts of the network' })
  .option('mirrors', { type: 'number', default: 2, describe: 'mirrors of each shard' })
  .option('peers', {
    type: 'string',
    coerce: (names?: string) => (names === '' ? Object.keys(PEER_PACKAGES) : (names?.split(',') ?? [])),
    describe: `compare with ${Object.keys(PEER_PACKAGES).join(', ')}; some of them after a =`,
  })
  .option('only', {
    type: 'string',
    default: '',
    describe: 'only workloads whose names contain one of these texts, after commas',
  })
  .option('limit', { type: 'number', default: 60, describe: 'seconds after which the turn of a peer is ended' })
  .option('json', { type: 'boolean', default: false, describe: 'print JSON with every round' })
  .option('markdown', { type: 'string', describe: 'write the table for a document into this file' })
  .option('save', { type: 'string', describe: 'write JSON with every round into this file' })
  .option('svg', { type: 'string', describe: 'draw the result into this file' })
  .strict()
  .parseSync();

const processor = `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown processor'}`;
const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
const filesystem = `filesystem type 0x${statfsSync(process.env['XCORE_TEST_TMP'] ?? tmpdir()).type.toString(16)}`;
const machine = `${processor}, ${memory}, Linux ${release()}, Node ${process.version}, ${filesystem}`;
const report = { machine, rounds: args.rounds, targets: [] as string[], rows: [] as Row[] };

function show(): void {
  if (report.rows.length === 0) return;
  console.log(args.json ? JSON.stringify(report, null, 2) : tableOf(report));
  if (args.save) writeFileSync(args.save, JSON.stringify(report, null, 2));
  if (args.markdown) writeFileSync(args.markdown, `${markdownOf(report)}\n`);
  if (args.svg) writeFileSync(args.svg, drawingOf(report));
}

// who interrupts it sees the rows that are done
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    show();
    void tearDown().finally(() => process.exit(130));
  });
}

try {
  const { rounds, hosts, mirrors, peers, only, limit: limitSeconds } = args;
  const amounts = { sizeMib: args.size, files: args.files, mounted: args.mounted };
  await bench({ rounds, hosts, mirrors, peers: peers ?? [], only, limitSeconds, amounts }, report);
  show();
  finished = true;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  await tearDown();
}

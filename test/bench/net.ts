// `npm run bench:net`: whole shards, and single leaves of them, between a client's network thread and hosts
// as processes of their own on loopback, and what they cost. No thresholds: it prints what it measured.

import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import type { ShardSource } from '../../src/net/network.ts';
import { WorkerNetwork } from '../../src/net/worker-network.ts';
import { withNetwork } from '../support/network.ts';
import type { Scope } from '../support/run.ts';

const SHARD_BYTES = 2_097_152;
const LEAVES = 128;
const TICKS_PER_SECOND = 100;

/** Reads of leaves under way at once, measured in turn. */
const READERS = [1, 16];

interface Figure {
  readonly what: string;
  readonly seconds: number;
  /** GB of shards, mirrors not counted, or millions of leaves. */
  readonly amount: number;
  readonly isBytes: boolean;
  /** CPU seconds. */
  readonly clientCpu: number;
  readonly hostsCpu: number;
}

/** CPU seconds of a process so far. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function peakMib(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1] ?? NaN) / 1024);
}

function makeShards(dir: string, count: number): ShardSource[] {
  return Array.from({ length: count }, () => {
    const data = randomBytes(SHARD_BYTES);
    const id = shardIdOf(leafHashes(data), SHARD_BYTES);
    const path = join(dir, id.toString('hex'));
    writeFileSync(path, data);
    return { id, sizeBytes: SHARD_BYTES, path };
  });
}

/** Reads leaves drawn at random, so many at once. */
async function readLeaves(
  network: WorkerNetwork,
  shards: ShardSource[],
  reads: number,
  readers: number,
): Promise<void> {
  let begun = 0;
  const reader = async (): Promise<void> => {
    while (begun++ < reads) {
      const shard = shards[Math.floor(Math.random() * shards.length)]!;
      await network.fetchLeaves(shard.id, shard.sizeBytes, Math.floor(Math.random() * LEAVES), 1);
    }
  };
  await Promise.all(Array.from({ length: readers }, reader));
}

interface Amounts {
  readonly hosts: number;
  readonly shards: number;
  readonly leaves: number;
  readonly rounds: number;
}

async function measure(scope: Scope, { hosts, shards: count, leaves, rounds }: Amounts): Promise<Figure[]> {
  const net = await withNetwork(scope, { hosts });
  const network = new WorkerNetwork({
    bridge: net.bridge.address,
    deviceSeed: randomBytes(32),
    ownerSeed: randomBytes(32),
  });
  await network.start();
  scope.teardown(() => network.stop());
  const dir = join(net.run.dir, 'shards');
  const fetched = join(net.run.dir, 'fetched');
  mkdirSync(dir);
  mkdirSync(fetched);
  const figures: Figure[] = [];
  const timed = async (what: string, amount: number, isBytes: boolean, work: () => Promise<unknown>): Promise<void> => {
    const pids = net.hosts.map((host) => host.pid);
    const before = { client: cpuOf(process.pid), hosts: pids.map(cpuOf), ms: performance.now() };
    await work();
    figures.push({
      what,
      seconds: (performance.now() - before.ms) / 1000,
      amount,
      isBytes,
      clientCpu: cpuOf(process.pid) - before.client,
      hostsCpu: pids.reduce((sum, pid, n) => sum + cpuOf(pid) - (before.hosts[n] ?? 0), 0),
    });
  };
  await network.announce(0);
  for (let round = 0; round < rounds; round++) {
    const shards = makeShards(dir, count);
    const gigabytes = (count * SHARD_BYTES) / 1e9;
    await timed('upload', gigabytes, true, () => Promise.all(shards.map((shard) => network.upload(shard))));
    await network.expect(shards.map(({ id }) => id));
    for (const readers of leaves > 0 ? READERS : []) {
      await readLeaves(network, shards, leaves / 8, readers);
      const what = `leaves, ${readers} at once`;
      await timed(what, leaves / 1e6, false, () => readLeaves(network, shards, leaves, readers));
    }
    const memory = shards.map(() => new SharedArrayBuffer(SHARD_BYTES));
    await timed('fetch', gigabytes, true, () =>
      Promise.all(
        shards.map(({ id, sizeBytes }, n) =>
          network.fetchShard(id, sizeBytes, join(fetched, `${n}`), undefined, memory[n]),
        ),
      ),
    );
    for (const { path } of shards) rmSync(path);
  }
  const { problems } = await network.status();
  for (const { code, message } of problems) console.error(`problem: ${code} ${message}`);
  console.error(`peak of hosts ${net.hosts.map((host) => peakMib(host.pid)).join(', ')} MiB`);
  await network.stop();
  for (const server of [...net.hosts, net.bridge]) await server.stop();
  return figures;
}

function lineOf({ what, seconds, amount, isBytes, clientCpu, hostsCpu }: Figure): string {
  const speed = (amount * (isBytes ? 1e3 : 1e6)) / seconds;
  const unit = isBytes ? 'CPU s/GB' : 'CPU us each';
  const costOf = (cpu: number): string => (cpu / amount).toFixed(isBytes ? 2 : 0).padStart(8);
  return (
    `${what.padEnd(20)}${speed.toFixed(0).padStart(6)} ${isBytes ? 'MB/s' : 'op/s'}` +
    `${costOf(clientCpu)} ${unit} client${costOf(hostsCpu)} ${unit} hosts`
  );
}

const options = yargs(hideBin(process.argv))
  .usage('npm run bench:net -- [options]')
  .option('hosts', {
    type: 'number',
    array: true,
    default: [1, 3],
    describe: 'how many hosts; several are measured in turn',
  })
  .option('shards', { type: 'number', default: 128, describe: 'shards of 2 MiB in a round' })
  .option('leaves', { type: 'number', default: 4_000, describe: 'leaves that are read by themselves in a round' })
  .option('rounds', { type: 'number', default: 3, describe: 'rounds' })
  .strict()
  .parseSync();

const teardowns: (() => unknown)[] = [];
let finished = false;
const scope: Scope = {
  teardown: (handler) => teardowns.push(handler),
  comment: (...args) => console.error(...args),
  passing: () => finished,
};
try {
  for (const hosts of options.hosts) {
    console.log(`${hosts} host${hosts === 1 ? '' : 's'}, ${options.shards} shards a round`);
    for (const figure of await measure(scope, { ...options, hosts })) console.log(lineOf(figure));
  }
  console.log(`largest resident size of the client ${peakMib(process.pid)} MiB`);
  finished = true;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  for (const handler of teardowns.reverse()) await handler();
}

// `npm run bench:bridge`: what one bridge with many hosts and shards can do and costs, at growing sizes. Hosts are simulated,
// nothing travels: the bridge's own code, its store and the signatures are what is measured. No thresholds.

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { measureAudits, measurePlacing, measureRepair, measureStart, measureUpkeep } from './bridge-measures.ts';
import type { Figures } from './bridge-measures.ts';
import { measureQueue, settle } from './bridge-queue.ts';
import { BridgeWorld } from './bridge-world.ts';

const options = yargs(hideBin(process.argv))
  .usage('npm run bench:bridge -- [options]')
  .option('hosts', { type: 'number', default: 10_000, describe: 'registered hosts' })
  .option('shards', {
    type: 'string',
    default: '100000,1000000',
    describe: 'shards in the store, several sizes in turn; a million takes 0.9 GB of disk',
  })
  .option('lost', { type: 'number', default: 40, describe: 'one in so many hosts is lost, at the largest size' })
  .option('only-queue', { type: 'boolean', default: false, describe: 'measure nothing but what lost hosts cost' })
  .option('dir', { type: 'string', default: tmpdir(), describe: 'where to put the stores' })
  .option('json', { type: 'boolean', default: false, describe: 'print JSON instead of a table' })
  .strict()
  .parseSync();

const START_SCRIPT = join(import.meta.dirname, 'bridge-start.ts');

function show(columns: ReadonlyMap<string, Figures>): void {
  const names = [...new Set([...columns.values()].flatMap((figures) => Object.keys(figures)))];
  const widest = Math.max(...names.map((name) => name.length));
  const line = (name: string, cells: readonly string[]): void =>
    console.log(name.padEnd(widest) + cells.map((cell) => cell.padStart(16)).join(''));
  line('', [...columns.keys()]);
  for (const name of names) {
    const cells = [...columns.values()].map((figures) => {
      const value = figures[name];
      return value === undefined ? '' : value.toLocaleString('en', { maximumSignificantDigits: 3 });
    });
    line(name, cells);
  }
}

async function measureAll(world: BridgeWorld): Promise<Figures> {
  return {
    ...(await measureStart(world, START_SCRIPT)),
    ...(await measurePlacing(world)),
    ...(await measureAudits(world)),
    ...(await measureUpkeep(world)),
    ...(await measureSettled(world)),
  };
}

/** Placing in a store that time has brought in order. */
async function measureSettled(world: BridgeWorld): Promise<Figures> {
  await settle(world);
  for (const host of [...world.network.hosts, ...world.hosts]) await host.beat(1e12);
  const placing = Object.entries(await measurePlacing(world)).filter(([name]) => !name.includes('online'));
  return Object.fromEntries(placing.map(([name, value]) => [`settled: ${name}`, value]));
}

const sizes = options.shards
  .split(',')
  .map(Number)
  .sort((a, b) => a - b);
if (sizes.some((size) => !Number.isInteger(size) || size < 0)) throw new RangeError('--shards are numbers');
const world = await BridgeWorld.start(options.dir);
try {
  const columns = new Map<string, Figures>();
  console.error('repair');
  const repair = options.onlyQueue ? {} : await measureRepair(world);
  console.error(`registering ${options.hosts} hosts`);
  await world.join(options.hosts);
  for (const size of sizes) {
    console.error(`writing ${size} shards`);
    const started = performance.now();
    await world.fill(size);
    console.error('measuring');
    const figures = {
      'filled in s': (performance.now() - started) / 1_000,
      ...(options.onlyQueue ? {} : await measureAll(world)),
      // The last one: it leaves hosts lost.
      ...(size === sizes.at(-1) ? await measureQueue(world, options.lost) : {}),
      ...repair,
    };
    columns.set(`${size} shards`, figures);
    // Larger sizes may take an hour.
    console.error(JSON.stringify(figures));
  }
  if (options.json) console.log(JSON.stringify({ hosts: options.hosts, figures: Object.fromEntries(columns) }));
  else show(columns);
} finally {
  await world.end();
}

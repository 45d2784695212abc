// Twelve hosts on machines and networks of their own, on slow lines that lose packets, under a user who writes and reads,
// while hosts are killed, cut off, corrupted and restarted by turns: no byte is lost, and every turn ends at full mirrors.
// Needs root (network namespaces). Seconds of faults: XCORE_TEST_WEATHER=60; ten minutes with XCORE_TEST_LONG=1.

import { readFile } from 'node:fs/promises';
import { rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import { callHost } from '../../src/host/control.ts';
import { corruptShards, shardFiles, ShardCounts } from '../support/hosts.ts';
import { withNetwork } from '../support/network.ts';
import type { Server } from '../support/network.ts';
import { pickSeed, Random } from '../support/random.ts';
import { Run, until } from '../support/run.ts';
import { sha256, UserAtWork } from '../support/user-at-work.ts';
import { missingForWeather, Weather } from '../support/weather.ts';

const HOSTS = 12;
const BRIDGE_NUMBER = 100;
const USER_NUMBER = 200;
const OTHER_NUMBER = 201;
const LINE = { mbit: 100, delayMs: 10, loss: 0.002 };
const REPAIR_AFTER = '5s';
/** From ten hosts on. */
const MIRRORS = 4;
/** What makes a shard durable. */
const RECEIPTS = 3;
/** What there is before the first fault. */
const FIRST_SHARDS = 12;
/** Hosts that failed last do not fail again so soon. */
const MAX_RECENT = 6;
const FULL_AGAIN_MS = 180_000;

const isLong = process.env['XCORE_TEST_LONG'] === '1';
const seconds = isLong ? 600 : Number(process.env['XCORE_TEST_WEATHER'] ?? 8);
const maxFiles = seconds > 30 ? 32 : 12;
const missing = missingForWeather();

t.setTimeout(seconds * 1_000 + 600_000);

type Fault = 'kill' | 'cut off' | 'corrupt' | 'restart';

/** What happens in one turn, each to another host. */
const TURNS: readonly (readonly Fault[])[] = [
  ['kill', 'cut off', 'corrupt'],
  ['restart'],
  ['cut off'],
  ['corrupt'],
  ['kill'],
];

await t.test('hosts fail by turns under a user at work: nothing is lost', { skip: missing ?? false }, async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}, ${seconds} s of faults`);
  const random = new Random(`${seed} faults`);
  const run = new Run(t);
  const numbers = Array.from({ length: HOSTS }, (_, n) => n + 1);
  const weather = await Weather.start(t, run, [...numbers, BRIDGE_NUMBER, USER_NUMBER, OTHER_NUMBER], LINE);
  const net = await withNetwork(t, {
    run,
    hosts: HOSTS,
    bridge: ['--repair-after', REPAIR_AFTER, '--audits-per-day', '172800'],
    place: (name) => weather.machine(name === 'bridge' ? BRIDGE_NUMBER : Number(name.slice('host'.length))),
  });
  const numberOf = (host: Server): number => net.hosts.indexOf(host) + 1;
  const writer = await net.newClient('writer', weather.machine(USER_NUMBER));
  const words = await writer.phrase();
  const mount = await writer.mount('--cache-size', '64MiB');
  const user = new UserAtWork(mount, { seed, maxFiles });
  const counts = new ShardCounts();
  const full = (): number => [...counts.of(net.hosts).values()].filter((count) => count >= MIRRORS).length;
  await until('some shards with all mirrors', () => full() >= FIRST_SHARDS, FULL_AGAIN_MS);
  t.comment(`set up in ${performance.now().toFixed(0)} ms`);

  const harm = async (fault: Fault, host: Server, others: readonly Server[]): Promise<void> => {
    if (fault === 'kill') await host.kill();
    else if (fault === 'cut off') await weather.cutOff(numberOf(host));
    else if (fault === 'restart') await host.restart();
    else {
      // One sound mirror has to be left of each shard, so that there is something to repair it from.
      const safe = counts.of(others);
      corruptShards(host.dir, (path) => (safe.get(basename(path)) ?? 0) > 0);
    }
  };
  const heal = async (fault: Fault, host: Server): Promise<void> => {
    if (fault === 'kill') await host.start();
    if (fault === 'cut off') await weather.rejoin(numberOf(host));
  };
  /** A host whose shards rotted in numbers is out for good. Its owner has a new disk; what was on the old one has been moved away by then. */
  const replaceIfOut = async (host: Server): Promise<void> => {
    const { standing } = await callHost(host.dir, 'status', {});
    if (standing?.state !== 'disqualified') return;
    const held = shardFiles(host.dir).map((path) => basename(path));
    const others = net.hosts.filter((other) => other !== host);
    const below = (): boolean => {
      const now = counts.of(others);
      const own = counts.of([host]);
      return held.some((id) => (own.get(id) ?? 0) > 0 && (now.get(id) ?? 0) < MIRRORS);
    };
    await until(`the shards of ${host.name} to be moved away`, () => !below(), FULL_AGAIN_MS);
    await host.replace();
    t.comment(`${host.name} was disqualified and is replaced`);
  };

  const end = Date.now() + seconds * 1_000;
  const times: number[] = [];
  /** What was repaired while a host was away is surplus when it is back: that host would not be missed. */
  const recent: Server[] = [];
  for (let turn = 0; turn === 0 || Date.now() < end; turn += 1) {
    const faults = TURNS[turn % TURNS.length]!.map((fault) => {
      const host = random.pick(net.hosts.filter((one) => !recent.includes(one)));
      recent.push(host);
      return { fault, host };
    });
    if (recent.length > MAX_RECENT) recent.splice(0, recent.length - MAX_RECENT);
    const left = net.hosts.filter((host) => faults.every((fault) => fault.host !== host));
    const durable = new Map([...counts.of(net.hosts)].filter(([, count]) => count >= RECEIPTS));
    const held = new Set(faults.flatMap(({ host }) => shardFiles(host.dir).map((path) => basename(path))));
    const harmed = [...durable.keys()].filter((id) => held.has(id));
    const what = faults.map(({ fault, host }) => `${fault} ${host.name}`).join(', ');
    const started = performance.now();
    for (const { fault, host } of faults) await harm(fault, host, left);
    const gone = new Set(faults.filter(({ fault }) => fault === 'kill' || fault === 'cut off').map(({ host }) => host));
    const living = net.hosts.filter((host) => !gone.has(host));
    /** Harmed shards that have some mirrors, but not all. One with none left was freed, or the reader at the end misses it. */
    const below = (): string[] => {
      const now = counts.of(living);
      return harmed.filter((id) => (now.get(id) ?? 0) > 0 && now.get(id)! < MIRRORS);
    };
    const fewer = below().length;
    await until(`full mirrors after ${what}`, () => below().length === 0, FULL_AGAIN_MS).catch((error: unknown) => {
      t.comment('still below:', below());
      throw error;
    });
    const took = (performance.now() - started) / 1_000;
    times.push(took);
    t.pass(`${what}: ${fewer} of ${durable.size} shards lacked mirrors; full after ${took.toFixed(1)} s`);
    for (const { fault, host } of faults) await heal(fault, host);
    for (const host of net.hosts) await replaceIfOut(host);
  }
  const work = await user.stop();
  t.comment(
    `${times.length} turns; full mirrors after ${Math.min(...times).toFixed(1)} to ${Math.max(...times).toFixed(1)} s`,
  );
  const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
  t.comment(`wrote ${mib(work.writtenBytes)}, read ${mib(work.readBytes)}, longest step ${work.longestMs} ms`);
  t.same(work.failures, [], 'no write or read failed');

  await writer.umount();
  rmSync(writer.home, { recursive: true });
  const reader = await net.recovered('reader', words, weather.machine(OTHER_NUMBER));
  const again = await reader.mount();
  const other = async ([name, hash]: [string, string]): Promise<string | undefined> => {
    const data = await readFile(join(again, name)).catch((error: unknown) => String(error));
    return typeof data !== 'string' && sha256(data) === hash ? undefined : name;
  };
  const lost: (string | undefined)[] = [];
  for (const file of user.files) lost.push(await other(file));
  t.same(
    lost.filter((name) => name !== undefined),
    [],
    'another machine reads every byte',
  );
  t.equal(user.files.size, work.files);
  t.ok(statSync(again).isDirectory());
  await reader.umount();
});

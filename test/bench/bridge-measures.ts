// What is measured of a bridge, and what follows from it for a TB and a day.

import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { toBinary } from '@bufbuild/protobuf';
import { MirrorIndex } from '../../src/bridge/mirror-index.ts';
import { BRIDGE_DEFAULTS } from '../../src/bridge/options.ts';
import { MAX_SHARD_BYTES } from '../../src/bridge/policy.ts';
import { RepairQueue } from '../../src/bridge/repair-queue.ts';
import { SignedSchema } from '../../src/net/proto/wire_pb.ts';
import type { Signed } from '../../src/net/proto/wire_pb.ts';
import { MAX_PLACE_SHARDS } from '../../src/net/protocols.ts';
import { Party, someShard } from '../bridge/harness.ts';
import type { StartFigures } from './bridge-start.ts';
import type { BridgeWorld } from './bridge-world.ts';

const PLACE_ROUNDS = 16;
const AUDITS = 512;
const DRAWS = 1_000;
/** Rounds of upkeep, one a second by the bridge's clock. */
const ROUNDS = 5;

/** How long something took, and how much processor time. */
export interface Cost {
  readonly ms: number;
  readonly cpuMs: number;
}

/** What was measured at one size; figures by name, with their units. */
export type Figures = Readonly<Record<string, number>>;

/** What it takes. */
export async function costOf(work: () => Promise<unknown>): Promise<Cost> {
  const [started, before] = [performance.now(), process.cpuUsage()];
  await work();
  const { user, system } = process.cpuUsage(before);
  return { ms: performance.now() - started, cpuMs: (user + system) / 1_000 };
}

/** Placements and receipts, by a volume of its own. */
export async function measurePlacing({ bridge, hosts, network }: BridgeWorld): Promise<Figures> {
  const client = await bridge.connect(new Party());
  const byName = new Map(hosts.map((host) => [host.peer, host]));
  const total = { place: { ms: 0, cpuMs: 0 }, confirm: { ms: 0, cpuMs: 0 } };
  const add = async (what: keyof typeof total, work: () => Promise<unknown>): Promise<void> => {
    const { ms, cpuMs } = await costOf(work);
    total[what].ms += ms;
    total[what].cpuMs += cpuMs;
  };
  for (let round = 0; round < PLACE_ROUNDS; round += 1) {
    const shards = Array.from({ length: MAX_PLACE_SHARDS }, () => someShard(MAX_SHARD_BYTES));
    let placed: Awaited<ReturnType<typeof client.place>> | undefined;
    await add('place', async () => (placed = await client.place(shards)));
    // Real hosts would have to be given the bytes.
    const targets = placed!.placements.flatMap((placement) => placement.targets);
    const receipts = targets.flatMap((target) => byName.get(target.host)?.receipt(target) ?? []);
    await add('confirm', () => client.confirm(receipts));
  }
  const shards = PLACE_ROUNDS * MAX_PLACE_SHARDS;
  return {
    'placements/s': (shards * 1_000) / total.place.ms,
    'CPU ms/placement': total.place.cpuMs / shards,
    'shards confirmed/s': (shards * 1_000) / total.confirm.ms,
    'CPU ms/confirmed shard': total.confirm.cpuMs / shards,
    'hosts online': network.hosts.length + hosts.length,
  };
}

/** What the bridge does each second when all is well: heartbeats, the watch, audits that become due, and their writes. */
export async function measureUpkeep({ bridge, hosts, network }: BridgeWorld): Promise<Figures> {
  const { signal } = new AbortController();
  const beats = await costOf(async () => {
    for (const host of hosts) await host.beat(1e12);
  });
  const total = { watch: 0, audits: 0, flush: 0 };
  const secondsPerBeat = BRIDGE_DEFAULTS.heartbeatMs / 1_000;
  for (let round = 0; round <= ROUNDS; round += 1) {
    bridge.clock.advance(1_000);
    for (const host of network.hosts) await host.beat();
    for (let n = round; n < hosts.length; n += secondsPerBeat) await hosts[n]!.beat(1e12);
    const watch = await costOf(() => bridge.care.watch(signal));
    const audits = await costOf(() => bridge.care.auditor.round(signal));
    const flush = await costOf(() => bridge.registry.flush());
    // In the first one all hosts have changed, and none has a time for its audits.
    if (round === 0) continue;
    total.watch += watch.cpuMs / ROUNDS;
    total.audits += audits.cpuMs / ROUNDS;
    total.flush += flush.cpuMs / ROUNDS;
  }
  const beatsCpuMs = beats.cpuMs / secondsPerBeat;
  return {
    'heartbeats/s': (hosts.length * 1_000) / beats.ms,
    'CPU ms/s: heartbeats': beatsCpuMs,
    'CPU ms/s: watch': total.watch,
    'CPU ms/s: audits asked': total.audits,
    'CPU ms/s: hosts stored': total.flush,
    'CPU ms/s: all': beatsCpuMs + total.watch + total.audits + total.flush,
  };
}

/** Audits of real shards on real hosts, and what they come to for a TB and a day. */
export async function measureAudits(world: BridgeWorld): Promise<Figures> {
  const { bridge, network, shards, hosts } = world;
  const { signal } = new AbortController();
  const before = bridge.calls;
  let bytes = 0;
  const sizeOf = (order: Signed): number => toBinary(SignedSchema, order).length;
  bridge.calls = {
    ...before,
    retrieve: async (...call) => {
      const answer = await before.retrieve(...call);
      bytes += sizeOf(call[1]) + answer.data.length + answer.proof.reduce((sum, hash) => sum + hash.length, 0);
      return answer;
    },
    prove: async (...call) => {
      const answer = await before.prove(...call);
      bytes += sizeOf(call[1]) + call[2].length + answer.length;
      return answer;
    },
  };
  const audit = async (count: number, what: 'leaf' | 'hashed'): Promise<{ cost: Cost; bytes: number }> => {
    bytes = 0;
    const cost = await costOf(async () => {
      for (let n = 0; n < count; n += 1) {
        const { shardId } = shards[n % shards.length]!;
        const holders = network.hosts.filter(({ peer }) => world.holders.get(shardId)?.has(peer));
        const outcome = await bridge.care.auditor.audit(holders[n % holders.length]!.peer, shardId, what, signal);
        if (outcome !== 'passed') throw new Error(`an audit ${outcome}`);
      }
    });
    return { cost, bytes: bytes / count };
  };
  const leaf = await audit(AUDITS, 'leaf');
  await world.mintKeys();
  const hashed = await audit(2 * shards.length, 'hashed');
  bridge.calls = before;
  const index = new MirrorIndex({ store: bridge.store, registry: bridge.registry });
  const draw = await costOf(async () => {
    for (let n = 0; n < DRAWS; n += 1) await index.draw(hosts[n % hosts.length]!.peer, Math.random);
  });
  const { auditsPerDay, auditShareADay, hashedAuditShare } = BRIDGE_DEFAULTS;
  const perDay = Math.max(auditsPerDay, (1e12 / MAX_SHARD_BYTES) * auditShareADay);
  const mean = (of: (kind: typeof leaf) => number): number =>
    (1 - hashedAuditShare) * of(leaf) + hashedAuditShare * of(hashed);
  const leafCpuMs = leaf.cost.cpuMs / AUDITS;
  const hashedCpuMs = hashed.cost.cpuMs / (2 * shards.length);
  return {
    'bytes/leaf audit': leaf.bytes,
    'CPU ms/leaf audit, bridge and host': leafCpuMs,
    'bytes/hashed audit': hashed.bytes,
    'CPU ms/hashed audit, bridge and host': hashedCpuMs,
    'CPU ms/draw': draw.cpuMs / DRAWS,
    'audits/TB/day': perDay,
    'audit MB/TB/day': (perDay * mean((kind) => kind.bytes)) / 1e6,
    'audit CPU s/TB/day':
      (perDay * ((1 - hashedAuditShare) * leafCpuMs + hashedAuditShare * hashedCpuMs + draw.cpuMs / DRAWS)) / 1_000,
  };
}

/** Copies from host to host: their owner wants one more mirror of each real shard. */
export async function measureRepair({ bridge, owner, shards, network }: BridgeWorld): Promise<Figures> {
  const { signal } = new AbortController();
  const { clock, store, options } = bridge;
  const { repairRetryMs: retryMs, maxRepairRetryMs: maxRetryMs } = options;
  const queue = new RepairQueue({ store, clock }, { retryMs, maxRetryMs });
  const { mirrors } = await owner.call({ case: 'announce', value: {} }, 'policy');
  await owner.call({ case: 'announce', value: { mirrors: mirrors + 1 } }, 'policy');
  await store.batch(shards.map(({ shardId }) => queue.add(shardId, mirrors)));
  const { ms, cpuMs } = await costOf(() =>
    Promise.all(Array.from({ length: options.parallelRepairs }, () => bridge.care.repair(signal))),
  );
  if (network.copies.length !== shards.length) throw new Error(`${network.copies.length} copies were made`);
  const megabytes = (shards.length * MAX_SHARD_BYTES) / 1e6;
  return {
    'repaired MB/s': (megabytes * 1_000) / ms,
    'CPU s/GB repaired, bridge and both hosts': cpuMs / megabytes,
  };
}

/** Start-up, memory and disk of a bridge in a process of its own on the same store. */
export async function measureStart(world: BridgeWorld, script: string): Promise<Figures> {
  let figures: StartFigures | undefined;
  let diskBytes = 0;
  await world.bridge.reopen(async (dir) => {
    const output = execFileSync(process.execPath, ['--expose-gc', script, dir], { encoding: 'utf8' });
    figures = JSON.parse(output) as StartFigures;
    diskBytes = readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
    return Promise.resolve();
  });
  return {
    'start-up s': figures!.startMs / 1_000,
    'first placement after s': figures!.firstPlacementMs / 1_000,
    'memory of its own MiB': figures!.ownBytes / 2 ** 20,
    'resident MiB, with mapped files': figures!.residentBytes / 2 ** 20,
    'store GB': diskBytes / 1e9,
    'store GB/million shards': world.written > 0 ? (diskBytes / world.written) * 1e-3 : NaN,
  };
}

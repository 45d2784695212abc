// A network of real hosts, looked after by their owners through the control socket.

import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { startBridge } from '../../src/bridge/start-bridge.ts';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { callHost } from '../../src/host/control.ts';
import { startHost } from '../../src/host/start-host.ts';
import type { HostSettings, RunningHost } from '../../src/host/start-host.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { signAuthentication } from '../../src/net/authentication.ts';
import { publicKeyOf } from '../../src/crypto/sign.ts';
import { HostClient } from '../../src/net/host-client.ts';
import { createNode, dialAddresses, peerNameIn } from '../../src/net/node.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { BRIDGE_PROTOCOL } from '../../src/net/protocols.ts';
import { RpcClient } from '../../src/net/rpc.ts';
import { REGISTER_WAIT_MS } from '../net/local-network.ts';
import { corruptShards, intactShards, shardFiles } from '../support/hosts.ts';
import { until } from '../support/run.ts';

const LISTEN = ['/ip4/127.0.0.1/tcp/0'];
const log = silentLogger;
const SHARDS = 10;

// Short paths: testdir can be too long for a socket.
const dir = mkdtempSync(join(tmpdir(), 'xh-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
t.setTimeout(300_000);

const options = {
  ...{ heartbeatMs: 500, upkeepMs: 50, repairAfterMs: 2_000, repairRetryMs: 200, maxRepairRetryMs: 500 },
  // what is harmed here is to be found by its host, not before by an audit
  ...{ auditsPerDay: 0.001, auditShareADay: 0 },
};
const bridge = await startBridge({ dir: join(dir, 'b'), listen: LISTEN, options }, { log });
t.teardown(() => bridge.stop());
const folders = [1, 2, 3, 4].map((number) => join(dir, `h${number}`));
const settingsOf = (folder: string): HostSettings => ({
  dir: folder,
  bridge: bridge.address,
  capacityBytes: 50_000_000,
  listen: LISTEN,
  options: { floorBytes: 0, registerWaitMs: REGISTER_WAIT_MS },
});
const start = (folder: string): Promise<RunningHost> => startHost(settingsOf(folder), { log });
const hosts = await Promise.all(folders.map(start));
const running = new Set(hosts);
t.teardown(async () => {
  for (const host of running) await host.stop();
});

/** Stores shards as a client does that goes away afterwards. */
async function upload(count: number): Promise<string[]> {
  const [seed, owner] = [randomBytes(32), randomBytes(32)];
  const node = await createNode({ seed, listen: [] });
  const client = new HostClient(node);
  try {
    const name = peerNameIn(bridge.address);
    const rpc = new RpcClient(await node.dialProtocol(dialAddresses(name, [bridge.address]), BRIDGE_PROTOCOL));
    const expiresMs = BigInt(Date.now() + 60_000);
    const signature = signAuthentication(owner, name, peerNameOf(seed), expiresMs);
    const volume = publicKeyOf(owner);
    await rpc.call({ case: 'authenticate', value: { volume, expiresMs, signature } }, 'done');
    const ids: string[] = [];
    for (let done = 0; done < count; done += 1) {
      const data = randomBytes(100_000);
      const shardId = shardIdOf(leafHashes(data), data.length);
      const shard = { shardId, sizeBytes: data.length };
      const { placements } = await rpc.call({ case: 'place', value: { shards: [shard] } }, 'placements');
      const receipts = await Promise.all(placements[0]!.targets.map((target) => client.store(target, data)));
      await rpc.call({ case: 'confirm', value: { receipts } }, 'confirmed');
      ids.push(shardId.toString('hex'));
    }
    return ids;
  } finally {
    await client.stop();
    await node.stop();
  }
}

/** Waits until every shard has so many intact mirrors over some folders. */
async function mirrored(ids: readonly string[], count: number, over = folders): Promise<void> {
  await until(`all shards to have ${count} mirrors`, () => {
    const found = over.flatMap(intactShards);
    return ids.every((id) => found.filter((each) => each === id).length === count);
  });
}

await t.test('status tells space, traffic and standing', async (t) => {
  const ids = await upload(SHARDS);
  await mirrored(ids, 3);
  const [folder] = folders;
  const shards = shardFiles(folder!).length;
  const status = await until('the bridge to tell', async () => {
    const now = await callHost(folder!, 'status', {});
    return now.standing?.shards === shards && now;
  });
  t.match(status, {
    host: hosts[0]!.address.split('/p2p/')[1],
    bridge: { connected: true },
    space: { limitBytes: 50_000_000, shards, usedBytes: shards * 100_000 },
    traffic: { inBytes: shards * 100_000 },
    paused: false,
    exiting: false,
    standing: { state: 'vetting', shards, shardBytes: shards * 100_000, mayLeave: false },
  });
  t.ok(status.advice.some((advice) => advice.includes('first audits')));
  await t.rejects(callHost(join(dir, 'none'), 'status', {}), { code: 'UNREACHABLE' });
});

await t.test('what verify finds is made again, and is not held against the host', async (t) => {
  const ids = await upload(SHARDS);
  await mirrored(ids, 3);
  const [, folder] = folders;
  const harmed = corruptShards(folder!);
  t.ok(harmed > 0);
  const seen: number[] = [];
  const result = await callHost(
    folder!,
    'verify',
    {},
    { onProgress: ({ remainingShards }) => seen.push(remainingShards) },
  );
  t.same(result, { shards: harmed, harmed });
  t.equal(seen.at(-1), 0);
  await mirrored(ids, 3);
  t.match((await callHost(folder!, 'status', {})).standing, { auditsFailed: 0 });
});

await t.test('of two hosts with one identity both owners are told, and of a wrong clock', async (t) => {
  const folder = join(dir, 'h1');
  const copy = join(dir, 'copy');
  mkdirSync(copy);
  cpSync(join(folder, 'identity.seed'), join(copy, 'identity.seed'));
  // With a clock that is wrong, too.
  const clock = { ...systemClock, now: () => Date.now() + 3 * 3_600_000 };
  const twin = await startHost(settingsOf(copy), { log, clock });
  t.teardown(() => twin.stop());
  t.equal(twin.address.split('/p2p/')[1], hosts[0]!.address.split('/p2p/')[1]);
  const told = async (of: string, words: RegExp): Promise<boolean> => {
    const { advice, standing } = await callHost(of, 'status', {});
    return [...advice, standing?.reason ?? ''].some((line) => words.test(line));
  };
  await until('the one that is displaced to be told', () =>
    told(folder, /does not take this host: another host with its identity/),
  );
  await until('the other one to be told', () => told(copy, /another host with the same identity is connected/));
  t.ok(await told(copy, /clock is 180 minutes ahead of the bridge's/));
  t.notOk(await told(folder, /clock is/));
  await twin.stop();
  await until('the one that is left to be taken again', async () => !(await told(folder, /does not take this host/)));
});

await t.test('a paused host gets nothing new, also after a restart, until it resumes', async (t) => {
  const [, , folder] = folders;
  t.match(await callHost(folder!, 'pause', {}), { paused: true });
  running.delete(hosts[2]!);
  await hosts[2]!.stop();
  running.add(await start(folder!));
  await until('a heartbeat', async () => (await callHost(folder!, 'status', {})).standing !== undefined);
  // it may be told to delete what was made again elsewhere while it was stopped
  const before = new Set(shardFiles(folder!));
  const ids = await upload(3);
  await mirrored(ids, 3);
  t.same(
    shardFiles(folder!).filter((path) => !before.has(path)),
    [],
  );
  t.match(await callHost(folder!, 'resume', {}), { paused: false });
});

await t.test('a host that exits has all it holds moved away, and its owner sees it', async (t) => {
  const [leaving, ...rest] = folders;
  const ids = [...new Set(folders.flatMap(intactShards))];
  const seen: number[] = [];
  const status = await callHost(
    leaving!,
    'exit',
    { wait: true },
    {
      timeoutMs: 60_000,
      onProgress: ({ remainingShards }) => seen.push(remainingShards),
    },
  );
  t.match(status, { exiting: true, standing: { state: 'leaving', mayLeave: true, shards: 0 } });
  t.ok(seen.length > 0 && seen[0]! > 0);
  await mirrored(ids, 3, rest);
  await until('its own to be deleted', () => shardFiles(leaving!).length === 0);
});

await t.test('a host that is gone for good is replaced by the others, as far as there are some', async (t) => {
  const [, gone, ...rest] = folders;
  const ids = [...new Set(rest.flatMap(intactShards))];
  running.delete(hosts[1]!);
  await hosts[1]!.stop();
  await rm(gone!, { recursive: true });
  const folder = join(dir, 'h5');
  running.add(await start(folder));
  await mirrored(ids, 3, [...rest, folder]);
  t.ok(shardFiles(folder).length >= ids.length);
});

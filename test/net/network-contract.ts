// What every Network promises, run against a real bridge and real hosts.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import type { Test } from 'tap';
import { LEAF_SIZE_BYTES, leafCountOf, leafHashes } from '../../src/crypto/merkle.ts';
import { publicKeyOf, sign } from '../../src/crypto/sign.ts';
import type { ClientNetworkOptions } from '../../src/net/client-network.ts';
import type { Head, Lease, Network, NetworkStatus, Problem, ShardSource, WireEntry } from '../../src/net/network.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { EntryHeaderSchema } from '../../src/net/proto/wire_pb.ts';
import { corruptShards, shardFiles } from '../support/hosts.ts';
import { pickSeed, Random } from '../support/random.ts';
import { until } from '../support/run.ts';
import { makeShard, startLocalNetwork } from './local-network.ts';
import type { LocalNetwork } from './local-network.ts';

const SHARD_BYTES = 2_097_152;

type MakeNetwork = (options: ClientNetworkOptions) => Network;

interface Scene {
  readonly local: LocalNetwork;
  readonly network: Network;
  readonly random: Random;
  readonly device: Buffer;
  readonly owner: Buffer;
  readonly dir: string;
}

async function makeScene(t: Test, make: MakeNetwork, hosts: number, options: object = {}): Promise<Scene> {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  const local = await startLocalNetwork(t, hosts);
  const device = random.bytes(32);
  const owner = random.bytes(32);
  const network = make({ bridge: local.address, deviceSeed: device, ownerSeed: owner, hedgeAfterMs: 500, ...options });
  await network.start();
  t.teardown(() => network.stop());
  return { local, network, random, device, owner, dir: local.dir };
}

/** What went wrong, but for what a machine that is starved does: a host that is too late, and its place with another one. */
function beyondTime({ problems }: NetworkStatus): readonly Problem[] {
  return problems.filter(({ code }) => code !== 'TIMEOUT' && code !== 'NO_HOSTS');
}

/** An entry as a client would publish it. */
function makeEntry(scene: Scene, seq: number, epoch: number, prevHash: Uint8Array, body: Buffer): WireEntry {
  const header = toBinary(
    EntryHeaderSchema,
    create(EntryHeaderSchema, {
      version: 1,
      volume: publicKeyOf(scene.owner),
      seq: BigInt(seq),
      prevHash,
      epoch: BigInt(epoch),
      device: peerNameOf(scene.device),
      bodyHash: createHash('sha256').update(body).digest(),
      bodySizeBytes: body.length,
      timeMs: 1n,
    }),
  );
  return { header, signature: sign(scene.owner, 'xcore/entry/1', header), body };
}

/** Runs the suite for one implementation. */
export function testNetwork(t: Test, make: MakeNetwork): void {
  void t.test('shards go out to three hosts and come back whole and by range', async (t) => {
    const { network, random, dir, local } = await makeScene(t, make, 3);
    const policy = await network.announce(0);
    t.same(policy, { shardSizeBytes: SHARD_BYTES, mirrors: 3, minReceipts: 3 });

    for (const size of [1, LEAF_SIZE_BYTES - 1, LEAF_SIZE_BYTES, LEAF_SIZE_BYTES + 1, 300_000, SHARD_BYTES]) {
      const data = random.bytes(size);
      const shard = makeShard(dir, data);
      t.same(await network.upload(shard), { mirrors: 3, durable: true }, `${size} bytes are durable`);
      const path = join(dir, `fetched-${size}`);
      const memory = new SharedArrayBuffer(SHARD_BYTES);
      t.equal(await network.fetchShard(shard.id, size, path, undefined, memory), true);
      t.ok(Buffer.from(memory, 0, size).equals(data), `${size} bytes are in memory, too`);
      t.ok(
        readFileSync(path).equals(Buffer.concat([data, leafHashes(data)])),
        `${size} bytes come back, with leaf hashes`,
      );
      const leaves = leafCountOf(size);
      for (const [first, count] of [
        [0, 1],
        [0, leaves],
        [leaves - 1, 1],
        [Math.floor(leaves / 2), Math.ceil(leaves / 2)],
      ] as const) {
        if (first + count > leaves) continue;
        const got = await network.fetchLeaves(shard.id, size, first, count);
        const wanted = data.subarray(first * LEAF_SIZE_BYTES, (first + count) * LEAF_SIZE_BYTES);
        t.ok(wanted.equals(got), `leaves ${first} + ${count} of ${leaves}`);
      }
      await t.rejects(network.fetchLeaves(shard.id, size, leaves, 1), RangeError);
    }
    t.equal(readdirSync(dir).filter((name) => name.endsWith('.tmp')).length, 0, 'no temporary file is left');
    t.equal(shardFiles(local.hosts[0]?.dir ?? '').length, 6);

    const again = makeShard(dir, random.bytes(5_000));
    await network.upload(again);
    t.same(await network.upload(again), { mirrors: 3, durable: true }, 'a second upload finds it there');
    const status = await network.status();
    t.ok(status.connected);
    t.ok(status.uploadedBytes > SHARD_BYTES && status.downloadedBytes > SHARD_BYTES);
    t.same(beyondTime(status), []);
    const space = await network.space();
    t.equal(space.hosts.length, 3);
    t.ok(space.usedBytes > SHARD_BYTES && space.quotaBytes > space.usedBytes);
  });

  void t.test('many shards at once', async (t) => {
    const { network, random, dir } = await makeScene(t, make, 3);
    const shards = Array.from({ length: 60 }, () => makeShard(dir, random.bytes(random.between(1, 200_000))));
    const standings = await Promise.all(shards.map((shard) => network.upload(shard)));
    t.ok(standings.every((standing) => standing.durable && standing.mirrors === 3));
    const fetched = await Promise.all(
      shards.map(async ({ id, sizeBytes }, n) => {
        await network.fetchShard(id, sizeBytes, join(dir, `f${n}`));
        return readFileSync(join(dir, `f${n}`)).subarray(0, sizeBytes);
      }),
    );
    t.ok(shards.every((shard, n) => readFileSync(shard.path).equals(fetched[n] ?? Buffer.alloc(0))));
  });

  void t.test('what is wrong is said with its code', async (t) => {
    const { network, random, dir } = await makeScene(t, make, 1, { fetchTimeoutMs: 500 });
    const shard = makeShard(dir, random.bytes(100_000));
    const data = readFileSync(shard.path);
    data[50_000] = (data[50_000] ?? 0) ^ 1;
    writeFileSync(shard.path, data);
    await t.rejects(network.upload(shard), { code: 'CORRUPT_SHARD' });
    writeFileSync(shard.path, data.subarray(0, 99_999));
    await t.rejects(network.upload(shard), { code: 'CORRUPT_SHARD' });
    await t.rejects(network.upload({ ...shard, path: join(dir, 'absent') }), { code: 'EIO' });

    const unknown = random.bytes(32);
    await t.rejects(network.fetchShard(unknown, 1_000, join(dir, 'unknown')), { code: 'NO_MIRROR' });
    await t.rejects(network.fetchLeaves(unknown, 1_000, 0, 1), { code: 'NO_MIRROR' });
    t.notOk(existsSync(join(dir, 'unknown')));
    await t.rejects(network.fetchShard(unknown, SHARD_BYTES + 1, join(dir, 'unknown')), RangeError);

    const abort = new AbortController();
    const cancelled = network.fetchShard(unknown, 1_000, join(dir, 'unknown'), abort.signal);
    abort.abort();
    await t.rejects(cancelled, { code: 'ABORTED' });
    await t.rejects(network.fetchLeaves(unknown, 1_000, 0, 1, abort.signal), { code: 'ABORTED' });
  });

  void t.test('a corrupt mirror is never read from and is named', async (t) => {
    const { network, random, dir, local } = await makeScene(t, make, 3);
    const shards: ShardSource[] = [];
    for (let n = 0; n < 12; n++) shards.push(makeShard(dir, random.bytes(100_000)));
    await Promise.all(shards.map((shard) => network.upload(shard)));
    const [bad, other] = local.hosts;
    t.equal(corruptShards(bad?.dir ?? ''), 12);
    t.equal(corruptShards(other?.dir ?? ''), 12);
    for (const [n, { id, sizeBytes, path }] of shards.entries()) {
      const data = readFileSync(path);
      if (n % 2) {
        await network.fetchShard(id, sizeBytes, join(dir, `f${n}`));
        t.ok(
          readFileSync(join(dir, `f${n}`))
            .subarray(0, sizeBytes)
            .equals(data),
        );
      } else {
        const got = await network.fetchLeaves(id, sizeBytes, 2, 3);
        t.ok(data.subarray(2 * LEAF_SIZE_BYTES, 5 * LEAF_SIZE_BYTES).equals(got));
      }
    }
    const problems = beyondTime(await network.status());
    t.ok(problems.length > 0 && problems.length <= 24);
    t.ok(problems.every(({ code }) => code === 'CORRUPT_SHARD'));
    t.ok(problems.some(({ message }) => message.includes(bad?.peer ?? '?') || message.includes(other?.peer ?? '?')));
  });

  void t.test('hosts that die are done without', async (t) => {
    const { network, random, dir, local } = await makeScene(t, make, 4);
    const shards: ShardSource[] = [];
    for (let n = 0; n < 8; n++) shards.push(makeShard(dir, random.bytes(100_000)));
    await Promise.all(shards.slice(0, 4).map((shard) => network.upload(shard)));
    await local.hosts[0]?.stop();
    await Promise.all(
      shards.slice(0, 4).map(({ id, sizeBytes }, n) => network.fetchShard(id, sizeBytes, join(dir, `f${n}`))),
    );
    t.ok(
      shards.slice(0, 4).every(({ path }, n) =>
        readFileSync(join(dir, `f${n}`))
          .subarray(0, 100_000)
          .equals(readFileSync(path)),
      ),
    );
    const standings = await Promise.all(shards.slice(4).map((shard) => network.upload(shard)));
    t.ok(standings.every(({ durable }) => durable));
    await local.hosts[0]?.start();
    await local.hosts[1]?.stop();
    await local.hosts[2]?.stop();
    for (const [n, { id, sizeBytes }] of shards.slice(0, 4).entries()) {
      await network.fetchShard(id, sizeBytes, join(dir, `g${n}`));
    }
    t.pass('and a host that is back is used again');
  });

  void t.test('uploads outlast a bridge and hosts that come late', async (t) => {
    const { network, random, dir, local } = await makeScene(t, make, 0);
    const uploads = [1, 2, 3].map(() => network.upload(makeShard(dir, random.bytes(50_000))));
    await until('the lack of hosts to be noted', async () => {
      const { problems } = await network.status();
      return problems.some(({ code }) => code === 'NO_HOSTS') || undefined;
    });
    await local.addHost();
    t.ok((await Promise.all(uploads)).every(({ durable }) => durable));

    const known = makeShard(dir, random.bytes(50_000));
    await network.upload(known);
    await network.fetchLeaves(known.id, known.sizeBytes, 0, 1);
    const expected = makeShard(dir, random.bytes(50_000));
    await network.upload(expected);
    await network.expect([random.bytes(32), expected.id]);

    const states: boolean[] = [];
    network.on('connection', (connected) => states.push(connected));
    await local.stopBridge();
    await until('the connection to be lost', () => states.includes(false) || undefined);
    await until('calls to fail', () =>
      network.space().then(
        () => undefined,
        (error: { code: string }) => error.code === 'UNREACHABLE' || undefined,
      ),
    );
    const away = await network.status();
    t.notOk(away.connected);
    t.match(away.problems.at(-1)?.message, /^the bridge cannot be used/);
    const got = await network.fetchLeaves(known.id, known.sizeBytes, 1, 2);
    t.equal(got.length, 2 * LEAF_SIZE_BYTES, 'shards whose mirrors are known can be read without the bridge');
    const first = await network.fetchLeaves(expected.id, expected.sizeBytes, 0, 1);
    t.equal(first.length, LEAF_SIZE_BYTES, 'so can those that were expected');
    await network.expect([random.bytes(32)]);
    const waiting = network.upload(makeShard(dir, random.bytes(50_000)));
    const abort = new AbortController();
    const cancelled = network.upload(makeShard(dir, random.bytes(50_000)), abort.signal);
    abort.abort();
    await t.rejects(cancelled, { code: 'ABORTED' });
    await local.startBridge();
    t.ok((await waiting).durable, 'an upload goes on when the bridge is back');
    await until('the connection to be made again', () => states.at(-1) || undefined);
    const back = await network.status();
    t.ok(back.connected);
    t.notOk(
      back.problems.some(({ message }) => message.startsWith('the bridge cannot be used')),
      'that it was away is no problem any more',
    );
  });

  void t.test('log and lease', async (t) => {
    const scene = await makeScene(t, make, 0);
    const { network } = scene;
    const heads: Head[] = [];
    const leases: Lease[] = [];
    network.on('head', (head) => heads.push(head));
    network.on('lease', (lease) => leases.push(lease));
    const lease = await network.acquireLease(false);
    t.match(lease, { held: true, holder: peerNameOf(scene.device) });
    t.ok(lease.epoch > 0 && lease.expiresInMs > 0);
    t.match(await network.renewLease(lease.epoch), { held: true, epoch: lease.epoch });

    t.same((await network.readLog(1, 1_000)).entries, []);
    const bodies = [scene.random.bytes(10), scene.random.bytes(200_000), scene.random.bytes(0)];
    let prev: Uint8Array = Buffer.alloc(32);
    const entries: WireEntry[] = [];
    for (const [n, body] of bodies.entries()) {
      const entry = makeEntry(scene, n + 1, lease.epoch, prev, body);
      const head = await network.append(entry);
      t.equal(head.seq, n + 1);
      prev = head.hash;
      entries.push(entry);
    }
    await t.rejects(network.append(makeEntry(scene, 2, lease.epoch, Buffer.alloc(32), Buffer.alloc(1))), {
      code: 'STALE_HEAD',
    });
    await t.rejects(network.append(makeEntry(scene, 4, lease.epoch + 1, prev, Buffer.alloc(1))), {
      code: 'LEASE_LOST',
    });
    const log = await network.readLog(1, 1_000_000);
    t.equal(log.head.seq, 3);
    t.same(
      log.entries.map(({ header, signature, body }) =>
        [header, signature, body].map((part) => Buffer.from(part).toString('hex')),
      ),
      entries.map(({ header, signature, body }) =>
        [header, signature, body].map((part) => Buffer.from(part).toString('hex')),
      ),
    );
    const headers = await network.readLog(2, 1_000_000, true);
    t.equal(headers.entries.length, 2);
    t.ok(headers.entries.every(({ body }) => body.length === 0));
    await until('the events', () => heads.at(-1)?.seq === 3 || undefined);
    t.equal((await network.releaseLease(lease.epoch)).held, false);
    await until('the lease event', () => (leases.length > 0 && leases.at(-1)?.held === false) || undefined);
  });

  void t.test('after stop() nothing is pending and calls are refused', async (t) => {
    const { network, random, dir } = await makeScene(t, make, 0);
    const uploads = [1, 2].map(() => network.upload(makeShard(dir, random.bytes(1_000))));
    const fetches = [network.fetchLeaves(random.bytes(32), 1_000, 0, 1)];
    const outcomes = Promise.allSettled([...uploads, ...fetches]);
    await network.stop();
    for (const outcome of await outcomes) t.match(outcome, { status: 'rejected', reason: { code: 'CLOSED' } });
    await t.rejects(network.announce(1), { code: 'CLOSED' });
    await network.stop();
  });
}

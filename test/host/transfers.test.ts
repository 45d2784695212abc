import { randomBytes } from 'node:crypto';
import * as promises from 'node:fs/promises';
import { mkdir, readFile, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { LEAF_SIZE_BYTES, verifyRange } from '../../src/crypto/merkle.ts';
import { MAX_CLOCK_SKEW_MS, verifyReceipt } from '../../src/net/orders.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { DiskHealth } from '../../src/host/disk-health.ts';
import type { HostFs } from '../../src/host/host-fs.ts';
import { ratedHandlers } from '../../src/host/rated-handlers.ts';
import { ShardFiles } from '../../src/host/shard-files.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { filesBelow } from '../support/hosts.ts';
import { Harness, randomShard } from './harness.ts';

const MAX = 2_097_152;

t.test('shards of every size are stored byte for byte and read back, whole and in proven ranges', async (t) => {
  const host = await Harness.start(t);
  let sum = 0;
  for (const size of [1, LEAF_SIZE_BYTES - 1, LEAF_SIZE_BYTES, LEAF_SIZE_BYTES + 1, 1_000_000, MAX - 1, MAX]) {
    const shard = randomShard(size);
    const receipt = await host.store1(shard);
    t.match(receipt, { host: host.host, client: host.client, sizeBytes: size, shardId: new Uint8Array(shard.id) });
    t.ok((await readFile(host.pathOf(shard))).equals(shard.data));
    const order = host.order(shard, { operation: 'retrieve' });
    const whole = await host.get(order);
    t.ok(whole.data.equals(shard.data) && whole.proof.length === 0);
    const leaves = Math.ceil(size / LEAF_SIZE_BYTES);
    for (const [first, count] of [
      [0, 1],
      [leaves - 1, 1],
      [0, leaves],
      [leaves >> 1, 1],
    ] as const) {
      const { data, proof } = await host.get(order, first, count);
      t.ok(verifyRange(shard.id, size, first, data, proof), `${size} bytes, leaves ${first} + ${count}`);
    }
    await t.rejects(host.get(order, leaves, 1), { code: 'PROTOCOL' });
    await t.rejects(host.get(order, 0, leaves + 1), { code: 'PROTOCOL' });
    sum += size;
  }
  t.equal(host.store.budget.usedBytes, sum);
  await host.reopen();
  t.equal(host.store.budget.usedBytes, sum, 'inventory after a restart');
  for (const file of filesBelow(host.dir))
    t.ok((await promises.stat(file)).size <= MAX, 'no file is larger than a shard');
});

t.test('bytes that do not match order, size and id are not kept', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(100_000);
  const bent = Buffer.from(shard.data);
  bent[99_999]! ^= 1;
  await t.rejects(host.put(host.order(shard), bent), { code: 'CORRUPT_SHARD' });
  await t.rejects(host.put(host.order(shard), shard.data.subarray(1)), { code: 'PROTOCOL' }, 'too short');
  await t.rejects(
    host.put(host.order(shard), Buffer.concat([shard.data, Buffer.alloc(1)])),
    { code: 'PROTOCOL' },
    'too long',
  );
  await t.rejects(host.put(host.order(shard, { sizeBytes: 99_999 }), shard.data.subarray(0, 99_999)), {
    code: 'CORRUPT_SHARD',
  });
  await t.rejects(host.put(host.order(shard, { sizeBytes: MAX + 1 }), shard.data), { code: 'TOO_LARGE' });
  await t.rejects(host.put(host.order(shard, { sizeBytes: 0 }), Buffer.alloc(0)), { code: 'TOO_LARGE' });
  t.equal(host.store.budget.usedBytes, 0);
  t.equal(host.store.budget.reservedBytes, 0);
  t.same(await readdir(join(host.dir, 'incoming')), []);
  await host.store1(shard);
});

t.test('a mirror is copied from another host on orders of the bridge, and kept only if it is the shard', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(100_000);
  const source = peerNameOf(randomBytes(32));
  const asked: string[] = [];
  let served = shard.data;
  host.fetchFrom = (from) => {
    asked.push(from);
    return Promise.resolve(served);
  };
  const permission = host.order(shard, { operation: 'retrieve', client: host.host, host: source });
  const copy = (
    order: ReturnType<Harness['order']>,
    from = permission,
    remotePeer = host.bridge,
  ): ReturnType<Harness['transfers']['copy']> =>
    host.transfers.copy(
      order,
      { order: from, addresses: [], keysWanted: 0 },
      { remotePeer, signal: new AbortController().signal },
    );
  const order = (): ReturnType<Harness['order']> => host.order(shard, { client: host.bridge });
  await t.rejects(copy(host.order(shard), permission, host.client), { code: 'REFUSED' }, 'a client asks');
  await t.rejects(copy(order(), host.order(shard, { host: source })), { code: 'REFUSED' }, 'no order for reading');
  await t.rejects(
    copy(order(), host.order(randomShard(5), { operation: 'retrieve', client: host.host, host: source })),
    {
      code: 'REFUSED',
    },
  );
  t.same(asked, []);
  served = randomBytes(shard.data.length);
  await t.rejects(copy(order()), { code: 'CORRUPT_SHARD' });
  t.equal(host.store.budget.usedBytes, 0);
  served = shard.data;
  const receipt = verifyReceipt((await copy(order())).receipt);
  t.match(receipt, { host: host.host, client: host.bridge, sizeBytes: shard.data.length });
  t.ok((await readFile(host.pathOf(shard))).equals(shard.data));
  await copy(order());
  t.same(asked, [source, source], 'one that is held already is not fetched again');
});

t.test('the bridge, and only the bridge, reads the inventory page by page', async (t) => {
  const host = await Harness.start(t);
  const ids: string[] = [];
  for (let count = 0; count < 40; count += 1) {
    const shard = randomShard(1 + count);
    await host.store1(shard);
    ids.push(shard.id.toString('hex'));
  }
  const context = { remotePeer: host.bridge, signal: new AbortController().signal };
  const found: string[] = [];
  for (let after: Uint8Array = new Uint8Array(); ;) {
    const page = await host.transfers.list(after, 7, context);
    found.push(...page.shardIds.map((id) => Buffer.from(id).toString('hex')));
    if (page.last) break;
    after = page.shardIds.at(-1)!;
  }
  t.same(found, ids.sort());
  await t.rejects(host.transfers.list(new Uint8Array(), 7, { ...context, remotePeer: host.client }), {
    code: 'REFUSED',
  });
});

t.test('only orders of the bridge, for this client and host, in time, and once', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(1_000);
  const other = peerNameOf(randomBytes(32));
  const put = (order: ReturnType<Harness['order']>, from?: string): Promise<unknown> =>
    host.put(order, shard.data, from);
  const refused: [string, Promise<unknown>][] = [
    ['forged', put(host.order(shard, {}, randomBytes(32)))],
    ['changed after signing', put({ ...host.order(shard), body: host.order(shard).body })],
    ["another client's", put(host.order(shard), other)],
    ["another host's", put(host.order(shard, { host: other }))],
    ['expired', put(host.order(shard, { expiresMs: BigInt(host.clock.now() - MAX_CLOCK_SKEW_MS) }))],
    ['for reading', put(host.order(shard, { operation: 'retrieve' }))],
    ['for storing', host.get(host.order(shard))],
    ['for deleting', put(host.order(shard, { operation: 'delete' }))],
  ];
  for (const [what, attempt] of refused) await t.rejects(attempt, { code: 'REFUSED' }, what);
  await t.rejects(
    put(host.order(shard, { shardId: Buffer.from('../../../../etc/passwd') })),
    { code: 'PROTOCOL' },
    'a path as id',
  );
  await t.rejects(put(host.order(shard, { serial: randomBytes(15) })), { code: 'PROTOCOL' }, 'malformed serial');
  await t.rejects(
    host.transfers.store(undefined, () => t.fail('asked for bytes') as never, {
      remotePeer: host.client,
      signal: new AbortController().signal,
    }),
    { code: 'REFUSED' },
  );

  const order = host.order(shard);
  await put(order);
  await t.rejects(put(order), { code: 'REFUSED' }, 'a second time');
  await host.reopen();
  await t.rejects(put(order), { code: 'REFUSED' }, 'also after a restart');
  const twin = host.order(shard);
  const both = await Promise.allSettled([put(twin), put(twin)]);
  t.equal(both.filter(({ status }) => status === 'fulfilled').length, 1, 'also at the same moment');
  const reading = host.order(shard, { operation: 'retrieve' });
  await host.get(reading);
  await host.get(reading);
  await t.rejects(host.get(reading, 0, 1, other), { code: 'REFUSED' });
  t.same((await readdir(join(host.dir, 'shards'))).length, 1);
});

t.test('used serials are forgotten only after their orders have expired', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(10);
  const order = host.order(shard, { expiresMs: BigInt(host.clock.now() + 3_600_000) });
  await host.put(order, shard.data);
  host.clock.advance(3_599_000 + MAX_CLOCK_SKEW_MS);
  await host.store1(randomShard(10));
  await t.rejects(host.put(order, shard.data), { code: 'REFUSED', message: /used before/ });
  host.clock.advance(2 * MAX_CLOCK_SKEW_MS);
  await host.store1(randomShard(10));
  await t.rejects(host.put(order, shard.data), { code: 'REFUSED', message: /expired/ });
  host.clock.advance(-2 * MAX_CLOCK_SKEW_MS);
  await t.rejects(host.put(order, shard.data), { code: 'REFUSED', message: /used before/ }, 'the clock was set right');
  host.clock.advance(3 * MAX_CLOCK_SKEW_MS);
  await host.store1(randomShard(10));
  host.clock.advance(-MAX_CLOCK_SKEW_MS);
  await t.rejects(host.put(order, shard.data), { code: 'REFUSED', message: /expired/ });
});

t.test('the limit holds with transfers in flight', async (t) => {
  const host = await Harness.start(t, { capacityBytes: 250_000 });
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const begun = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const shards = [randomShard(100_000), randomShard(100_000), randomShard(100_000)];
  const slowly = async function* (at: number): AsyncGenerator<Buffer> {
    yield shards[at]!.data.subarray(0, 50_000);
    begun[at]!.resolve();
    await gates[at]!.promise;
    yield shards[at]!.data.subarray(50_000);
  };
  const first = host.put(host.order(shards[0]!), slowly(0));
  const second = host.put(host.order(shards[1]!), slowly(1));
  await Promise.all(begun.map(({ promise }) => promise));
  t.equal(host.store.budget.reservedBytes, 200_000);
  t.equal(await host.store.budget.freeBytes(), 50_000);
  await t.rejects(host.store1(shards[2]!), { code: 'HOST_FULL' });
  gates[0]!.resolve();
  await first;
  await t.rejects(host.store1(shards[2]!), { code: 'HOST_FULL' }, 'stored bytes count as well');
  gates[1]!.reject(new Error('the connection broke'));
  await t.rejects(second);
  await host.store1(shards[2]!);
  t.equal(host.store.budget.usedBytes, 200_000);
  t.equal(host.store.budget.reservedBytes, 0);
  const many = await Promise.allSettled(Array.from({ length: 20 }, () => host.store1(randomShard(10_000))));
  t.equal(many.filter(({ status }) => status === 'fulfilled').length, 5);
  t.equal(host.store.budget.usedBytes, 250_000);
  await host.reopen();
  t.equal(host.store.budget.usedBytes, 250_000);
  t.equal(await host.store.budget.freeBytes(), 0);
});

t.test('the same shard is stored once, however often it comes', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(50_000);
  await Promise.all(Array.from({ length: 5 }, () => host.store1(shard)));
  t.equal(host.store.budget.usedBytes, 50_000);
  let asked = false;
  const never = async function* (): AsyncGenerator<Buffer> {
    asked = true;
    yield shard.data;
  };
  await host.put(host.order(shard), never());
  t.notOk(asked, 'bytes that are there already are not sent');
  await writeFile(host.pathOf(shard), Buffer.alloc(50_000));
  await host.reopen();
  await t.rejects(
    host.get(host.order(shard, { operation: 'retrieve' }), 0, 1),
    { code: 'CORRUPT_SHARD' },
    'harmed on disk',
  );
  await host.put(host.order(shard), never());
  t.ok(asked, 'a harmed shard is no shard');
  t.ok((await readFile(host.pathOf(shard))).equals(shard.data));
  t.equal(host.store.budget.usedBytes, 50_000);
});

t.test('a shard that takes too long to arrive is given up', async (t) => {
  const host = await Harness.start(t, { storeDeadlineMs: 60_000, maxStores: 1 });
  const shard = randomShard(100);
  const begun = Promise.withResolvers<void>();
  const drip = async function* (): AsyncGenerator<Buffer> {
    yield shard.data.subarray(0, 1);
    begun.resolve();
    await new Promise(() => {});
  };
  const attempt = host.put(host.order(shard), drip());
  await begun.promise;
  await t.rejects(host.store1(randomShard(100)), { code: 'EAGAIN' }, 'only so many at once');
  host.clock.advance(60_000);
  await t.rejects(attempt, { code: 'TIMEOUT' });
  t.equal(host.store.budget.reservedBytes, 0);
  t.same(await readdir(join(host.dir, 'incoming')), []);
  await host.store1(shard);
});

t.test('one client has only so many uploads under way, and others have theirs', async (t) => {
  const host = await Harness.start(t, { maxStores: 4, maxStoresPerPeer: 2 });
  const gate = Promise.withResolvers<void>();
  const slowly = async function* (data: Buffer): AsyncGenerator<Buffer> {
    await gate.promise;
    yield data;
  };
  const begin = (client: string): Promise<unknown> => {
    const shard = randomShard(100);
    return host.put(host.order(shard, { client }), slowly(shard.data), client);
  };
  const [one, other, third] = Array.from({ length: 3 }, () => peerNameOf(randomBytes(32))) as [string, string, string];
  const running = [begin(one), begin(one), begin(other)];
  await t.rejects(begin(one), { code: 'EAGAIN' });
  running.push(begin(other));
  await t.rejects(begin(third), { code: 'EAGAIN' }, 'all places are taken');
  gate.resolve();
  await Promise.all(running);
  t.equal(host.transfers.active, 0);
  await begin(one);
});

t.test(
  'one peer has only so many requests a second, refused ones count for more, and others have theirs',
  async (t) => {
    const host = await Harness.start(t);
    const shard = randomShard(100);
    await host.store1(shard);
    const { clock, bridge } = host;
    const handlers = ratedHandlers(host.transfers, { clock, bridge, maxRequestsPerSecond: 50 });
    const [one, other] = [peerNameOf(randomBytes(32)), peerNameOf(randomBytes(32))];
    const read = async (client: string): Promise<unknown> => {
      const { signal } = new AbortController();
      return handlers.retrieve(host.order(shard, { operation: 'retrieve', client }), 0, 0, {
        remotePeer: client,
        signal,
      });
    };
    for (let request = 0; request < 50; request += 1) await read(one);
    await t.rejects(read(one), { code: 'EAGAIN' });
    await read(other);
    for (let request = 0; request < 60; request += 1) await read(bridge);
    clock.advance(20);
    await read(one);
    await t.rejects(read(one), { code: 'EAGAIN' }, 'those that were turned away did not count');

    const { signal } = new AbortController();
    const refused = (): Promise<unknown> => handlers.retrieve(undefined, 0, 0, { remotePeer: one, signal });
    clock.advance(1_000);
    await t.rejects(refused(), { code: 'REFUSED' });
    await t.rejects(refused(), { code: 'REFUSED' });
    await t.rejects(read(one), { code: 'EAGAIN' });
    clock.advance(1_000);
    await read(one);
  },
);

t.test('a full disk is HOST_FULL, and the free space that is told is true', async (t) => {
  let diskFree = 1_000_000;
  let failing = '';
  const fs = {
    ...promises,
    statfs: async () => ({ bavail: diskFree, bsize: 1 }) as never,
    open: (async (path: string, flags: string, mode?: number) => {
      const file = await promises.open(path, flags, mode);
      if (failing !== '' && flags === 'wx')
        file.sync = () => Promise.reject(Object.assign(new Error(failing), { code: failing }));
      return file;
    }) as typeof promises.open,
  };
  const host = await Harness.start(t, { fs, floorBytes: 400_000, capacityBytes: 10_000_000 });
  t.equal(await host.store.budget.freeBytes(), 600_000);
  await t.rejects(host.store1(randomShard(600_001)), { code: 'HOST_FULL' });
  await host.store1(randomShard(600_000));
  diskFree = 100;
  t.equal(await host.store.budget.freeBytes(), 0, 'never below zero');
  diskFree = 10_000_000;
  failing = 'ENOSPC';
  await t.rejects(host.store1(randomShard(1_000)), { code: 'HOST_FULL' });
  failing = 'EIO';
  await t.rejects(host.store1(randomShard(1_000)), { code: 'EAGAIN', message: /EIO/ });
  failing = '';
  t.equal(host.store.budget.usedBytes, 600_000);
  t.equal(host.store.budget.reservedBytes, 0);
  t.same(await readdir(join(host.dir, 'incoming')), []);
});

t.test(
  'a disk that has become read-only has no room, gives what it holds, and goes on once it is mended',
  async (t) => {
    let isReadOnly = false;
    const readOnly = <A extends unknown[], R>(call: (...args: A) => Promise<R>): ((...args: A) => Promise<R>) => {
      const error = Object.assign(new Error('EROFS: read-only file system'), { code: 'EROFS' });
      return (...args) => (isReadOnly && args[1] !== 'r' ? Promise.reject(error) : call(...args));
    };
    const changed = { open: readOnly(promises.open), unlink: readOnly(promises.unlink), rm: readOnly(promises.rm) };
    const fs: HostFs = { ...promises, ...changed };
    const host = await Harness.start(t, { fs });
    const serials: { failure?: Error; batch: () => Promise<void> } = { batch: () => Promise.resolve() };
    const health = new DiskHealth({ serials, store: host.store });
    const shard = randomShard(40_000);
    await host.store1(shard);
    const freeBytes = await health.freeBytes();
    t.ok(freeBytes > 0);
    isReadOnly = true;
    await t.rejects(host.store1(randomShard(1_000)), { code: 'EAGAIN', message: /the local disk is read-only/ });
    t.equal(await health.freeBytes(), 0, 'nothing is to be placed here');
    t.match(health.failure, { code: 'EROFS' });
    t.ok((await host.get(host.order(shard, { operation: 'retrieve' }))).data.equals(shard.data));
    const order = host.order(shard, { operation: 'delete', client: host.bridge });
    t.same(await host.deletions.carryOut([order]), [], 'what could not be deleted is not told as deleted');
    isReadOnly = false;
    t.equal(await health.freeBytes(), freeBytes);
    t.equal(health.failure, undefined);
    t.equal((await host.deletions.carryOut([order])).length, 1);
    await rmdir(join(host.dir, 'shards', shard.id.toString('hex').slice(0, 2)));
    await rm(join(host.dir, 'incoming'), { recursive: true, force: true });
    await host.store1(shard);
    t.pass('folders that somebody has removed are made again');

    serials.failure = new Error('the state is read-only');
    t.equal(await health.freeBytes(), 0, 'nor while no order can be noted as used');
    serials.batch = () => {
      delete serials.failure;
      return Promise.resolve();
    };
    t.ok((await health.freeBytes()) > 0);
  },
);

t.test('a shard that has its name, though its folder cannot be synced, is counted until it is deleted', async (t) => {
  let isFailing = true;
  let isTrialFailing = false;
  const failure = (): Promise<never> => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
  const open = async (path: string, flags: string, mode?: number): Promise<unknown> => {
    const file = await promises.open(path, flags, mode);
    const isFolder = /shards.[0-9a-f]{2}$/.test(path);
    if (isTrialFailing && flags === 'wx') return { sync: failure, close: () => file.close() };
    return isFailing && isFolder ? { sync: failure, close: () => file.close() } : file;
  };
  const host = await Harness.start(t, { fs: { ...promises, open: open as typeof promises.open } });
  const shard = randomShard(40_000);
  for (const attempt of [1, 2]) {
    await t.rejects(host.store1(shard), { code: 'EAGAIN' });
    t.match(host.store.budget, { usedBytes: 40_000, reservedBytes: 0 }, `attempt ${attempt}`);
  }
  t.equal(host.store.shards, 1);
  isTrialFailing = true;
  await host.store.tryDisk();
  t.same(await readdir(join(host.dir, 'incoming')), [], 'trying the disk leaves nothing');
  t.ok(host.store.failure);
  isTrialFailing = false;
  isFailing = false;
  await host.store1(shard);
  t.equal(host.store.budget.usedBytes, 40_000);
  t.equal((await host.deletions.carryOut([host.order(shard, { operation: 'delete', client: host.bridge })])).length, 1);
  t.match([host.store.budget.usedBytes, host.store.shards], [0, 0]);
});

t.test(
  'a sector that cannot be read is a harmed shard; a host that cannot open its files says only that',
  async (t) => {
    let failing = '';
    const failure = (): Promise<never> => Promise.reject(Object.assign(new Error(failing), { code: failing }));
    const fs = {
      ...promises,
      open: (async (path: string, flags: string, mode?: number) => {
        if (failing === 'EMFILE' && flags === 'r') return failure();
        const file = await promises.open(path, flags, mode);
        if (failing !== 'EIO' || flags !== 'r') return file;
        // without its descriptor, nobody reads it in any other way
        return { read: failure, stat: () => file.stat(), close: () => file.close() };
      }) as typeof promises.open,
    };
    const host = await Harness.start(t, { fs });
    const shard = randomShard(40_000);
    await host.store1(shard);
    const order = host.order(shard, { operation: 'retrieve' });
    const proof = host.order(shard, { operation: 'retrieve', client: host.bridge });
    const asked = (): Promise<unknown>[] => [
      host.get(order),
      host.get(order, 0, 1),
      host.transfers.prove(proof, randomBytes(16), { remotePeer: host.bridge, signal: new AbortController().signal }),
    ];
    failing = 'EIO';
    await Promise.all(asked().map((attempt) => t.rejects(attempt, { code: 'CORRUPT_SHARD' })));
    failing = 'EMFILE';
    await Promise.all(asked().map((attempt) => t.rejects(attempt, { code: 'EMFILE' }, 'which goes out as INTERNAL')));
    failing = '';
    await Promise.all(asked());
  },
);

t.test('shards are deleted on the order of the bridge only', async (t) => {
  const host = await Harness.start(t);
  const [kept, freed] = [randomShard(1_000), randomShard(2_000)];
  await host.store1(kept);
  await host.store1(freed);
  const order = (shard = kept, fields: object = {}, seed?: Uint8Array): ReturnType<Harness['order']> =>
    host.order(shard, { operation: 'delete', client: host.bridge, ...fields }, seed);
  t.same(
    await host.deletions.carryOut([
      order(kept, {}, randomBytes(32)),
      order(kept, { host: host.client }),
      order(kept, { client: host.client }),
      order(kept, { operation: 'store' }),
      order(kept, { expiresMs: BigInt(host.clock.now() - MAX_CLOCK_SKEW_MS) }),
    ]),
    [],
  );
  const right = order(freed, { serial: Buffer.alloc(16, 7) });
  t.same(await host.deletions.carryOut([right]), [new Uint8Array(16).fill(7)]);
  t.same(await host.deletions.carryOut([right]), [new Uint8Array(16).fill(7)], 'what is gone is deleted');
  await t.rejects(host.get(host.order(freed, { operation: 'retrieve' })), { code: 'NOT_FOUND' });
  await t.rejects(host.get(host.order(freed, { operation: 'retrieve' }), 0, 1), { code: 'NOT_FOUND' });
  await host.get(host.order(kept, { operation: 'retrieve' }));
  t.equal(host.store.budget.usedBytes, 1_000);
  await host.reopen();
  t.equal(host.store.budget.usedBytes, 1_000);
});

t.test('inventory leaves foreign files alone and removes what is half-written', async (t) => {
  const host = await Harness.start(t);
  const shard = randomShard(3_000);
  await host.store1(shard);
  await host.close();
  const folder = join(host.dir, 'shards', shard.id.toString('hex').slice(0, 2));
  const hex = randomBytes(32).toString('hex');
  const foreign = [
    join(folder, 'notes.txt'),
    join(folder, `${'0'.repeat(2) === shard.id.toString('hex').slice(0, 2) ? 'ff' : '00'}${hex.slice(2)}`),
    join(host.dir, 'shards', 'letter.doc'),
    join(host.dir, 'incoming', 'somebody.else'),
  ];
  for (const path of foreign) await writeFile(path, 'foreign');
  await mkdir(join(host.dir, 'shards', 'more'));
  await writeFile(join(host.dir, 'incoming', `${'ab'.repeat(16)}.tmp`), Buffer.alloc(5_000));
  await host.reopen();
  t.equal(host.store.budget.usedBytes, 3_000);
  for (const path of foreign) t.equal(await readFile(path, 'utf8'), 'foreign');
  t.same(await readdir(join(host.dir, 'incoming')), ['somebody.else']);
  const files = new ShardFiles({ fs: promises, log: silentLogger }, host.dir);
  t.match(await files.takeInventory(), { shards: 1, bytes: 3_000, foreign: 4 });
});

t.test('two hosts do not share a folder', async (t) => {
  const host = await Harness.start(t);
  const { startHost } = await import('../../src/host/start-host.ts');
  const settings = { dir: host.dir, bridge: `/ip4/127.0.0.1/tcp/1/p2p/${host.bridge}`, capacityBytes: 1, listen: [] };
  await t.rejects(startHost(settings, { log: silentLogger }), { code: 'HOME_LOCKED' });
  await t.rejects(startHost({ ...settings, bridge: '/ip4/127.0.0.1/tcp/1' }, { log: silentLogger }), { code: 'USAGE' });
});

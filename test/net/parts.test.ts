import { randomBytes } from 'node:crypto';
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { multiaddr } from '@multiformats/multiaddr';
import t from 'tap';
import { publicKeyOf } from '../../src/crypto/sign.ts';
import { XcoreError } from '../../src/lib/errors.ts';
import { BackOff } from '../../src/net/back-off.ts';
import { Batcher } from '../../src/net/batcher.ts';
import { errorOf, failureOf } from '../../src/net/failure.ts';
import { FailingHosts } from '../../src/net/failing-hosts.ts';
import { hedge } from '../../src/net/hedge.ts';
import type { Attempt } from '../../src/net/hedge.ts';
import { Limiter } from '../../src/net/limiter.ts';
import { bridgeAt, dialAddresses, loadOrCreateSeed } from '../../src/net/node.ts';
import { checkOrder, signOrder, signReceipt, verifyOrder, verifyReceipt } from '../../src/net/orders.ts';
import { OwnAddresses } from '../../src/net/own-addresses.ts';
import { peerNameIn, peerNameOf, publicKeyOfPeer } from '../../src/net/peer-name.ts';
import { Problems } from '../../src/net/problems.ts';
import { BridgeResponseSchema } from '../../src/net/proto/wire_pb.ts';
import { packError, unpackError } from '../../src/net/worker-messages.ts';

const never = new AbortController().signal;

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

void t.test('orders and receipts', async (t) => {
  const bridge = randomBytes(32);
  const host = randomBytes(32);
  const fields = { serial: randomBytes(16), shardId: randomBytes(32), sizeBytes: 2_097_152, client: 'c' };
  const order = { ...fields, operation: 'store', host: 'h', volume: randomBytes(32), expiresMs: 2n ** 53n };
  const signed = signOrder(bridge, order);
  const receipt = signReceipt(host, { ...fields, host: peerNameOf(host), timeMs: 7n });

  void t.test('what is signed comes back', async (t) => {
    t.match(verifyOrder(signed, peerNameOf(bridge)), {
      sizeBytes: 2_097_152,
      operation: 'store',
      expiresMs: 2n ** 53n,
    });
    t.match(verifyReceipt(receipt), { host: peerNameOf(host), timeMs: 7n });
  });
  void t.test('one changed bit, another signer or nothing at all is refused', async (t) => {
    for (const field of ['body', 'signature'] as const) {
      for (let bit = 0; bit < signed[field].length * 8; bit += 37) {
        const changed = { ...signed, [field]: Buffer.from(signed[field]) };
        changed[field][bit >> 3]! ^= 1 << (bit & 7);
        t.throws(() => verifyOrder(changed, peerNameOf(bridge)), { code: 'REFUSED' });
      }
    }
    t.throws(() => verifyOrder(signed, peerNameOf(host)), { code: 'REFUSED' });
    t.throws(() => verifyOrder(undefined, peerNameOf(bridge)), { code: 'REFUSED' });
    t.throws(() => verifyReceipt(undefined), { code: 'PROTOCOL' });
    t.throws(() => verifyReceipt({ ...receipt, body: randomBytes(40) }), XcoreError);
    t.throws(() => verifyReceipt({ ...receipt, signature: randomBytes(64) }), { code: 'REFUSED' });
    const forged = signReceipt(bridge, { ...fields, host: peerNameOf(host), timeMs: 7n });
    t.throws(() => verifyReceipt(forged), { code: 'REFUSED' });
    t.throws(() => verifyReceipt(signReceipt(host, { ...fields, serial: randomBytes(15), host: peerNameOf(host) })), {
      code: 'PROTOCOL',
    });
  });
  void t.test('an order is for one operation, client, host and time', async (t) => {
    const checked = verifyOrder(signed, peerNameOf(bridge));
    const use = { operation: 'store', client: 'c', host: 'h', nowMs: 1 } as const;
    checkOrder(checked, use);
    for (const other of [{ operation: 'retrieve' }, { client: 'x' }, { host: 'x' }, { nowMs: 2 ** 54 }]) {
      t.throws(() => checkOrder(checked, { ...use, ...other } as typeof use), { code: 'REFUSED' });
    }
  });
});

void t.test('identities', async (t) => {
  const dir = t.testdir();
  const path = join(dir, 'deep', 'identity.seed');
  const seeds = await Promise.all(Array.from({ length: 8 }, () => loadOrCreateSeed(path)));
  t.ok(
    seeds.every((seed) => seed.equals(seeds[0]!)),
    'all who start at once use the same seed',
  );
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.same(readdirSync(join(dir, 'deep')), ['identity.seed']);
  t.ok(publicKeyOfPeer(peerNameOf(seeds[0]!)).equals(publicKeyOf(seeds[0]!)));
  chmodSync(path, 0o640);
  await t.rejects(loadOrCreateSeed(path), { code: 'UNSAFE_MODE' });
  writeFileSync(path, readFileSync(path).subarray(0, 31));
  chmodSync(path, 0o600);
  await t.rejects(loadOrCreateSeed(path), { code: 'BAD_FORMAT' });
  for (const name of ['', 'x', 'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N']) {
    t.throws(() => publicKeyOfPeer(name), { code: 'PROTOCOL' }, `"${name}"`);
  }
});

void t.test('addresses', async (t) => {
  const peer = peerNameOf(randomBytes(32));
  const other = peerNameOf(randomBytes(32));
  const addresses = [
    '/ip4/1.2.3.4/tcp/5',
    `/ip4/1.2.3.4/tcp/6/p2p/${peer}`,
    `/ip4/1.2.3.4/tcp/7/p2p/${other}`,
    'junk',
    '',
  ];
  t.same(
    dialAddresses(peer, addresses).map((address) => address.toString()),
    [`/ip4/1.2.3.4/tcp/5/p2p/${peer}`, `/ip4/1.2.3.4/tcp/6/p2p/${peer}`],
  );
  t.equal(peerNameIn(`/dns4/a.example/tcp/1/p2p/${peer}`), peer);
  t.throws(() => peerNameIn('/ip4/1.2.3.4/tcp/5'), { code: 'USAGE' });
  t.equal(bridgeAt(`/ip4/1.2.3.4/tcp/5/p2p/${peer}`), peer);
  t.throws(() => bridgeAt(`/nonsense/p2p/${peer}`), { code: 'USAGE' });
});

void t.test('a node tells every address on which it listens, public ones too, once', (t) => {
  const own = new OwnAddresses();
  const peer = '/p2p/12D3KooWB6S2a9BoMi6qKWtNfSafstwqBCpnHu6f9Dwcqp9pwcny';
  const told = [multiaddr(`/ip4/10.0.0.1/tcp/4001${peer}`)];
  t.same(own.filter(told), told);
  const listening = ['/ip4/10.0.0.1/tcp/4001', '/ip4/11.77.0.1/tcp/4001'].map((address) => multiaddr(address));
  own.service({ transportManager: { getAddrs: () => listening } });
  t.same(own.filter(told).map(String), [`/ip4/10.0.0.1/tcp/4001${peer}`, '/ip4/11.77.0.1/tcp/4001']);
  t.end();
});

void t.test('errors as they travel', async (t) => {
  t.same(failureOf(new XcoreError('QUOTA', 'full')), { code: 'QUOTA', message: 'full' });
  t.same(failureOf(new TypeError('inner detail')), { code: 'INTERNAL', message: 'internal error' });
  t.equal(errorOf({ code: 'QUOTA', message: 'full' }).code, 'QUOTA');
  for (const code of ['', 'toString', '__proto__', 'NEW_CODE'])
    t.equal(errorOf({ code, message: '' }).code, 'INTERNAL');
  t.ok(errorOf({ code: 'QUOTA', message: 'x'.repeat(100_000) }).message.length < 1_000);
  t.equal(errorOf({ code: 'QUOTA', message: 'a\u001b[2Jb\n' }).message, 'a?[2Jb?');
  for (const error of [new XcoreError('NO_MIRROR', 'm'), new RangeError('r'), new TypeError('t'), new Error('e')]) {
    const back = unpackError(structuredClone(packError(error)));
    t.match(back, { message: error.message, name: error.name });
    t.equal(back.constructor, error.constructor);
  }
});

void t.test('messages come back as they were sent, and malformed ones throw', async (t) => {
  const message = create(BridgeResponseSchema, {
    id: 2 ** 32 - 1,
    body: {
      case: 'logEntries',
      value: {
        entries: [{ header: randomBytes(50), signature: randomBytes(64), body: randomBytes(0) }],
        head: { seq: 2n ** 63n, hash: randomBytes(32) },
      },
    },
  });
  const bytes = toBinary(BridgeResponseSchema, message);
  t.same(fromBinary(BridgeResponseSchema, bytes), message);
  let refused = 0;
  for (let n = 0; n < 2_000; n++) {
    const changed = Buffer.from(bytes.subarray(0, 1 + (n % bytes.length)));
    changed[(n * 7) % changed.length]! ^= 1 + (n % 255);
    try {
      fromBinary(BridgeResponseSchema, changed);
    } catch (error) {
      if (error instanceof Error) refused += 1;
    }
  }
  t.ok(refused > 500);
});

void t.test('hedging', async (t) => {
  const aborted: number[] = [];
  const slow =
    (n: number): Attempt<number> =>
    (signal) =>
      new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => {
          aborted.push(n);
          reject(signal.reason as Error);
        }),
      );
  const fails =
    (n: number): Attempt<number> =>
    async () => {
      throw new XcoreError('TIMEOUT', String(n));
    };
  const gives =
    (n: number): Attempt<number> =>
    async () =>
      n;
  const long = { hedgeAfterMs: 60_000, signal: never };
  t.equal(await hedge([gives(1), fails(2)], long), 1);
  t.equal(await hedge([fails(1), fails(2), gives(3)], long), 3);
  await t.rejects(hedge([fails(1), fails(2)], long), { code: 'TIMEOUT', message: '2' });
  t.equal(await hedge([slow(1), gives(2)], { hedgeAfterMs: 5, signal: never }), 2);
  t.same(aborted, [1], 'the loser is ended');
  t.equal(await hedge([slow(2), fails(3), gives(4)], { hedgeAfterMs: 5, signal: never }), 4);
  let started = 0;
  const counted: Attempt<number> = (signal) => {
    started += 1;
    return slow(9)(signal);
  };
  const abort = new AbortController();
  const waiting = hedge([counted, counted, counted, counted], { hedgeAfterMs: 2, signal: abort.signal });
  await sleep(50);
  abort.abort();
  await t.rejects(waiting, { code: 'ABORTED' });
  t.equal(started, 2, 'two side by side at most');
  await t.rejects(hedge([counted], { hedgeAfterMs: 5, signal: abort.signal }), { code: 'ABORTED' });
  t.equal(started, 2, 'none after an abort');
});

void t.test('limits and batches', async (t) => {
  const limiter = new Limiter(3);
  let running = 0;
  let most = 0;
  const order: number[] = [];
  const abort = new AbortController();
  const cancelled = Array.from({ length: 20 }, (_, n) =>
    limiter.run(
      async () => {
        running += 1;
        most = Math.max(most, running);
        order.push(n);
        await sleep(1);
        running -= 1;
        if (n === 2) throw new XcoreError('QUOTA');
      },
      n === 7 ? abort.signal : undefined,
    ),
  );
  abort.abort();
  const outcomes = await Promise.allSettled(cancelled);
  t.equal(most, 3);
  t.same(
    order,
    [...Array(20).keys()].filter((n) => n !== 7),
  );
  t.match(outcomes[2], { reason: { code: 'QUOTA' } });
  t.match(outcomes[7], { reason: { code: 'ABORTED' } });
  t.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 18);

  const sizes: number[] = [];
  const batcher = new Batcher<number, number>(
    async (inputs) => {
      sizes.push(inputs.length);
      await sleep(2);
      if (inputs.includes(13)) throw new XcoreError('QUOTA', 'thirteen');
      if (inputs.includes(99)) throw new XcoreError('UNREACHABLE', 'away');
      return inputs.map((input) => input * 2);
    },
    8,
    1,
  );
  const doubled = await Promise.allSettled(Array.from({ length: 30 }, (_, n) => batcher.add(n)));
  t.ok(Math.max(...sizes) === 8 && sizes.length < 20);
  doubled.forEach((outcome, n) =>
    t.match(outcome, n === 13 ? { reason: { code: 'QUOTA' } } : { value: n * 2 }, `item ${n} has its own outcome`),
  );
  const away = await Promise.allSettled([99, 1].map((n) => batcher.add(n)));
  t.ok(away.every((outcome) => outcome.status === 'rejected' && outcome.reason.code === 'UNREACHABLE'));
});

void t.test('failing hosts are avoided for longer each time, problems are kept once, delays double', async (t) => {
  let now = 0;
  const failing = new FailingHosts(() => now);
  const avoidedFor = (): number => {
    failing.failed('h');
    failing.failed('h'); // at the same moment: the same failure
    const from = now;
    while (failing.avoids('h')) now += 1_000;
    return now - from;
  };
  t.same([avoidedFor(), avoidedFor(), avoidedFor()], [5_000, 10_000, 20_000]);
  for (let n = 0; n < 10; n++) avoidedFor();
  t.equal(avoidedFor(), 120_000);
  failing.succeeded('h');
  t.equal(avoidedFor(), 5_000);
  t.same(failing.avoided(), []);

  const problems = new Problems(() => now);
  for (let n = 0; n < 250; n++) problems.add('TIMEOUT', `p${n}`);
  t.equal(problems.list().length, 100);
  problems.add('TIMEOUT', 'p200');
  t.equal(problems.list().length, 100);
  t.equal(problems.list().at(-1)?.message, 'p200');
  problems.add('NO_HOSTS', 'hosts are awaited', 'hosts');
  t.strictSame(problems.list().at(-1), { timeMs: now, code: 'NO_HOSTS', message: 'hosts are awaited' });
  problems.over('hosts');
  t.equal(problems.list().length, 99, 'only what is over goes');

  const backOff = new BackOff(() => 0);
  t.same(
    [1, 2, 3, 4, 5, 6, 7, 8].map(() => backOff.nextMs()),
    [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000],
  );
  backOff.reset();
  t.equal(backOff.nextMs(), 200);
  t.equal(new BackOff(() => 1).nextMs(), 100);
});

import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import t from 'tap';
import { silentLogger } from '../../src/lib/log.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { WorkerNetwork } from '../../src/net/worker-network.ts';
import { Random, pickSeed } from '../support/random.ts';
import { until } from '../support/run.ts';
import { makeShard, startLocalNetwork } from './local-network.ts';
import { testNetwork } from './network-contract.ts';

// A busy machine is slow; tap's own 30 s are for the whole file.
t.setTimeout(300_000);

void t.test('in this thread', async (t) => testNetwork(t, (options) => new ClientNetwork(options)));

void t.test('in a worker thread', async (t) => testNetwork(t, (options) => new WorkerNetwork(options)));

void t.test('a bridge that cannot be dialled is refused at once', async (t) => {
  const seeds = { deviceSeed: Buffer.alloc(32, 1), ownerSeed: Buffer.alloc(32, 2) };
  const options = { ...seeds, bridge: '/ip4/127.0.0.1/tcp/1' };
  t.throws(() => new ClientNetwork(options), { code: 'USAGE' });
  t.throws(() => new WorkerNetwork(options), { code: 'USAGE' });
  const nonsense = { ...seeds, bridge: '/nonsense/p2p/12D3KooWnonsense' };
  t.throws(() => new ClientNetwork(nonsense), { code: 'USAGE' });
  const network = new WorkerNetwork(nonsense);
  await t.rejects(network.start(), { code: 'USAGE' });
  await network.stop();
});

void t.test('a crashed worker fails what is pending and is replaced', async (t) => {
  const seed = pickSeed();
  t.comment(`seed ${seed}`);
  const random = new Random(seed);
  const local = await startLocalNetwork(t, 1);
  const logged: string[] = [];
  const logger = { ...silentLogger, error: (_details: object, message?: string) => logged.push(message ?? '') };
  const network = new WorkerNetwork(
    { bridge: local.address, deviceSeed: random.bytes(32), ownerSeed: random.bytes(32) },
    { logger },
  );
  const states: boolean[] = [];
  network.on('connection', (connected) => states.push(connected));
  const made = once(process, 'worker') as Promise<[Worker]>;
  await network.start();
  t.teardown(() => network.stop());
  const [worker] = await made;
  await network.announce(0);

  const pending = network.fetchLeaves(random.bytes(32), 1_000, 0, 1);
  const failed = t.rejects(pending, { code: 'UNREACHABLE' });
  await worker.terminate();
  await failed;
  t.same(logged, ['the network thread crashed']);
  t.match(await network.status(), { connected: false, problems: [{ code: 'UNREACHABLE' }] });

  await until('a new thread to be connected', () => (states.includes(false) && states.at(-1)) || undefined);
  t.ok((await network.upload(makeShard(local.dir, random.bytes(1_000)))).durable);
});

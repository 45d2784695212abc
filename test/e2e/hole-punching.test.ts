// Two homes whose routers open no port: shards pass between them without the bridge, where the routers let them. Needs root
// and nftables. XCORE_TEST_LONG=1 also cuts the direct line, which takes some 20 s more.

import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { HostStatus } from '../../src/host/control-api.ts';
import { callHost } from '../../src/host/control.ts';
import { homesBehind, missingForHomes } from '../support/homes.ts';
import { Server, withNetwork } from '../support/network.ts';
import { Run, until } from '../support/run.ts';

t.setTimeout(180_000);

const MIB = 1024 * 1024;
const LONG = process.env['XCORE_TEST_LONG'] === '1';
const missing = missingForHomes();

await t.test(
  'two peers behind routers find a way that leaves the bridge out',
  { skip: missing ?? false },
  async (t) => {
    const run = new Run(t);
    const { outside, homes, bytes, cutBetween } = await homesBehind(run, ['same port', 'same port', 'any port']);
    const network = await withNetwork(t, { run, hosts: 0, bridge: ['--repair-after', '10s'], place: () => outside });
    const host = new Server(
      run,
      'host',
      ['serve', '--bridge', network.bridge.address, '--space', '1GB', '--no-upnp'],
      homes[0],
    );
    await host.start();
    const hostStatus = async (): Promise<HostStatus> => callHost(host.dir, 'status', {});
    await until('the relay to take the host in', async () => (await hostStatus()).reachability.state === 'relayed');

    const before = randomBytes(2 * MIB);
    const after = randomBytes(24 * MIB);
    const near = await network.newClient('near', homes[1]);
    const mount = await near.mount();
    writeFileSync(join(mount, 'before'), before);
    await near.flush();
    const punched = await near.untilStatus('a direct connection', ({ network: { routes } }) => routes.punched === 1);
    t.match(punched.network.routes, { direct: 0, relayed: 0, reason: '' });
    t.match(await near.must(['status']), /1 directly, through both routers/);
    await until('the host to know it, too', async () => (await hostStatus()).routes.punched === 1);

    const start = await bytes();
    writeFileSync(join(mount, 'after'), after);
    await near.flush();
    const end = await bytes();
    t.ok(end.through - start.through > 24 * MIB, 'shards pass from home to home');
    t.ok(end.here - start.here < 4 * MIB, `the bridge gets little of it: ${end.here - start.here} bytes`);

    if (LONG) writeFileSync(join(mount, 'last'), after);
    const words = await near.phrase();
    await near.umount();
    const reader = await network.recovered('reader', words, homes[1]);
    const copy = await reader.mount();
    t.ok(readFileSync(join(copy, 'before')).equals(before));
    await reader.untilStatus('a direct connection again', ({ network: { routes } }) => routes.punched === 1);
    const first = await bytes();
    t.ok(readFileSync(join(copy, 'after')).equals(after));
    const last = await bytes();
    t.ok(last.through - first.through > 24 * MIB, 'they come back that way');
    t.ok(last.here - first.here < 4 * MIB, `and leave the bridge out: ${last.here - first.here} bytes`);
    if (LONG) {
      await cutBetween();
      t.ok(
        readFileSync(join(copy, 'last')).equals(after),
        'once nothing passes between the homes, the bridge helps again',
      );
      t.match((await reader.status()).network.routes, { punched: 0, relayed: 1 });
    }
    await reader.umount();
    const far = await network.recovered('far', words, homes[2]);
    const other = await far.mount();
    t.ok(readFileSync(join(other, 'before')).equals(before));
    t.ok(
      readFileSync(join(other, 'after')).equals(after),
      'the relay goes on where the routers let nothing else through',
    );
    const relayed = await far.untilStatus('a try in vain', ({ network: { routes } }) => routes.reason !== '');
    t.match(relayed.network.routes, { direct: 0, punched: 0, relayed: 1 });
    t.match(await far.must(['status']), /1 through the bridge, which is slower \(.*routers/);
    await far.umount();
  },
);

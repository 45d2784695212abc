// A host at home, behind a real router: which opens a port when it is asked (UPnP), and which does not.
// Needs root, nftables and miniupnpd (Debian: apt-get install miniupnpd nftables).

import t from 'tap';
import { callHost } from '../../src/host/control.ts';
import { homeNetwork, missingForRouter } from '../support/home-router.ts';
import { Server, withNetwork } from '../support/network.ts';
import { Run, until } from '../support/run.ts';

t.setTimeout(180_000);

const missing = missingForRouter();

await t.test(
  'a host behind a router is reached where the router opens a port',
  { skip: missing ?? false },
  async (t) => {
    const run = new Run(t);
    const network = await homeNetwork(run);
    const { outside, home, router } = network;
    network.openPortsOnRequest();
    const { bridge } = await withNetwork(t, { run, hosts: 0, place: () => outside });
    t.match(bridge.address, `/ip4/${outside.ip}/tcp/`, 'a bridge with a public address tells it');

    const args = ['serve', '--bridge', bridge.address, '--space', '1GB'];
    const asks = new Server(run, 'asks', args, home);
    const silent = new Server(run, 'silent', [...args, '--no-upnp'], home);
    await Promise.all([asks.start(), silent.start()]);
    const port = /tcp\/(\d+)/.exec(asks.address)?.[1];

    const direct = await until('the bridge to connect through the router', async () => {
      const status = await callHost(asks.dir, 'status', {});
      return status.reachability.state === 'direct' && status;
    });
    t.equal(direct.reachability.address, `/ip4/${router}/tcp/${port}`);
    t.notMatch(direct.advice.join(), /connect back/);
    t.match(await network.mappings(), `dnat ip to ${home.ip}:${port}`);

    const closed = await until('the bridge to give up connecting back', async () => {
      const status = await callHost(silent.dir, 'status', {});
      return status.reachability.state === 'relayed' && status;
    });
    t.match(
      closed.advice.join(),
      /could not connect back at \/ip4\/11\.77\.0\.2\/tcp\/\d+ .*through router and firewall/,
    );

    await asks.stop();
    t.notMatch(await network.mappings(), 'dnat', 'the port is closed again');
  },
);

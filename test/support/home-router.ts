// A home behind a router, and the internet before it: three network namespaces, the router with NAT and a firewall
// (nftables) and miniupnpd, which opens ports for those who ask (UPnP). Root's, on Linux.

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { NAMESPACES } from './cleanup.ts';
import { missingForHomes } from './homes.ts';
import type { Run } from './run.ts';
import type { Machine } from './weather.ts';

// Routers and libp2p map no port to an address that is private outside as well.
const OUTSIDE = '11.77.0.1';
const ROUTER = '11.77.0.2';
const HOME = '192.168.7.2';

const RULES = `
table inet filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		iifname "lan" accept
		jump opened
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		jump mapped
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname "wan" masquerade
	}
	chain opened {
	}
	chain mapped {
	}
	chain mapped_back {
	}
}
`;

const DAEMON = `
ext_ifname=wan
listening_ip=lan
enable_upnp=yes
secure_mode=yes
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=opened
upnp_nat_chain=mapped
upnp_nat_postrouting_chain=mapped_back
uuid=5c4e8c0a-64d5-4b8e-a1a4-6a0d1b7b7a11
allow 1024-65535 192.168.7.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`;

/** Why there can be no router here; undefined when there can. */
export function missingForRouter(): string | undefined {
  const missing = missingForHomes();
  if (missing !== undefined) return missing;
  const { error, stdout } = spawnSync('miniupnpd', ['--version'], { encoding: 'utf8' });
  if (error) return 'miniupnpd is not installed';
  return stdout.includes('nftables') ? undefined : 'this miniupnpd is not made for nftables';
}

/** The machines of one run; they end with it. */
export interface HomeNetwork {
  readonly outside: Machine;
  readonly home: Machine;
  /** Address of the router outside. */
  readonly router: string;
  /** Starts the router's UPnP. */
  openPortsOnRequest(): void;
  /** What the router lets through and where to, as nft tells it. */
  mappings(): Promise<string>;
}

/** Makes them; the router opens no ports yet. */
export async function homeNetwork(run: Run): Promise<HomeNetwork> {
  const [home, router, outside] = ['home', 'router', 'outside'].map((name) => `${basename(run.dir)}-${name}`) as [
    string,
    string,
    string,
  ];
  const ip = (namespace: string, ...lines: string[]): Promise<string> =>
    run.must('ip', ['-batch', '-'], { namespace, input: ['link set lo up', ...lines, ''].join('\n') });
  for (const name of [home, router, outside]) await run.must('ip', ['netns', 'add', name]);
  await run.must('ip', ['link', 'add', 'lan', 'netns', home, 'type', 'veth', 'peer', 'name', 'lan', 'netns', router]);
  await run.must('ip', [
    'link',
    'add',
    'wan',
    'netns',
    router,
    'type',
    'veth',
    'peer',
    'name',
    'wan',
    'netns',
    outside,
  ]);
  await ip(outside, `addr add ${OUTSIDE}/24 dev wan`, 'link set wan up');
  await ip(
    router,
    ...['addr add 192.168.7.1/24 dev lan', 'link set lan up', 'route add 239.0.0.0/8 dev lan'],
    ...[`addr add ${ROUTER}/24 dev wan`, 'link set wan up', `route add default via ${OUTSIDE}`],
  );
  await ip(home, `addr add ${HOME}/24 dev lan`, 'link set lan up', 'route add default via 192.168.7.1');
  await run.must('sh', ['-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'], { namespace: router });
  await run.must('nft', ['-f', '-'], { namespace: router, input: RULES });
  return {
    outside: { namespace: outside, ip: OUTSIDE },
    home: { namespace: home, ip: HOME },
    router: ROUTER,
    openPortsOnRequest() {
      const settings = join(run.dir, 'miniupnpd.conf');
      writeFileSync(settings, DAEMON);
      const log = openSync(join(run.dir, 'miniupnpd.log'), 'a');
      const words = ['miniupnpd', '-d', '-f', settings, '-P', join(run.dir, 'miniupnpd.pid')];
      spawn('nsenter', [`--net=${join(NAMESPACES, router)}`, '--', ...words], {
        env: run.env(),
        stdio: ['ignore', log, log],
      });
      closeSync(log);
    },
    mappings: () => run.must('nft', ['list', 'chain', 'inet', 'filter', 'mapped'], { namespace: router }),
  };
}

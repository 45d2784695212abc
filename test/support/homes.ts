// Homes behind routers that open no port, and the internet between them: two network namespaces for each home, and one in
// which the others' packets are handed on, and counted (nftables). Root's, on Linux.

import { spawnSync } from 'node:child_process';
import { basename } from 'node:path';
import type { Run } from './run.ts';
import type { Machine } from './weather.ts';

/** How a router translates addresses: with one port for whatever a port inside talks to, or with another one each time. */
export type Router = 'same port' | 'any port';

const HOME = '192.168.7.2';
const ROUTER_INSIDE = '192.168.7.1';

const COUNTERS = `
table inet counted {
	counter here {
	}
	counter through {
	}
	chain input {
		type filter hook input priority 0; policy accept;
		counter name here
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		counter name through
	}
}
`;

const rules = (router: Router): string => `
table inet filter {
	chain input {
		type filter hook input priority 0; policy accept;
		ct state established,related accept
		iifname "wan" drop
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		iifname "lan" accept
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		oifname "wan" masquerade ${router === 'any port' ? 'fully-random' : ''}
	}
}
`;

/** Why there can be no homes here; undefined when there can. */
export function missingForHomes(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root can make network namespaces';
  for (const tool of ['ip', 'nft', 'nsenter']) {
    if (spawnSync(tool, ['-V']).error) return `${tool} is not installed`;
  }
  return undefined;
}

/** The machines of one run; they end with it. */
export interface Homes {
  /** Which every home can reach. */
  readonly outside: Machine;
  /** One in each home. */
  readonly homes: readonly Machine[];
  /** From now on nothing passes from home to home. */
  readonly cutBetween: () => Promise<void>;
  /** Bytes so far: that reached the machine outside, and that passed from home to home. */
  readonly bytes: () => Promise<{ readonly here: number; readonly through: number }>;
}

/** Makes a home behind each router. */
export async function homesBehind(run: Run, routers: readonly Router[]): Promise<Homes> {
  const named = (name: string): string => `${basename(run.dir)}-${name}`;
  const outside = named('outside');
  const add = (name: string): Promise<string> => run.must('ip', ['netns', 'add', name]);
  const ip = (namespace: string, ...lines: string[]): Promise<string> =>
    run.must('ip', ['-batch', '-'], { namespace, input: ['link set lo up', ...lines, ''].join('\n') });
  const line = (device: string, from: string, otherDevice: string, to: string): Promise<string> =>
    run.must('ip', `link add ${device} netns ${from} type veth peer name ${otherDevice} netns ${to}`.split(' '));
  const forwards = async (namespace: string, input: string): Promise<void> => {
    await run.must('sh', ['-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'], { namespace });
    await run.must('nft', ['-f', '-'], { namespace, input });
  };
  await add(outside);
  await forwards(outside, COUNTERS);
  const homes = routers.map(async (kind, n): Promise<Machine> => {
    const [home, router] = [named(`home${n}`), named(`router${n}`)];
    await Promise.all([add(home), add(router)]);
    await line('lan', home, 'lan', router);
    await line('wan', router, `wan${n}`, outside);
    await ip(outside, `addr add 11.77.${n}.1/24 dev wan${n}`, `link set wan${n} up`);
    await ip(
      router,
      ...[`addr add ${ROUTER_INSIDE}/24 dev lan`, 'link set lan up'],
      ...[`addr add 11.77.${n}.2/24 dev wan`, 'link set wan up', `route add default via 11.77.${n}.1`],
    );
    await ip(home, `addr add ${HOME}/24 dev lan`, 'link set lan up', `route add default via ${ROUTER_INSIDE}`);
    await forwards(router, rules(kind));
    return { namespace: home, ip: HOME };
  });
  return {
    homes: await Promise.all(homes),
    outside: { namespace: outside, ip: '11.77.0.1' },
    async cutBetween() {
      const rule = ['insert', 'rule', 'inet', 'counted', 'forward', 'drop'];
      await run.must('nft', rule, { namespace: outside });
    },
    async bytes() {
      const listed = await run.must('nft', ['list', 'counters'], { namespace: outside });
      const of = (name: string): number => Number(new RegExp(`counter ${name} \\{[^}]*bytes (\\d+)`).exec(listed)?.[1]);
      return { here: of('here'), through: of('through') };
    },
  };
}

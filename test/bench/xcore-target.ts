// xcore itself, with a bridge and hosts as processes on loopback.

import { rmSync } from 'node:fs';
import type { Client } from '../support/client.ts';
import type { TestNetwork } from '../support/network.ts';
import type { Target } from './target.ts';

/** A fresh volume of a network. Forgetting is what its owner would do: the same words on an empty machine. */
export async function startXcore(net: TestNetwork): Promise<Target> {
  let client: Client = await net.newClient('client-0');
  const words = await client.phrase();
  await client.mount();
  let pids = [await client.daemonPid()];
  let machines = 1;
  return {
    name: 'xcore',
    get dir() {
      return client.mountPoint;
    },
    pids: () => pids,
    servers: () => [net.bridge.pid, ...net.hosts.map(({ pid }) => pid)],
    settle: async () => await client.flush(),
    forget: async () => {
      await client.umount();
      rmSync(client.home, { recursive: true });
      client = await net.recovered(`client-${machines++}`, words);
      await client.mount();
      pids = [await client.daemonPid()];
    },
    remount: {
      umount: async () => {
        await client.umount();
        pids = [];
      },
      mount: async () => {
        await client.mount();
      },
      find: async () => {
        pids = [await client.daemonPid()];
      },
    },
  };
}

// One mounted volume for tests of single operations.

import type { Client } from './client.ts';
import { withNetwork } from './network.ts';
import type { TestNetwork } from './network.ts';
import type { Scope } from './run.ts';

/** A mounted volume on a bridge and one host. */
export interface Mounted {
  readonly net: TestNetwork;
  readonly client: Client;
  /** The mount point. */
  readonly dir: string;
  /** Unmounts without waiting and mounts again: what comes back was kept on disk, not in a cache. */
  remount(): Promise<void>;
}

/** Mounts an empty volume; ends with the test `t`. */
export async function withMount(t: Scope): Promise<Mounted> {
  const net = await withNetwork(t, { hosts: 1 });
  const client = await net.newClient('a');
  const dir = await client.mount();
  return {
    net,
    client,
    dir,
    remount: async () => {
      await client.umount('--no-wait');
      await client.mount();
    },
  };
}

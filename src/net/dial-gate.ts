// Which addresses a node that serves may dial, and whom it relays: nobody, but for what is let through for a moment.

import type { ConnectionGater, Libp2p } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { toNetworkError } from './failure.ts';
import type { PeerName } from './network.ts';

/** Shut unless told otherwise. */
export class DialGate {
  readonly #open = new Set<string>();
  #mayReserve: (peer: PeerName) => boolean = () => false;

  /** Whom the node's relay takes in. */
  set mayReserve(mayReserve: (peer: PeerName) => boolean) {
    this.#mayReserve = mayReserve;
  }

  /** Lets one multiaddr through while `task` runs. */
  async letThrough<T>(address: string, task: () => Promise<T>): Promise<T> {
    this.#open.add(address);
    try {
      return await task();
    } finally {
      this.#open.delete(address);
    }
  }

  /** For createLibp2p(). */
  get gater(): ConnectionGater {
    return {
      denyDialPeer: () => this.#open.size === 0,
      denyDialMultiaddr: (address) => !this.#open.has(address.toString()),
      denyInboundRelayReservation: (peer) => !this.#mayReserve(peer.toString()),
    };
  }
}

/** Makes a connection of its own to a multiaddr with its /p2p/ id, and ends it: rejects unless that peer answers there. */
export async function dialBack(
  node: Pick<Libp2p, 'dial'>,
  gate: DialGate,
  address: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const connection = await gate.letThrough(address, () => node.dial(multiaddr(address), { force: true, signal }));
    await connection.close({ signal });
  } catch (error) {
    throw toNetworkError(error);
  }
}

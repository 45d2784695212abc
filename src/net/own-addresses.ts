// The addresses that a node tells of itself. Left to itself, libp2p keeps public ones back until strangers have
// confirmed them; here the bridge tries them, and a bridge's own are tried by whoever comes.

import type { Multiaddr } from '@multiformats/multiaddr';

/** What libp2p hands in. */
interface Components {
  readonly transportManager: { getAddrs(): Multiaddr[] };
}

/** Adds to what libp2p would tell every address on which the node listens. */
export class OwnAddresses {
  #components: Components | null = null;

  /** As a service of the node: learns where it listens. */
  readonly service = (components: Components): object => {
    this.#components = components;
    return this;
  };

  /** As the node's announceFilter. */
  readonly filter = (told: Multiaddr[]): Multiaddr[] => {
    const known = new Set(told.map(withoutPeer));
    const listening = this.#components?.transportManager.getAddrs() ?? [];
    return [...told, ...listening.filter((address) => !known.has(withoutPeer(address)))];
  };
}

function withoutPeer(address: Multiaddr): string {
  return address.toString().replace(/\/p2p\/[^/]+$/, '');
}

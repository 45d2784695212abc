// Places for what is under way: so many over all peers, and so many of them for one.

import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';

/** Counts who has a place; each peer in the map has at least one. */
export class Places {
  readonly #ofPeer = new Map<PeerName, number>();
  readonly #perPeer: number;
  #taken = 0;

  constructor(perPeer: number) {
    this.#perPeer = perPeer;
  }

  /** Places that are taken. */
  get taken(): number {
    return this.#taken;
  }

  /** Takes a place, of at most so many; EAGAIN when there is none, or none for this peer. What comes back gives it up. */
  take(peer: PeerName, atMost: number): () => void {
    const own = this.#ofPeer.get(peer) ?? 0;
    if (this.#taken >= atMost || own >= this.#perPeer) {
      throw new XcoreError('EAGAIN', 'this host has too many transfers under way');
    }
    this.#taken += 1;
    this.#ofPeer.set(peer, own + 1);
    return () => this.#leave(peer);
  }

  #leave(peer: PeerName): void {
    this.#taken -= 1;
    const own = (this.#ofPeer.get(peer) ?? 1) - 1;
    if (own > 0) this.#ofPeer.set(peer, own);
    else this.#ofPeer.delete(peer);
  }
}

// libp2p's circuit relay, for hosts that nobody can dial: the bridge relays, hosts keep a place there, and whoever wants
// something of them dials through it. What is relayed is encrypted between the two ends.

import { circuitRelayTransport } from '@libp2p/circuit-relay-v2';
import type { Libp2p, PeerId, Transport } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { PeerName } from './network.ts';
import { boundedRelayServer } from './relay-server.ts';
import type { RelayBounds } from './relay-server.ts';

/** Hosts that one bridge relays for. */
export const MAX_RELAYED_HOSTS = 1_024;
/** Relayed connections of one bridge; more are refused. */
export const MAX_RELAYED_CONNECTIONS = 1_024;
/** Bytes of one relayed connection, both ways together; hundreds of shards. The next one is dialled anew. */
export const MAX_RELAYED_BYTES = 1024 * 1024 * 1024;
/** A relayed connection lives for so long at most. */
export const MAX_RELAYED_MS = 60 * 60_000;
/** Relayed connections that one peer may begin on one of its connections, at once. */
export const MAX_RELAYED_PER_CONNECTION = 16;
/** Bytes of one relayed connection that the bridge holds: each way what came and what has not left, a window each. */
export const MAX_RELAY_HELD_BYTES = 4 * 1024 * 1024;
/** Receive window of the streams of a node that relays. */
export const RELAY_WINDOW_BYTES = MAX_RELAY_HELD_BYTES / 4;

const BOUNDS: RelayBounds = { maxConnections: MAX_RELAYED_CONNECTIONS, maxBytes: MAX_RELAYED_BYTES };

/** The relay itself, as a service of a node. */
export function relayService(bounds: RelayBounds = BOUNDS): ReturnType<typeof boundedRelayServer> {
  return boundedRelayServer(
    {
      maxInboundHopStreams: MAX_RELAYED_PER_CONNECTION,
      maxOutboundStopStreams: 2 * MAX_RELAYED_PER_CONNECTION,
      reservations: {
        maxReservations: MAX_RELAYED_HOSTS,
        defaultDataLimit: BigInt(bounds.maxBytes),
        defaultDurationLimit: MAX_RELAYED_MS,
      },
    },
    bounds,
  );
}

/** Whether a peer has a place on the relay of this node. */
export function relaysFor(node: Pick<Libp2p, 'services'>, peer: PeerName): boolean {
  const { relay } = node.services as { relay?: { reservations: { has(peer: PeerId): boolean } } };
  return relay?.reservations.has(peerIdFromString(peer)) ?? false;
}

/** What keeps places on relays inside the transport. */
interface Reservations {
  addRelay(peer: PeerId, type: 'configured'): Promise<unknown>;
}

/** The transport that dials through relays, and is dialled through them. */
export class RelayTransport {
  #reservations: Reservations | null = null;

  /** For createLibp2p(). */
  get factory(): ReturnType<typeof circuitRelayTransport> {
    const make = circuitRelayTransport({
      maxInboundStopStreams: 2 * MAX_RELAYED_PER_CONNECTION,
      maxOutboundStopStreams: MAX_RELAYED_PER_CONNECTION,
    });
    return (components) => {
      const transport: Transport & { reservationStore?: Reservations } = make(components);
      this.#reservations = transport.reservationStore ?? null;
      return transport;
    };
  }

  /** Gets or keeps a place on the relay of a connected peer; does nothing while there is one. Rejects when it refuses. */
  async reserve(relay: PeerName): Promise<void> {
    await this.#reservations?.addRelay(peerIdFromString(relay), 'configured');
  }
}

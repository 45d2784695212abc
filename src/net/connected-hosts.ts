// The bridge's requests to hosts: audits, copies and inventories. They travel on the connection that the
// host itself has made, so that no host can make the bridge dial an address.

import { peerIdFromString } from '@libp2p/peer-id';
import { systemClock } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { HostClient } from './host-client.ts';
import type { OpenStream } from './host-client.ts';
import type { PeerName } from './network.ts';
import type { NetworkNode } from './node.ts';
import { SHARD_PROTOCOL } from './protocols.ts';
import type { Signed } from './proto/wire_pb.ts';

/** A host that a mirror is copied from, and the order that it is shown. */
export interface CopySource {
  readonly order: Signed;
  /** Multiaddrs without /p2p/. */
  readonly addresses: readonly string[];
  /** Hashed keys that the host is to mint meanwhile. */
  readonly keysWanted: number;
}

/** What the bridge asks of hosts; errors are those of HostClient, and UNREACHABLE for a host that is not connected. */
export interface HostCalls {
  /** Some leaves with their proof, or with leafCount 0 the whole shard; unverified. */
  retrieve(
    host: PeerName,
    order: Signed,
    range: { readonly firstLeaf: number; readonly leafCount: number },
    dataBytes: number,
    signal?: AbortSignal,
  ): Promise<{ data: Buffer; proof: Uint8Array[] }>;
  /** Has a host fetch a mirror from another one; its receipt and hashed keys, unverified. */
  copy(
    host: PeerName,
    order: Signed,
    source: CopySource,
    signal?: AbortSignal,
  ): Promise<{ receipt: Signed; keys?: Signed | undefined }>;
  /** A host's answer to a challenge, unverified. */
  prove(host: PeerName, order: Signed, challenge: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
  /** The order on which a host says it deleted a shard, unverified. */
  findDeletion(host: PeerName, shardId: Uint8Array, signal?: AbortSignal): Promise<Signed | undefined>;
  /** What a host says it holds, after an id, ascending. */
  list(
    host: PeerName,
    after: Uint8Array,
    limit: number,
    signal?: AbortSignal,
  ): Promise<{ shardIds: Uint8Array[]; last: boolean }>;
}

/** The calls on a node to which hosts have connected. */
export class ConnectedHosts implements HostCalls {
  readonly #client: HostClient;

  /** The node is the caller's. */
  constructor(node: NetworkNode, clock: Clock = systemClock) {
    this.#client = new HostClient(node, { openStream: onOpenConnection(node), clock });
  }

  retrieve(
    host: PeerName,
    order: Signed,
    range: { readonly firstLeaf: number; readonly leafCount: number },
    dataBytes: number,
    signal?: AbortSignal,
  ): Promise<{ data: Buffer; proof: Uint8Array[] }> {
    return this.#client.retrieve({ host, addresses: [], order }, range, dataBytes, { signal });
  }

  copy(
    host: PeerName,
    order: Signed,
    source: CopySource,
    signal?: AbortSignal,
  ): Promise<{ receipt: Signed; keys: Signed | undefined }> {
    return this.#client.copy({ host, addresses: [], order }, source, signal);
  }

  prove(host: PeerName, order: Signed, challenge: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#client.prove({ host, addresses: [], order }, challenge, signal);
  }

  findDeletion(host: PeerName, shardId: Uint8Array, signal?: AbortSignal): Promise<Signed | undefined> {
    return this.#client.findDeletion({ host, addresses: [] }, shardId, signal);
  }

  list(
    host: PeerName,
    after: Uint8Array,
    limit: number,
    signal?: AbortSignal,
  ): Promise<{ shardIds: Uint8Array[]; last: boolean }> {
    return this.#client.list({ host, addresses: [] }, after, limit, signal);
  }

  /** Ends the kept streams. */
  stop(): Promise<void> {
    return this.#client.stop();
  }
}

function onOpenConnection(node: NetworkNode): OpenStream {
  return async ({ host }, signal) => {
    const connection = node.getConnections(peerIdFromString(host)).find(({ status }) => status === 'open');
    if (!connection) throw new XcoreError('UNREACHABLE', `host ${host} is not connected`);
    return connection.newStream(SHARD_PROTOCOL, { signal });
  };
}

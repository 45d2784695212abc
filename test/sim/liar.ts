// A host of a simulated world that lies: to some it is an honest host, to others it signs for what it does not keep,
// shows other bytes than it was given, denies what it has and claims what it has not.

import { XcoreError } from '../../src/lib/errors.ts';
import { readOrder, signOrder, signReceipt } from '../../src/net/orders.ts';
import type { NetworkNode } from '../../src/net/node.ts';
import type { Signed } from '../../src/net/proto/wire_pb.ts';
import { serveShardStream } from '../../src/net/shard-protocol.ts';
import type { ShardHandlers } from '../../src/net/shard-protocol.ts';
import type { Luck } from './luck.ts';
import type { SimProcess } from './process.ts';

/** The node of a liar: of the streams that others open, it serves this share with lies. */
export function lyingNode(node: NetworkNode, process: SimProcess, seed: Uint8Array, share: number): NetworkNode {
  const { luck, clock } = process;
  const handlers = lies(luck, seed, node.peerId.toString());
  return {
    peerId: node.peerId,
    getMultiaddrs: () => node.getMultiaddrs(),
    getConnections: (peer) => node.getConnections(peer),
    dialProtocol: (...call) => node.dialProtocol(...call),
    stop: () => node.stop(),
    handle: (protocol, serve, options) =>
      node.handle(
        protocol,
        (stream, connection) => {
          if (luck.chance(share))
            void serveShardStream(stream, connection.remotePeer.toString(), handlers, () => {}, clock);
          else serve(stream, connection);
        },
        options,
      ),
  };
}

function lies(luck: Luck, seed: Uint8Array, host: string): ShardHandlers {
  const receiptFor = (signed: Signed | undefined): Signed => {
    const { serial, shardId, sizeBytes, client } = readOrder(signed);
    return signReceipt(seed, { serial, shardId, sizeBytes, host, client, timeMs: 1n });
  };
  return {
    async store(signed, receive) {
      const { sizeBytes } = readOrder(signed);
      // Or it says that it had the shard already.
      if (luck.chance(0.5)) for await (const _part of receive(sizeBytes));
      return receiptFor(signed);
    },
    async retrieve(signed, firstLeaf, leafCount) {
      const { sizeBytes } = readOrder(signed);
      if (luck.chance(0.2)) throw new XcoreError('NOT_FOUND', 'what shard?');
      if (luck.chance(0.1)) return new Promise(() => {});
      const start = firstLeaf * 16_384;
      const dataBytes = leafCount === 0 ? sizeBytes : Math.min(sizeBytes, start + leafCount * 16_384) - start;
      const data = luck.content(luck.chance(0.1) ? dataBytes + 1 : dataBytes);
      return { dataBytes, proof: leafCount === 0 ? [] : [luck.bytes(32), luck.bytes(32)], data: [data] };
    },
    copy: (signed) => Promise.resolve({ receipt: receiptFor(signed) }),
    prove: () => Promise.resolve(luck.bytes(32)),
    findDeletion: (shardId) => {
      const order = { operation: 'delete', serial: luck.bytes(16), shardId, host, sizeBytes: 1 };
      return Promise.resolve(luck.chance(0.5) ? signOrder(seed, order) : undefined);
    },
    list() {
      const shardIds = Array.from({ length: luck.below(4) }, () => luck.bytes(32)).sort((a, b) => a.compare(b));
      return Promise.resolve({ shardIds, last: luck.chance(0.9) });
    },
  };
}

// Mirrors that hosts are to delete: ordered with each heartbeat until the host reports them deleted,
// however long it is away. What puts something in here: an entry of the owner's log that frees the shard, a mirror
// too many, one that an audit has proved bad, and one that nobody has known for long.

import type { PeerName } from '../net/network.ts';
import type { Signed } from '../net/proto/wire_pb.ts';
import { deleteKey, deletesOf, serialOfDeleteKey } from './keys.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { OrderSigner } from './order-signer.ts';
import type { DeleteRecord } from './proto/records_pb.ts';
import { deleteRecord, hexOf } from './records.ts';
import type { ShardDirectory, ShareChanges } from './shard-directory.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

const SERIAL_BYTES = 16;

/** What the queue works with. */
export interface DeleteQueueComponents {
  readonly store: Store;
  readonly directory: ShardDirectory;
  readonly index: MirrorIndex;
  readonly signer: OrderSigner;
  readonly volumeQueue: KeyedQueue;
  /** The bridge's own peer, the client of its delete orders. */
  readonly bridge: PeerName;
}

/** Orders deletions and takes the reports. */
export class DeleteQueue {
  readonly #components: DeleteQueueComponents;
  readonly #maxOrders: number;

  /** `maxOrders`: in one heartbeat's answer. */
  constructor(components: DeleteQueueComponents, options: { readonly maxOrders: number }) {
    this.#components = components;
    this.#maxOrders = options.maxOrders;
  }

  /** Signed delete orders that wait for the host, the same again until they are reported. */
  async ordersFor(host: PeerName): Promise<Signed[]> {
    const { store, signer, bridge } = this.#components;
    const orders: Signed[] = [];
    for await (const [key, value] of store.range(deletesOf(host, this.#maxOrders))) {
      const { shardId, sizeBytes, volume } = deleteRecord.decode(value);
      const serial = serialOfDeleteKey(key);
      orders.push(
        signer.make({ operation: 'delete', client: bridge, host, shardId, sizeBytes, volume, serial }).signed,
      );
    }
    return orders;
  }

  /** Takes a host's report; serials that do not wait for this host are ignored. */
  async reported(host: PeerName, serials: readonly Uint8Array[]): Promise<void> {
    const keys = serials.filter((serial) => serial.length === SERIAL_BYTES).map((serial) => deleteKey(host, serial));
    const values = await this.#components.store.getMany(keys);
    const ofVolume = new Map<string, { record: DeleteRecord; key: Uint8Array }[]>();
    values.forEach((value, at) => {
      if (!value) return;
      const record = deleteRecord.decode(value);
      const name = hexOf(record.volume);
      ofVolume.set(name, [...(ofVolume.get(name) ?? []), { record, key: keys[at]! }]);
    });
    for (const [name, deletes] of ofVolume) {
      await this.#components.volumeQueue.run(name, () => this.#forget(host, deletes));
    }
  }

  async #forget(host: PeerName, deletes: readonly { record: DeleteRecord; key: Uint8Array }[]): Promise<void> {
    const { store, directory, index } = this.#components;
    const shards = await directory.load(deletes.map(({ record }) => record.shardId));
    const shares: ShareChanges = new Map();
    const writes: StoreWrite[] = [];
    for (const { record, key } of deletes) {
      writes.push({ key });
      const shard = shards.get(hexOf(record.shardId));
      if (shard?.deleting.includes(host)) {
        shard.deleting = shard.deleting.filter((name) => name !== host);
        writes.push(directory.save(record.shardId, shard));
      }
      const at = shard?.freed ? shard.mirrors.findIndex((mirror) => mirror.host === host) : -1;
      if (!shard || at < 0) continue;
      shard.mirrors.splice(at, 1);
      shares.set(host, (shares.get(host) ?? 0) - record.sizeBytes);
      writes.push(directory.save(record.shardId, shard), index.removed(host, record.shardId, record.sizeBytes));
    }
    const volume = deletes[0]!.record.volume;
    await store.batch([...writes, ...(await directory.saveShares(volume, shares))]);
  }
}

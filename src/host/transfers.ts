// What a host does for clients: honours orders for storing and reading shards. Knows the bridge only
// by its signature, and no keys but its own.

import { leafCountOf, MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { PeerName } from '../net/network.ts';
import { checkOrder, signReceipt, verifyOrder } from '../net/orders.ts';
import type { Operation } from '../net/orders.ts';
import type { Order, Signed } from '../net/proto/wire_pb.ts';
import type { ShardHandlers, TransferContext } from '../net/shard-protocol.ts';
import type { ShardStore } from './shard-store.ts';
import type { UsedSerials } from './used-serials.ts';

/** What transfers work with. */
export interface TransfersComponents {
  readonly store: ShardStore;
  readonly serials: UsedSerials;
  readonly clock: Clock;
  readonly metrics: Metrics;
  /** Ed25519 seed of the host, which signs receipts. */
  readonly seed: Uint8Array;
  readonly host: PeerName;
  readonly bridge: PeerName;
}

/** Bounds of the transfers. */
export interface TransfersOptions {
  readonly storeDeadlineMs: number;
  readonly maxStores: number;
  readonly maxReads: number;
}

type RetrieveAnswer = Awaited<ReturnType<ShardHandlers['retrieve']>>;

/** The transfers of one host. */
export class Transfers implements ShardHandlers {
  readonly #components: TransfersComponents;
  readonly #options: TransfersOptions;
  readonly #bytes;
  #stores = 0;
  #reads = 0;

  constructor(components: TransfersComponents, options: TransfersOptions) {
    this.#components = components;
    this.#options = options;
    this.#bytes = components.metrics.counter('host_bytes_total', 'Shard bytes moved', ['direction']);
  }

  /** Transfers under way. */
  get active(): number {
    return this.#stores + this.#reads;
  }

  /** Stores a shard on order and answers with a receipt. REFUSED, HOST_FULL, CORRUPT_SHARD, TIMEOUT, EAGAIN when too many are under way. */
  async store(
    signed: Signed | undefined,
    receive: (sizeBytes: number) => AsyncIterable<Buffer>,
    context: TransferContext,
  ): Promise<Signed> {
    const { store, serials } = this.#components;
    const order = this.#check(signed, 'store', context);
    if (this.#stores >= this.#options.maxStores) throw busy();
    this.#stores += 1;
    try {
      await serials.use(order.serial, Number(order.expiresMs));
      const { shardId, sizeBytes } = order;
      if (!(await store.holds(shardId, sizeBytes))) {
        await store.store(shardId, sizeBytes, () => this.#withDeadline(receive(sizeBytes)));
        this.#bytes.inc({ direction: 'in' }, sizeBytes);
      }
      return this.#receipt(order);
    } finally {
      this.#stores -= 1;
    }
  }

  /** Reads a shard, or leaves with their proof, on order. REFUSED, NOT_FOUND, CORRUPT_SHARD, PROTOCOL, EAGAIN. */
  async retrieve(
    signed: Signed | undefined,
    firstLeaf: number,
    leafCount: number,
    context: TransferContext,
  ): Promise<RetrieveAnswer> {
    const { store } = this.#components;
    const { shardId, sizeBytes } = this.#check(signed, 'retrieve', context);
    if (leafCount > 0 && firstLeaf + leafCount > leafCountOf(sizeBytes)) {
      throw new XcoreError('PROTOCOL', 'the shard has no such leaves');
    }
    if (this.#reads >= this.#options.maxReads) throw busy();
    this.#reads += 1;
    try {
      if (leafCount === 0) {
        const data = await store.read(shardId, sizeBytes);
        this.#bytes.inc({ direction: 'out' }, sizeBytes);
        return { dataBytes: sizeBytes, proof: [], data };
      }
      const { data, proof } = await store.readLeaves(shardId, sizeBytes, firstLeaf, leafCount);
      this.#bytes.inc({ direction: 'out' }, data.length);
      return { dataBytes: data.length, proof, data: [data] };
    } finally {
      this.#reads -= 1;
    }
  }

  #check(signed: Signed | undefined, operation: Operation, context: TransferContext): Order {
    const { bridge, host, clock } = this.#components;
    const order = verifyOrder(signed, bridge);
    checkOrder(order, { operation, client: context.remotePeer, host, nowMs: clock.now() });
    if (order.sizeBytes < 1 || order.sizeBytes > MAX_SHARD_SIZE_BYTES) {
      throw new XcoreError('TOO_LARGE', `a shard has 1 to ${MAX_SHARD_SIZE_BYTES} bytes`);
    }
    return order;
  }

  #receipt({ serial, shardId, sizeBytes, client }: Order): Signed {
    const { seed, host, clock } = this.#components;
    return signReceipt(seed, { serial, shardId, sizeBytes, host, client, timeMs: BigInt(clock.now()) });
  }

  async *#withDeadline(parts: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const { clock } = this.#components;
    const done = new AbortController();
    const late = clock.sleep(this.#options.storeDeadlineMs, done.signal).then(
      () => 'late' as const,
      () => 'late' as const,
    );
    const iterator = parts[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = iterator.next();
        const result = await Promise.race([next, late]);
        if (result === 'late') {
          // The stream ends with this request, and the read that still waits with it.
          next.catch(() => {});
          throw new XcoreError('TIMEOUT', 'the shard took too long to arrive');
        }
        if (result.done) return;
        yield result.value;
      }
    } finally {
      done.abort();
    }
  }
}

function busy(): XcoreError {
  return new XcoreError('EAGAIN', 'this host has too many transfers under way');
}

// What a host does for clients and the bridge: honours orders for storing, reading and copying shards. Knows the
// bridge only by its signature, and no keys but its own.

import { beginAnswer, CHALLENGE_BYTES } from '../crypto/hashed-key.ts';
import { leafCountOf, MAX_SHARD_SIZE_BYTES } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { RandomBytes } from '../lib/random-bytes.ts';
import type { HostTarget } from '../net/host-client.ts';
import { mintStock } from '../net/key-stock.ts';
import type { PeerName } from '../net/network.ts';
import { checkOrder, KnownOrders, signReceipt, verifyOrder } from '../net/orders.ts';
import type { Operation } from '../net/orders.ts';
import type { Order, Signed } from '../net/proto/wire_pb.ts';
import type { CopySource, ShardHandlers, TransferContext } from '../net/shard-protocol.ts';
import type { Allowance } from './allowance.ts';
import { Places } from './places.ts';
import type { ShardStore } from './shard-store.ts';
import type { Tombstones } from './tombstones.ts';
import type { Direction } from './traffic-meter.ts';
import type { UsedSerials } from './used-serials.ts';

/** What transfers work with. */
export interface TransfersComponents {
  readonly store: ShardStore;
  readonly serials: UsedSerials;
  readonly tombstones: Tombstones;
  readonly clock: Clock;
  readonly randomBytes?: RandomBytes;
  readonly metrics: Metrics;
  /** Ed25519 seed of the host, which signs receipts. */
  readonly seed: Uint8Array;
  readonly host: PeerName;
  readonly bridge: PeerName;
  /** What the owner allows to move; all unless there is one. */
  readonly allowance?: Allowance | undefined;
  /** Retrieves a whole shard from another host, unverified. */
  readonly fetchFrom: (source: HostTarget, sizeBytes: number, signal: AbortSignal) => Promise<Buffer>;
}

/** Bounds of the transfers. */
export interface TransfersOptions {
  readonly storeDeadlineMs: number;
  readonly maxStores: number;
  readonly maxStoresPerPeer: number;
  readonly maxReads: number;
  /** Shards that may be fetched from other hosts at once, one of them in memory each. */
  readonly maxCopies: number;
}

/** Ids in one page of an inventory. */
const MAX_LISTED = 2_048;

type RetrieveAnswer = Awaited<ReturnType<ShardHandlers['retrieve']>>;

/** The transfers of one host. */
export class Transfers implements ShardHandlers {
  readonly #components: TransfersComponents;
  readonly #options: TransfersOptions;
  readonly #stores: Places;
  /** Of reads: each serves for many. */
  readonly #orders = new KnownOrders();
  readonly #bytes;
  readonly #audits;
  #reads = 0;
  #copies = 0;
  /** Reads whose bytes leave no faster than the owner allows. */
  #leavingNow = 0;
  #inBytes = 0;
  #outBytes = 0;
  #auditCount = 0;

  constructor(components: TransfersComponents, options: TransfersOptions) {
    this.#components = components;
    this.#options = options;
    this.#stores = new Places(options.maxStoresPerPeer);
    this.#bytes = components.metrics.counter('host_bytes_total', 'Shard bytes moved', ['direction']);
    this.#audits = components.metrics.counter('host_audits_total', 'Audits answered');
  }

  /** Transfers under way. */
  get active(): number {
    return this.#stores.taken + this.#reads + this.#copies;
  }

  /** Shard bytes moved since the start. */
  get traffic(): { readonly inBytes: number; readonly outBytes: number } {
    return { inBytes: this.#inBytes, outBytes: this.#outBytes };
  }

  /** Audits answered since the start. */
  get audits(): number {
    return this.#auditCount;
  }

  /** Stores a shard on order and answers with a receipt. REFUSED, HOST_FULL, CORRUPT_SHARD, TIMEOUT, EAGAIN when too many are under way or the host rests. */
  async store(
    signed: Signed | undefined,
    receive: (sizeBytes: number) => AsyncIterable<Buffer>,
    context: TransferContext,
  ): Promise<Signed> {
    const { store, serials, allowance } = this.#components;
    const order = this.#check(signed, 'store', context);
    const leave = this.#stores.take(context.remotePeer, this.#atMost('in', this.#options.maxStores));
    try {
      const { shardId, sizeBytes } = order;
      // Before the order is used up: it is good for another try.
      allowance?.check();
      await serials.use(order.serial, Number(order.expiresMs));
      if (!(await store.holds(shardId, sizeBytes))) {
        const parts = (): AsyncIterable<Buffer> => {
          allowance?.take('in', sizeBytes);
          const received = receive(sizeBytes);
          return this.#withDeadline(allowance?.paces('in') ? allowance.pacedIn(received, context.signal) : received);
        };
        await store.store(shardId, sizeBytes, parts);
        this.#moved('in', sizeBytes);
      }
      return this.#receipt(order);
    } finally {
      leave();
    }
  }

  /** Reads a shard, or leaves with their proof, on order. REFUSED, NOT_FOUND, CORRUPT_SHARD, PROTOCOL, EAGAIN. */
  async retrieve(
    signed: Signed | undefined,
    firstLeaf: number,
    leafCount: number,
    context: TransferContext,
  ): Promise<RetrieveAnswer> {
    const { store, bridge, allowance } = this.#components;
    const { shardId, sizeBytes } = this.#check(signed, 'retrieve', context);
    const isAudit = context.remotePeer === bridge;
    if (leafCount > 0 && firstLeaf + leafCount > leafCountOf(sizeBytes)) {
      throw new XcoreError('PROTOCOL', 'the shard has no such leaves');
    }
    if (!isAudit) {
      allowance?.check();
      const leaving = this.#leavingNow >= this.#atMost('out', Infinity);
      if (leaving || this.#reads >= this.#options.maxReads) throw busy();
    }
    this.#reads += 1;
    try {
      if (leafCount === 0) {
        const data = await store.read(shardId, sizeBytes);
        return { dataBytes: sizeBytes, proof: [], data: this.#leaving(data, sizeBytes, isAudit, context) };
      }
      const { data, proof } = await store.readLeaves(shardId, sizeBytes, firstLeaf, leafCount, isAudit);
      if (isAudit) this.#audited();
      return { dataBytes: data.length, proof, data: this.#leaving([data], data.length, isAudit, context) };
    } finally {
      this.#reads -= 1;
    }
  }

  /**
   * Fetches a mirror from another host on the bridge's order and answers with a receipt, and with hashed keys if some are wanted. CORRUPT_SHARD or NOT_FOUND
   * when the other host does not have it; REFUSED, HOST_FULL, UNREACHABLE, TIMEOUT, EAGAIN.
   */
  async copy(
    signed: Signed | undefined,
    source: CopySource,
    context: TransferContext,
  ): Promise<{ receipt: Signed; keys?: Signed }> {
    const { store, serials, seed, bridge, host, clock, allowance, fetchFrom, randomBytes } = this.#components;
    const order = this.#check(signed, 'store', context);
    if (context.remotePeer !== bridge) throw new XcoreError('REFUSED', 'only the bridge may have shards copied');
    const permission = verifyOrder(source.order, bridge);
    const use = { operation: 'retrieve', client: host, host: permission.host, nowMs: clock.now() } as const;
    checkOrder(permission, use);
    if (Buffer.compare(permission.shardId, order.shardId) !== 0 || permission.sizeBytes !== order.sizeBytes) {
      throw new XcoreError('REFUSED', 'the two orders are for different shards');
    }
    if (this.#copies >= this.#atMost('in', this.#options.maxCopies)) throw busy();
    this.#copies += 1;
    try {
      const { shardId, sizeBytes } = order;
      allowance?.check();
      await serials.use(order.serial, Number(order.expiresMs));
      if (!(await store.holds(shardId, sizeBytes))) {
        allowance?.take('in', sizeBytes);
        await allowance?.pace('in', sizeBytes, context.signal);
        const target = { host: permission.host, addresses: source.addresses, order: source.order! };
        let data: Buffer | undefined;
        const fetch = async function* (): AsyncGenerator<Buffer> {
          yield (data = await fetchFrom(target, sizeBytes, context.signal));
        };
        await store.store(shardId, sizeBytes, () => this.#withDeadline(fetch()));
        this.#moved('in', sizeBytes);
        if (data && source.keysWanted > 0) {
          const keys = mintStock(seed, shardId, data, source.keysWanted, randomBytes);
          return { receipt: this.#receipt(order), keys };
        }
      }
      return { receipt: this.#receipt(order) };
    } finally {
      this.#copies -= 1;
    }
  }

  /** The answer to a challenge, from all bytes of a shard, for the bridge only. REFUSED, PROTOCOL, NOT_FOUND, CORRUPT_SHARD. */
  async prove(signed: Signed | undefined, challenge: Uint8Array, context: TransferContext): Promise<Uint8Array> {
    const { store, bridge } = this.#components;
    const { shardId, sizeBytes } = this.#check(signed, 'retrieve', context);
    if (context.remotePeer !== bridge) throw new XcoreError('REFUSED', 'only the bridge may ask for an answer');
    if (challenge.length !== CHALLENGE_BYTES) throw new XcoreError('PROTOCOL', 'malformed challenge');
    this.#reads += 1;
    try {
      const answer = beginAnswer(challenge);
      for await (const part of await store.read(shardId, sizeBytes)) answer.update(part);
      this.#audited();
      return answer.digest();
    } finally {
      this.#reads -= 1;
    }
  }

  /** The order on which a shard was deleted here, for the bridge only. */
  async findDeletion(shardId: Uint8Array, context: TransferContext): Promise<Signed | undefined> {
    const { bridge, tombstones } = this.#components;
    if (context.remotePeer !== bridge) throw new XcoreError('REFUSED', 'only the bridge may ask for deletions');
    return tombstones.find(shardId);
  }

  /** A page of what is stored, for the bridge only. */
  async list(
    after: Uint8Array,
    limit: number,
    context: TransferContext,
  ): Promise<{ shardIds: Uint8Array[]; last: boolean }> {
    const { bridge, store } = this.#components;
    if (context.remotePeer !== bridge) throw new XcoreError('REFUSED', 'only the bridge may ask for the inventory');
    const count = Math.min(MAX_LISTED, Math.max(1, limit));
    const shardIds = await store.list(after, count);
    return { shardIds, last: shardIds.length < count };
  }

  /** Shard bytes on their way out, as fast as the owner allows; those of audits at once. */
  #leaving(
    parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    bytes: number,
    isAudit: boolean,
    { signal }: TransferContext,
  ): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
    const { allowance } = this.#components;
    if (isAudit) allowance?.takeAudit(bytes);
    else allowance?.take('out', bytes);
    this.#moved('out', bytes);
    return allowance?.paces('out') && !isAudit ? this.#counted(allowance.pacedOut(parts, signal)) : parts;
  }

  async *#counted(parts: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    this.#leavingNow += 1;
    try {
      yield* parts;
    } finally {
      this.#leavingNow -= 1;
    }
  }

  /** Transfers of one direction that may be under way, also where the owner has limited its speed. */
  #atMost(direction: Direction, bound: number): number {
    return Math.min(bound, this.#components.allowance?.maxAtOnce(direction) ?? Infinity);
  }

  #moved(direction: Direction, bytes: number): void {
    if (direction === 'in') this.#inBytes += bytes;
    else this.#outBytes += bytes;
    this.#bytes.inc({ direction }, bytes);
  }

  #audited(): void {
    this.#auditCount += 1;
    this.#audits.inc();
  }

  #check(signed: Signed | undefined, operation: Operation, context: TransferContext): Order {
    const { bridge, host, clock } = this.#components;
    const order = operation === 'retrieve' ? this.#orders.verify(signed, bridge) : verifyOrder(signed, bridge);
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

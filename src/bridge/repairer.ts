// Makes lost mirrors again: has one host fetch the shard from another, under signed orders, and counts the new mirror
// by its receipt. The most endangered shards come first; how many at once and how fast is bounded.

import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { HostCalls } from '../net/connected-hosts.ts';
import type { PeerName } from '../net/network.ts';
import { verifyStock } from '../net/key-stock.ts';
import { verifyReceipt } from '../net/orders.ts';
import type { Receipt, Signed } from '../net/proto/wire_pb.ts';
import type { Auditor } from './auditor.ts';
import type { HashedKeys } from './hashed-keys.ts';
import type { HostPool } from './host-pool.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import { strayKey } from './keys.ts';
import type { Mirrors } from './mirrors.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import type { ShardRecord } from './proto/records_pb.ts';
import { RateLimit } from '../lib/rate-limit.ts';
import { hexOf, sameBytes } from './records.ts';
import type { RepairQueue, RepairTask } from './repair-queue.ts';
import { mirrorOf } from './shard-packing.ts';
import type { Store } from '../lib/store.ts';

/** Tasks that are looked up in one go, the most endangered ones. */
const TASKS_AT_ONCE = 256;
/** Copies of one shard in a row, before others get their turn. */
const MAX_COPIES_IN_A_ROW = 4;
const COPY_TIMEOUT_MS = 90_000;

/** What a repairer works with. */
export interface RepairerComponents {
  readonly store: Store;
  readonly registry: HostRegistry;
  readonly pool: HostPool;
  readonly mirrors: Mirrors;
  readonly keys: HashedKeys;
  readonly book: OrderBook;
  readonly queue: RepairQueue;
  readonly signer: OrderSigner;
  readonly auditor: Pick<Auditor, 'recheck'>;
  readonly calls: HostCalls;
  readonly bridge: PeerName;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** How much is repaired. */
export interface RepairerOptions {
  /** Over all hosts; 0: no limit. */
  readonly repairBytesPerSecond: number;
}

/** Repairs in rounds. */
export class Repairer {
  readonly #components: RepairerComponents;
  readonly #rate: RateLimit | undefined;
  /** The most endangered shards, as they were when it was last looked, at most TASKS_AT_ONCE. */
  #tasks: RepairTask[] = [];
  #filling: Promise<void> | null = null;
  /** Shards that are being repaired, one for each round that runs. */
  readonly #underWay = new Set<string>();
  readonly #copies;
  readonly #bytes;

  constructor(components: RepairerComponents, options: RepairerOptions) {
    this.#components = components;
    const { clock, metrics } = components;
    const { repairBytesPerSecond } = options;
    if (repairBytesPerSecond > 0) this.#rate = new RateLimit(repairBytesPerSecond, clock.monotonicMs());
    this.#copies = metrics.counter('bridge_repairs_total', 'Copies that were ordered', ['outcome']);
    this.#bytes = metrics.counter('bridge_repair_bytes_total', 'Bytes of mirrors that were made again');
  }

  /** Repairs one shard after another until nothing is left that can be helped now; several may run side by side. */
  async round(signal: AbortSignal): Promise<void> {
    for (let task = await this.#take(); task && !signal.aborted; task = await this.#take()) {
      await this.#tryRepair(task, signal);
    }
  }

  async #take(): Promise<RepairTask | undefined> {
    if (this.#tasks.length === 0) await (this.#filling ??= this.#fill());
    return this.#tasks.shift();
  }

  async #fill(): Promise<void> {
    try {
      const tasks = await this.#components.queue.next(TASKS_AT_ONCE);
      this.#tasks = tasks.filter(({ shardId }) => !this.#underWay.has(hexOf(shardId)));
    } finally {
      this.#filling = null;
    }
  }

  async #tryRepair(task: RepairTask, signal: AbortSignal): Promise<void> {
    const { queue, store, log } = this.#components;
    const name = hexOf(task.shardId);
    // Twice in the queue: the other task comes again, and finds what this one has left to do.
    if (this.#underWay.has(name)) return;
    this.#underWay.add(name);
    try {
      const full = await this.#repair(task, signal);
      if (signal.aborted) return;
      await store.batch(full ? [queue.done(task)] : queue.defer(task));
    } catch (error) {
      if (signal.aborted) return;
      log.error({ err: asError(error), shard: name }, 'a repair failed');
      await store.batch(queue.defer(task));
    } finally {
      this.#underWay.delete(name);
    }
  }

  /** Copies until the shard has its mirrors; whether it has them, or needs none. */
  async #repair({ shardId }: RepairTask, signal: AbortSignal): Promise<boolean> {
    const { mirrors } = this.#components;
    for (let copies = 0; ; copies += 1) {
      const record = await mirrors.get(shardId);
      if (!record) return true;
      if (mirrors.counted(record).length >= mirrors.wanted(record.volume)) {
        await mirrors.trim(shardId, record.volume);
        return true;
      }
      if (copies >= MAX_COPIES_IN_A_ROW || !(await this.#copy(shardId, record, signal))) return false;
    }
  }

  /** Whether one more mirror was made. */
  async #copy(shardId: Uint8Array, record: ShardRecord, signal: AbortSignal): Promise<boolean> {
    if (this.#components.mirrors.counted(record).length === 0 || record.claimed) {
      const holder = await this.#strayHolder(shardId, record);
      // It has the shard and fetches nothing: it gives its receipt, and is looked at as a whole.
      if (holder && (await this.#copyTo(holder, holder, shardId, record, signal))) {
        this.#components.auditor.recheck(holder.host, shardId);
        return true;
      }
    }
    const source = this.#source(record);
    const target = this.#target(shardId, record);
    return source !== undefined && target !== undefined && this.#copyTo(target, source, shardId, record, signal);
  }

  /** A host that holds a shard which this bridge does not know to be there: it was restored from a backup, and the mirrors have moved since. */
  async #strayHolder(shardId: Uint8Array, record: ShardRecord): Promise<HostView | undefined> {
    const { registry, store } = this.#components;
    const known = new Set([...record.mirrors.map(({ host }) => host), ...record.deleting]);
    const hosts = registry.all().filter(({ host, online }) => online && !known.has(host));
    const notes = await store.getMany(hosts.map(({ host }) => strayKey(host, shardId)));
    return hosts.find((_, index) => notes[index] !== undefined);
  }

  async #copyTo(
    target: HostView,
    source: HostView,
    shardId: Uint8Array,
    record: ShardRecord,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { book, store, signer, calls, bridge, registry, mirrors, keys, clock, log } = this.#components;
    const { sizeBytes, volume, minReceipts } = record;
    await this.#waitForRate(sizeBytes, signal);
    const wish = { shardId, sizeBytes, volume };
    const made = signer.make({ ...wish, operation: 'store', client: bridge, host: target.host });
    const { serial, expiresMs } = made;
    await store.batch([book.issue({ ...wish, minReceipts, host: target.host, serial, expiresMs })]);
    const permission = signer.make({ ...wish, operation: 'retrieve', client: target.host, host: source.host }).signed;
    const either = deadline(clock, COPY_TIMEOUT_MS, signal);
    try {
      const [keysWanted = 0] = await keys.wanted([shardId]);
      const order = { order: permission, addresses: source.addresses, keysWanted };
      const copied = await calls.copy(target.host, made.signed, order, either);
      const receipt = checkedReceipt(copied.receipt, { ...wish, host: target.host, client: bridge, serial });
      await mirrors.add(shardId, volume, sizeBytes, mirrorOf(receipt, copied.receipt, clock.now()));
      if (copied.keys) await this.#keep(copied.keys, target.host, volume);
      registry.took(target.host, sizeBytes);
      this.#copies.inc({ outcome: 'ok' });
      this.#bytes.inc(sizeBytes);
      return true;
    } catch (error) {
      if (!(error instanceof XcoreError)) throw error;
      this.#copies.inc({ outcome: error.code });
      log.info({ err: error, shard: hexOf(shardId), from: source.host, to: target.host }, 'a copy failed');
      // An order that stays out would draw the next attempt to the same host; what it may have stored is found as a stray.
      await store.batch([book.settle(shardId, target.host)]);
      if (hasCode(error, 'NOT_FOUND', 'CORRUPT_SHARD')) this.#components.auditor.recheck(source.host, shardId);
      else if (!signal.aborted) registry.failed(target.host);
      return false;
    }
  }

  /** Keeps what a host minted; a stock that is none costs it nothing but the stock. */
  async #keep(signed: Signed, host: PeerName, volume: Uint8Array): Promise<void> {
    const { keys, log } = this.#components;
    try {
      const stock = verifyStock(signed);
      if (stock.minter === host) await keys.add(stock, volume);
    } catch (error) {
      if (!(error instanceof XcoreError)) throw error;
      log.warn({ err: error, host }, 'a host handed over no hashed keys');
    }
  }

  /** A host to copy from: one that counts if possible, any of those otherwise. */
  #source(record: ShardRecord): HostView | undefined {
    const { registry, mirrors, random } = this.#components;
    const counted = new Set(mirrors.counted(record));
    return record.mirrors
      .map((mirror) => ({ mirror, host: registry.get(mirror.host), luck: random() }))
      .filter(({ host }) => host?.online && !host.resting)
      .sort(
        (a, b) =>
          Number(a.mirror.failed) - Number(b.mirror.failed) ||
          Number(counted.has(b.mirror)) - Number(counted.has(a.mirror)) ||
          a.mirror.reports - b.mirror.reports ||
          a.luck - b.luck,
      )[0]?.host;
  }

  #target(shardId: Uint8Array, record: ShardRecord): HostView | undefined {
    const { registry, pool, book, mirrors } = this.#components;
    const holders = record.mirrors.map(({ host }) => host);
    const [target] = pool.choose({
      sizeBytes: record.sizeBytes,
      count: 1,
      exclude: new Set([...holders, ...record.deleting]),
      prefer: new Set(book.hostsOf(shardId)),
      holders: registry.placesOf(mirrors.counted(record).map(({ host }) => host)),
    });
    return target;
  }

  async #waitForRate(sizeBytes: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#components;
    const waitMs = this.#rate?.take(clock.monotonicMs(), sizeBytes) ?? 0;
    if (waitMs > 0) await clock.sleep(waitMs, signal);
  }
}

/** The receipt; REFUSED unless it is the target's own for this very order. */
function checkedReceipt(
  signed: Signed,
  expected: { shardId: Uint8Array; sizeBytes: number; host: PeerName; client: PeerName; serial: Uint8Array },
): Receipt {
  const receipt = verifyReceipt(signed);
  const matches =
    receipt.host === expected.host &&
    receipt.client === expected.client &&
    receipt.sizeBytes === expected.sizeBytes &&
    sameBytes(receipt.shardId, expected.shardId) &&
    sameBytes(receipt.serial, expected.serial);
  if (!matches) throw new XcoreError('REFUSED', 'the receipt is not for the order that was given');
  return receipt;
}

// Brings one shard to enough hosts: placed by the bridge, stored on several at once, counted by their receipts.

import { leafCountOf, verifyShard } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import type { Disk } from '../lib/disk.ts';
import { XcoreError } from '../lib/errors.ts';
import type { ErrorCode } from '../lib/errors.ts';
import { BackOff } from './back-off.ts';
import type { BridgeCalls, Placed } from './bridge-calls.ts';
import { abortError, isAway, toNetworkError } from './failure.ts';
import type { FailingHosts } from './failing-hosts.ts';
import type { HostClient } from './host-client.ts';
import type { KeyMinter } from './key-minter.ts';
import { Limiter } from './limiter.ts';
import type { PeerName, ShardSource, ShardStanding } from './network.ts';
import { verifyReceipt } from './orders.ts';
import type { Problems } from './problems.ts';
import type { Signed, Target } from './proto/wire_pb.ts';
import { ShardBuffers } from './shard-buffers.ts';

/** Failures that another try does not mend. */
const FINAL: ReadonlySet<ErrorCode> = new Set(['QUOTA', 'TOO_LARGE', 'ABORTED', 'CLOSED']);

/** What a problem is about that is over with the next shard that is durable; one that still waits tells it again. */
const AWAITED = 'hosts';

/** Hashed keys of a new shard; each takes a hash over it, and whoever fetches it whole makes more. */
const FIRST_KEYS = 2;

/** What an uploader works with. */
export interface UploaderComponents {
  readonly bridge: BridgeCalls;
  readonly hosts: HostClient;
  readonly minter: KeyMinter;
  readonly failing: FailingHosts;
  readonly problems: Problems;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly disk: Disk;
  readonly device: PeerName;
}

/** Options of an uploader. */
export interface UploaderOptions {
  /** Shards under way at once. */
  readonly parallelTransfers: number;
  /** Aborted when the network stops. */
  readonly stopping: AbortSignal;
}

/** Uploads shards until they are durable. */
export class Uploader {
  readonly #components: UploaderComponents;
  readonly #stopping: AbortSignal;
  readonly #limiter: Limiter;
  readonly #buffers: ShardBuffers;
  readonly #stragglers = new Set<Promise<void>>();
  #uploadedBytes = 0;

  constructor(components: UploaderComponents, options: UploaderOptions) {
    this.#components = components;
    this.#stopping = options.stopping;
    this.#limiter = new Limiter(options.parallelTransfers);
    this.#buffers = new ShardBuffers(options.parallelTransfers);
  }

  /** Bytes that hosts gave receipts for. */
  get uploadedBytes(): number {
    return this.#uploadedBytes;
  }

  /** As Network.upload. Mirrors beyond durable go on by themselves, in the same place of the queue. */
  upload(shard: ShardSource, signal?: AbortSignal): Promise<ShardStanding> {
    const done = Promise.withResolvers<ShardStanding>();
    const either = signal ? AbortSignal.any([signal, this.#stopping]) : this.#stopping;
    const whole = this.#limiter
      .run(() => this.#withBytes(shard, (data) => this.#upload(shard, data, either, done.resolve)), either)
      .then(done.resolve, done.reject)
      .finally(() => this.#stragglers.delete(whole));
    this.#stragglers.add(whole);
    return done.promise;
  }

  /** Waits for all that was begun; `stopping` is to be aborted first. */
  async settled(): Promise<void> {
    await Promise.all(this.#stragglers);
  }

  async #withBytes<T>(shard: ShardSource, task: (data: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.#buffers.take();
    try {
      return await task(await readShard(this.#components.disk, shard, buffer));
    } finally {
      this.#buffers.give(buffer);
    }
  }

  async #upload(
    shard: ShardSource,
    data: Buffer,
    signal: AbortSignal,
    durable: (standing: ShardStanding) => void,
  ): Promise<ShardStanding> {
    const { bridge, minter, failing, problems, clock, random } = this.#components;
    const backOff = new BackOff(random);
    let exclude = true;
    for (;;) {
      if (signal.aborted) throw abortError(signal);
      try {
        const placed = await bridge.place(shard.id, shard.sizeBytes, exclude ? failing.avoided() : []);
        exclude = true;
        const standing = await this.#storeAll(shard, data, placed, signal, durable);
        if (standing.durable) {
          problems.over(AWAITED);
          minter.mint(shard.id, data, FIRST_KEYS);
          return standing;
        }
        problems.add(
          'NO_HOSTS',
          `a shard has ${standing.mirrors} of ${placed.policy.minReceipts} mirrors; more hosts are awaited`,
          AWAITED,
        );
        if (standing.mirrors > placed.receipts) backOff.reset();
      } catch (error) {
        const failure = signal.aborted ? abortError(signal) : toNetworkError(error);
        if (FINAL.has(failure.code)) throw failure;
        if (failure.code === 'NO_HOSTS') exclude = false;
        if (!isAway(failure)) problems.add(failure.code, failure.message);
      }
      await clock.sleep(backOff.nextMs(), signal).catch(() => {});
    }
  }

  /** Stores on every target at once; each receipt is handed in when it comes. */
  async #storeAll(
    shard: ShardSource,
    data: Uint8Array,
    placed: Placed,
    signal: AbortSignal,
    durable: (standing: ShardStanding) => void,
  ): Promise<ShardStanding> {
    let standing: ShardStanding = {
      mirrors: placed.receipts,
      durable: placed.receipts > 0 && placed.receipts >= placed.policy.minReceipts,
    };
    if (standing.durable) durable(standing);
    await Promise.all(
      placed.targets.map(async (target) => {
        const receipt = await this.#storeOne(shard, data, target, signal);
        if (!receipt) return;
        const counted = await this.#confirm(receipt, signal);
        if (!counted) return;
        if (counted.mirrors >= standing.mirrors) standing = counted;
        if (counted.durable) durable(counted);
      }),
    );
    return standing;
  }

  /** The receipt, or null after a failure, which is noted. */
  async #storeOne(shard: ShardSource, data: Uint8Array, target: Target, signal: AbortSignal): Promise<Signed | null> {
    const { bridge, hosts, failing, problems, clock, device } = this.#components;
    const { host } = target;
    const startMs = clock.monotonicMs();
    try {
      const signed = await hosts.store(target, data, signal);
      const receipt = verifyReceipt(signed);
      const matches = receipt.host === host && receipt.client === device && receipt.sizeBytes === shard.sizeBytes;
      if (!matches || !Buffer.from(receipt.shardId).equals(shard.id)) {
        throw new XcoreError('PROTOCOL', 'a receipt for something else');
      }
      failing.succeeded(host);
      this.#uploadedBytes += shard.sizeBytes;
      const durationMs = clock.monotonicMs() - startMs;
      bridge.measured({ host, sizeBytes: shard.sizeBytes, durationMs, upload: true });
      return signed;
    } catch (error) {
      if (signal.aborted) return null;
      const failure = toNetworkError(error);
      failing.failed(host);
      if (failure.code === 'EAGAIN') return null; // busy is no fault
      problems.add(failure.code, `host ${host} could not store a shard: ${failure.message}`);
      await bridge.report(host, shard.id, failure.code).catch(() => {});
      return null;
    }
  }

  /** How the shard stands after a receipt; tried again while the bridge is away. Null when the bridge does not count it. */
  async #confirm(receipt: Signed, signal: AbortSignal): Promise<ShardStanding | null> {
    const { bridge, clock, problems, random } = this.#components;
    const backOff = new BackOff(random);
    while (!signal.aborted) {
      try {
        return await bridge.confirm(receipt);
      } catch (error) {
        const failure = toNetworkError(error);
        if (!isAway(failure)) {
          problems.add(failure.code, `a receipt was not counted: ${failure.message}`);
          return null;
        }
      }
      await clock.sleep(backOff.nextMs(), signal).catch(() => {});
    }
    return null;
  }
}

/** The shard's bytes, read into `buffer` and verified. */
async function readShard(disk: Disk, shard: ShardSource, buffer: Buffer): Promise<Buffer> {
  leafCountOf(shard.sizeBytes); // RangeError for a size that no shard has
  const data = buffer.subarray(0, shard.sizeBytes);
  let bytesRead: number;
  try {
    const file = await disk.open(shard.path, 'r');
    try {
      ({ bytesRead } = await file.read(data, 0, data.length, 0));
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new XcoreError('EIO', `a sealed shard cannot be read: ${shard.path}`, { cause: error });
  }
  if (bytesRead !== shard.sizeBytes || !verifyShard(shard.id, data)) {
    throw new XcoreError('CORRUPT_SHARD', `${shard.path} does not match its shard id`);
  }
  return data;
}

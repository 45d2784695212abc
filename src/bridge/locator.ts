// Answers Locate and Report: where a shard's mirrors are, best first, and what clients say of them.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { MAX_LOCATE_SHARDS } from '../net/protocols.ts';
import type { Locate, Report } from '../net/proto/wire_pb.ts';
import type { ResponseInit } from '../net/rpc.ts';
import type { Owner } from './authenticate.ts';
import type { PeerName } from '../net/network.ts';
import type { HashedKeys } from './hashed-keys.ts';
import type { HostRegistry } from './host-registry.ts';
import type { HostView } from './host-view.ts';
import type { KeyedQueue } from '../lib/keyed-queue.ts';
import type { OrderBook } from './order-book.ts';
import type { OrderSigner } from './order-signer.ts';
import type { MirrorRecord, ShardRecord } from './proto/records_pb.ts';
import { checkShardId, hexOf } from './records.ts';
import { belongsTo } from './shard-directory.ts';
import type { ShardDirectory } from './shard-directory.ts';
import type { Store } from '../lib/store.ts';

/** Codes that say the mirror itself is bad, not only its host busy or away. */
const BAD_MIRROR = new Set(['CORRUPT_SHARD', 'NOT_FOUND']);
/** Codes that say nothing against a host. */
const NO_FAULT = new Set(['HOST_FULL', 'EAGAIN', 'ABORTED', 'CLOSED']);
/** Reports of one mirror that come closer together count once. */
const REPORT_INTERVAL_MS = 60_000;
const MAX_REPORTS = 1_000_000;
/** The worst host is still asked now and then. */
const MIN_RELIABILITY = 0.05;

/** What a locator works with. */
export interface LocatorComponents {
  readonly store: Store;
  readonly registry: HostRegistry;
  readonly book: OrderBook;
  readonly directory: ShardDirectory;
  readonly keys: HashedKeys;
  readonly signer: OrderSigner;
  readonly volumeQueue: KeyedQueue;
  readonly clock: Clock;
  /** Called for a mirror that a client says is bad, so that the bridge looks for itself. */
  readonly onReport: (host: PeerName, shardId: Uint8Array) => void;
  /** Numbers in [0, 1), for sharing readers out over equally good hosts. */
  readonly random: () => number;
}

/** A mirror with what decides its place: the shorter the wait, the earlier it is asked. */
interface Choice {
  readonly mirror: MirrorRecord;
  readonly host: HostView;
  readonly wait: number;
}

/** Finds mirrors. */
export class Locator {
  readonly #components: LocatorComponents;

  constructor(components: LocatorComponents) {
    this.#components = components;
  }

  /** Mirrors of the owner's shards, each with an order; those of others, freed and unknown ones have none. */
  async locate(owner: Owner, request: Locate): Promise<ResponseInit> {
    const { shardIds } = request;
    if (shardIds.length === 0 || shardIds.length > MAX_LOCATE_SHARDS) {
      throw new XcoreError('PROTOCOL', `Locate names 1 to ${MAX_LOCATE_SHARDS} shards`);
    }
    for (const id of shardIds) checkShardId(id);
    const { directory, keys } = this.#components;
    const [known, wanted] = await Promise.all([directory.load(shardIds), keys.wanted(shardIds)]);
    const locations = shardIds.map((shardId, at) => {
      const record = known.get(hexOf(shardId));
      if (!belongsTo(record, owner.volume)) return { shardId, mirrors: [] };
      return { shardId, mirrors: this.#targets(owner, shardId, record), keysWanted: wanted[at]! };
    });
    return { case: 'locations', value: { locations } };
  }

  /** Notes a bad mirror or host. A client's word moves it back in the order of asking and has it audited; it deletes nothing. */
  async report(owner: Owner, request: Report): Promise<ResponseInit> {
    checkShardId(request.shardId);
    if (NO_FAULT.has(request.code)) return { case: 'done', value: {} };
    const { volumeQueue, directory, store, book, registry, clock, onReport } = this.#components;
    await volumeQueue.run(hexOf(owner.volume), async () => {
      const record = (await directory.load([request.shardId])).get(hexOf(request.shardId));
      const mirror = belongsTo(record, owner.volume)
        ? record.mirrors.find(({ host }) => host === request.host)
        : undefined;
      if (record && mirror) {
        if (clock.now() - Number(mirror.lastReportMs) < REPORT_INTERVAL_MS) return;
        mirror.lastReportMs = BigInt(clock.now());
        if (BAD_MIRROR.has(request.code)) {
          mirror.reports = Math.min(MAX_REPORTS, mirror.reports + 1);
          onReport(request.host, request.shardId);
        }
        await store.batch([directory.save(request.shardId, record)]);
        registry.failed(request.host);
      } else if (book.isOrdered(owner.volume, request.shardId, request.host)) {
        registry.failed(request.host);
      }
    });
    return { case: 'done', value: {} };
  }

  #targets(owner: Owner, shardId: Uint8Array, record: ShardRecord): object[] {
    const { registry, signer, random } = this.#components;
    const { volume, peer: client } = owner;
    const mirrors: Choice[] = [];
    for (const mirror of record.mirrors) {
      const host = registry.get(mirror.host);
      if (host) mirrors.push({ mirror, host, wait: -Math.log(1 - random()) / gradeOf(host) });
    }
    return mirrors.sort(bestFirst).map(({ host: { host, addresses } }) => ({
      host,
      addresses: [...addresses],
      order: signer.make({ operation: 'retrieve', shardId, sizeBytes: record.sizeBytes, client, host, volume }).signed,
    }));
  }
}

/** Sound mirrors first, then by luck, the better hosts more often: the best one alone must not serve everybody. */
function bestFirst(a: Choice, b: Choice): number {
  return (
    Number(a.mirror.failed) - Number(b.mirror.failed) ||
    Number(a.mirror.reports > 0) - Number(b.mirror.reports > 0) ||
    Number(b.host.online && !b.host.resting) - Number(a.host.online && !a.host.resting) ||
    a.mirror.reports - b.mirror.reports ||
    a.wait - b.wait
  );
}

function gradeOf(host: HostView): number {
  const reliability = Math.max(MIN_RELIABILITY, host.reliability);
  return reliability * reliability * Math.log2(2 + host.bytesPerSecond);
}

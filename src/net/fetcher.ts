// Gets shards back: the best mirror first, the next one on any failure or mismatch, a second one beside a slow one.
// Nothing leaves here unverified.

import { randomBytes } from 'node:crypto';
import { LEAF_SIZE_BYTES, leafCountOf, verifyRange, verifyShard } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import type { Disk } from '../lib/disk.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import { BackOff } from './back-off.ts';
import type { BridgeCalls } from './bridge-calls.ts';
import { abortError, toNetworkError } from './failure.ts';
import type { FailingHosts } from './failing-hosts.ts';
import type { HostClient, LeafRange } from './host-client.ts';
import { HostFigures } from './host-figures.ts';
import { hedge, OutrunError } from './hedge.ts';
import type { KeyMinter } from './key-minter.ts';
import { Limiter } from './limiter.ts';
import type { Locations } from './locations.ts';
import { MirrorRanking } from './mirror-ranking.ts';
import type { Problems } from './problems.ts';
import { MAX_LOCATE_SHARDS } from './protocols.ts';
import type { Target } from './proto/wire_pb.ts';
import { ShardBuffers } from './shard-buffers.ts';

const WHOLE: LeafRange = { firstLeaf: 0, leafCount: 0 };
/** A fetch may last so many times its deadline while bytes still come. */
const MAX_DEADLINES = 4;

/** Ranges of leaves under way at once, up to 64 KiB each: a reader waits for a round trip, not for its turn. */
const MAX_RANGES = 32;
/** Reports to the bridge under way; more are left out. */
const MAX_REPORTS = 32;

/** What a fetcher works with. */
export interface FetcherComponents {
  readonly bridge: BridgeCalls;
  readonly hosts: HostClient;
  readonly locations: Locations;
  readonly minter: KeyMinter;
  readonly failing: FailingHosts;
  readonly problems: Problems;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly disk: Disk;
}

/** Options of a fetcher. */
export interface FetcherOptions {
  /** Whole shards under way at once. */
  readonly parallelTransfers: number;
  /** A fetch to which no byte came for so long has failed. */
  readonly timeoutMs: number;
  /** After so long without an answer, another mirror is asked too; sooner, where it is known what is slow for the host. */
  readonly hedgeAfterMs: number;
  /** Aborted when the network stops. */
  readonly stopping: AbortSignal;
}

interface Wanted {
  readonly id: Uint8Array;
  readonly sizeBytes: number;
  readonly range: LeafRange;
  readonly dataBytes: number;
}

/** Fetches and verifies. */
export class Fetcher {
  readonly #components: FetcherComponents;
  readonly #options: FetcherOptions;
  readonly #shards: Limiter;
  readonly #ranges: Limiter;
  readonly #buffers: ShardBuffers;
  readonly #reports = new Set<Promise<void>>();
  readonly #figures = new HostFigures();
  readonly #ranking: MirrorRanking;
  /** Of fetches that failed and will try again. */
  readonly #pauses = new Set<AbortController>();
  #downloadedBytes = 0;

  constructor(components: FetcherComponents, options: FetcherOptions) {
    this.#components = components;
    this.#options = options;
    this.#ranking = new MirrorRanking({ ...components, figures: this.#figures });
    this.#shards = new Limiter(options.parallelTransfers);
    this.#buffers = new ShardBuffers(options.parallelTransfers);
    this.#ranges = new Limiter(MAX_RANGES);
  }

  /** Verified bytes received. */
  get downloadedBytes(): number {
    return this.#downloadedBytes;
  }

  /** Waits for what was begun on the side; the link is to be stopped first. */
  async settled(): Promise<void> {
    await Promise.all(this.#reports);
  }

  /** As Network.fetchShard. */
  async fetchShard(
    id: Uint8Array,
    sizeBytes: number,
    path: string,
    signal?: AbortSignal,
    memory?: SharedArrayBuffer,
  ): Promise<boolean> {
    leafCountOf(sizeBytes); // RangeError for a size that no shard has
    if (memory && memory.byteLength < sizeBytes) throw new RangeError(`${memory.byteLength} bytes for ${sizeBytes}`);
    return this.#shards.run(async () => {
      const wanted: Wanted = { id, sizeBytes, range: WHOLE, dataBytes: sizeBytes };
      let hashes: Buffer | null = null;
      const data = await this.#fetch(wanted, (received) => (hashes = verifyShard(id, received.data)) !== null, signal);
      try {
        const { disk, locations, minter } = this.#components;
        if (memory) new Uint8Array(memory).set(data);
        if (hashes) await writeShard(disk, path, [data, hashes]);
        minter.mint(id, data, locations.takeKeysWanted(id));
        return memory !== undefined;
      } finally {
        this.#buffers.give(data);
      }
    }, signal);
  }

  /** As Network.fetchLeaves; RangeError for leaves that do not exist. */
  async fetchLeaves(
    id: Uint8Array,
    sizeBytes: number,
    firstLeaf: number,
    leafCount: number,
    signal?: AbortSignal,
  ): Promise<Buffer> {
    const total = leafCountOf(sizeBytes);
    if (!(firstLeaf >= 0 && leafCount >= 1 && firstLeaf + leafCount <= total)) {
      throw new RangeError(`leaves ${firstLeaf} + ${leafCount} of ${total}`);
    }
    const start = firstLeaf * LEAF_SIZE_BYTES;
    const dataBytes = Math.min(sizeBytes, start + leafCount * LEAF_SIZE_BYTES) - start;
    const wanted: Wanted = { id, sizeBytes, range: { firstLeaf, leafCount }, dataBytes };
    return this.#ranges.run(
      () => this.#fetch(wanted, ({ data, proof }) => verifyRange(id, sizeBytes, firstLeaf, data, proof), signal),
      signal,
    );
  }

  /** As Network.expect. */
  async expect(ids: readonly Uint8Array[]): Promise<void> {
    const { locations, clock } = this.#components;
    // a shard that is waited for already goes before
    await new Promise<void>((resolve) => clock.soon(resolve));
    const asked = ids.slice(0, MAX_LOCATE_SHARDS).map((id) => locations.find(id));
    await Promise.allSettled(asked);
  }

  /** Goes round the mirrors until one gives what `verifies`, or the deadline passes. */
  async #fetch(
    wanted: Wanted,
    verifies: (received: { data: Buffer; proof: Uint8Array[] }) => boolean,
    signal?: AbortSignal,
  ): Promise<Buffer> {
    const { locations, clock, random } = this.#components;
    const { timeoutMs, stopping } = this.#options;
    const giveUp = new AbortController();
    const tooLate = (): void => giveUp.abort(new XcoreError('NO_MIRROR', 'no host gave the shard in time'));
    const stalled = clock.after(timeoutMs, tooLate);
    const absolute = clock.after(timeoutMs * MAX_DEADLINES, tooLate);
    const either = giveUp.signal;
    // AbortSignal.any() would leave something behind for each read, until the collector comes
    const onEnd = ({ target }: Event): void => giveUp.abort((target as AbortSignal).reason);
    for (const end of [signal, stopping]) {
      if (end?.aborted) giveUp.abort(end.reason);
      end?.addEventListener('abort', onEnd, { once: true });
    }
    const backOff = new BackOff(random);
    let last: unknown;
    try {
      for (;;) {
        try {
          const told = locations.known(wanted.id) ?? (await raceAbort(locations.find(wanted.id), either));
          const targets = this.#ranking.rank(told, nameOf(wanted), wanted.dataBytes);
          if (targets.length === 0) throw new XcoreError('NO_MIRROR', 'the bridge knows no mirror of the shard');
          return await hedge(
            targets.map(
              (target) => (attempt) => this.#attempt(wanted, target, verifies, attempt, () => stalled.restart()),
            ),
            { hedgeAfterMs: this.#hedgeAfterMs(targets[0]!, wanted), signal: either, clock },
          );
        } catch (error) {
          if (either.aborted) throw error;
          last = error;
          locations.forget(wanted.id);
        }
        await this.#pause(backOff.nextMs(), either);
      }
    } catch (error) {
      if (!either.aborted) throw error;
      const failure = abortError(either);
      throw failure.code === 'NO_MIRROR' ? new XcoreError('NO_MIRROR', describe(last), { cause: last }) : failure;
    } finally {
      stalled.cancel();
      absolute.cancel();
      signal?.removeEventListener('abort', onEnd);
      stopping.removeEventListener('abort', onEnd);
    }
  }

  /** The bridge is there again: whatever waits before its next try goes on at once. */
  hurry(): void {
    for (const pause of this.#pauses) pause.abort();
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const pause = new AbortController();
    const end = (): void => pause.abort();
    if (signal.aborted) end();
    signal.addEventListener('abort', end, { once: true });
    this.#pauses.add(pause);
    await this.#components.clock.sleep(ms, pause.signal).catch(() => undefined);
    this.#pauses.delete(pause);
    signal.removeEventListener('abort', end);
    if (signal.aborted) throw abortError(signal);
  }

  async #attempt(
    wanted: Wanted,
    target: Target,
    verifies: (received: { data: Buffer; proof: Uint8Array[] }) => boolean,
    signal: AbortSignal,
    moved: () => void,
  ): Promise<Buffer> {
    const { bridge, hosts, failing, clock } = this.#components;
    const startMs = clock.monotonicMs();
    const into = wanted.range === WHOLE ? this.#buffers.take() : undefined;
    try {
      const received = await hosts.retrieve(target, wanted.range, wanted.dataBytes, { signal, into, onBytes: moved });
      if (!verifies(received)) throw new XcoreError('CORRUPT_SHARD', 'the bytes do not match the shard id');
      failing.succeeded(target.host);
      this.#ranking.good(target.host, nameOf(wanted));
      this.#downloadedBytes += wanted.dataBytes;
      const durationMs = clock.monotonicMs() - startMs;
      this.#figures.took(target.host, wanted.dataBytes, durationMs);
      bridge.measured({ host: target.host, sizeBytes: wanted.dataBytes, durationMs, upload: false });
      return received.data;
    } catch (error) {
      if (into) this.#buffers.give(into);
      const failure = toNetworkError(error);
      if (!signal.aborted) this.#blame(wanted, target, failure);
      else if (signal.reason instanceof OutrunError) {
        this.#figures.took(target.host, wanted.dataBytes, clock.monotonicMs() - startMs);
      }
      throw failure;
    }
  }

  /** Notes a bad mirror, here and at the bridge. */
  #blame(wanted: Wanted, target: Target, failure: XcoreError): void {
    const { bridge, failing, problems } = this.#components;
    const { host } = target;
    const shard = nameOf(wanted).slice(0, 16);
    if (failure.code === 'CORRUPT_SHARD' || failure.code === 'NOT_FOUND') this.#ranking.bad(host, nameOf(wanted));
    failing.failed(host);
    if (failure.code === 'EAGAIN') return; // busy is no fault
    if (failure.code === 'CORRUPT_SHARD') {
      problems.add(failure.code, `host ${host} returned corrupted bytes for shard ${shard}; another mirror was used`);
    } else if (failure.code === 'NOT_FOUND') {
      problems.add(failure.code, `host ${host} no longer has shard ${shard}; another mirror was used`);
    } else {
      problems.add(failure.code, `host ${host} could not be read from: ${failure.message}`);
    }
    if (this.#reports.size >= MAX_REPORTS) return;
    // The reader does not wait for it; it has a deadline of its own.
    const report: Promise<void> = bridge
      .report(host, wanted.id, failure.code)
      .catch(() => {})
      .finally(() => this.#reports.delete(report));
    this.#reports.add(report);
  }

  #hedgeAfterMs({ host }: Target, { dataBytes }: Wanted): number {
    const { hedgeAfterMs } = this.#options;
    return Math.min(hedgeAfterMs, this.#figures.slowMs(host, dataBytes) ?? hedgeAfterMs);
  }
}

function nameOf({ id }: Wanted): string {
  return Buffer.from(id).toString('hex');
}

function describe(last: unknown): string {
  if (hasCode(last, 'UNREACHABLE', 'TIMEOUT')) return `no host could give the shard: ${last.message}`;
  return last instanceof Error ? `no host could give the shard (${last.message})` : 'no host could give the shard';
}

async function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(abortError(signal));
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Temporary file, then rename; without fsync, since what is lost can be fetched again. */
async function writeShard(disk: Disk, path: string, parts: Buffer[]): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const file = await disk.open(temporary, 'wx', 0o600);
  try {
    for (const part of parts) await file.writeFile(part);
    await file.close();
    await disk.rename(temporary, path);
  } catch (error) {
    await file.close().catch(() => {});
    await disk.unlink(temporary).catch(() => {});
    throw error;
  }
}

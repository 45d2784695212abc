// The asking end of /xcore/shard/1: kept streams to each host, one transfer at a time on each. Passes
// orders and bytes on; what they are worth is its caller's business.

import { peerIdFromString } from '@libp2p/peer-id';
import { LRUCache } from 'lru-cache';
import { systemClock } from '../lib/clock.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { XcoreError } from '../lib/errors.ts';
import { toNetworkError } from './failure.ts';
import { FrameStream } from './frames.ts';
import { HostFailure, receive, send } from './host-messages.ts';
import { Limiter } from './limiter.ts';
import type { PeerName } from './network.ts';
import { DIAL_TIMEOUT_MS, dialAddresses } from './node.ts';
import type { ByteStream, NetworkNode } from './node.ts';
import { isRelayed } from './peer-name.ts';
import { SHARD_FRAME_BYTES, SHARD_PROTOCOL } from './protocols.ts';
import type { Signed } from './proto/wire_pb.ts';
import { receivePart, sendBytes, STALL_TIMEOUT_MS } from './shard-protocol.ts';
import { StallGuard } from './stall-guard.ts';

/** Transfers with one host at once; more wait. */
export const MAX_STREAMS_PER_HOST = 16;
/** Hosts to which streams are kept. */
const MAX_HOSTS = 128;
/** A kept stream without a transfer for so long is closed; shorter than the host's own patience. */
const KEEP_STREAM_MS = 60_000;
/** A host that has not said that it is ready for a shard after so long will not. */
const READY_TIMEOUT_MS = 15_000;
/** For a host to fetch a mirror from another one. */
const COPY_TIMEOUT_MS = 60_000;
/** For a host to read its folder. */
const LIST_TIMEOUT_MS = 30_000;
/** A retrieval in which nothing moves for so long has failed: there are other mirrors. */
export const RETRIEVE_STALL_MS = 10_000;

/** A host and the order that it is shown. */
export interface HostTarget {
  readonly host: PeerName;
  /** Multiaddrs, with or without /p2p/. */
  readonly addresses: readonly string[];
  readonly order?: Signed;
}

/** Leaves of a shard with their proof; leafCount 0 is the whole shard. */
export interface LeafRange {
  readonly firstLeaf: number;
  readonly leafCount: number;
}

/** Options of a retrieval. */
export interface RetrieveOptions {
  readonly signal?: AbortSignal;
  /** Where the bytes go; a new buffer of just their size unless told. */
  readonly into?: Buffer;
  /** Called as bytes come. */
  readonly onBytes?: (sizeBytes: number) => void;
}

interface Host {
  readonly limiter: Limiter;
  readonly idle: { frames: FrameStream; sinceMs: number }[];
}

/** Knows which hosts are reached through a relay, and may find a better way to them. */
export interface Shortcuts {
  /** Whether there is a connection to a host that does not go through a relay. */
  isDirect(host: PeerName): boolean;
  /** A relayed connection to this host is in use. */
  wish(host: PeerName): void;
  /** Nothing moved any more on the way that was taken to this host. */
  stalled(host: PeerName): void;
}

/** Opens a stream of the shard protocol to a host. */
export type OpenStream = (target: HostTarget, signal: AbortSignal) => Promise<ByteStream>;

/** Transfers with hosts over streams that are kept and used again. */
export class HostClient {
  readonly #openStream: OpenStream;
  readonly #hosts = new LRUCache<PeerName, Host>({
    max: MAX_HOSTS,
    dispose: (host) => void closeAll(host),
  });
  readonly #shortcuts: Shortcuts | undefined;
  /** Streams that go through a relay. */
  readonly #relayed = new WeakSet<FrameStream>();
  readonly #clock: Clock;
  readonly #sweeper: Timer;
  #stopped = false;

  /** The node is the caller's; `openStream` dials the target's addresses unless told otherwise. */
  constructor(
    node: NetworkNode,
    {
      openStream = dialWith(node),
      shortcuts,
      clock = systemClock,
    }: { openStream?: OpenStream; shortcuts?: Shortcuts | undefined; clock?: Clock } = {},
  ) {
    this.#openStream = openStream;
    this.#shortcuts = shortcuts;
    this.#clock = clock;
    this.#sweeper = clock.after(KEEP_STREAM_MS / 2, () => this.#sweep(), { background: true });
  }

  /** Stores a whole shard and returns the host's receipt, unverified. The host's Failure is thrown; UNREACHABLE, TIMEOUT, PROTOCOL. */
  async store(target: HostTarget, data: Uint8Array, signal?: AbortSignal): Promise<Signed> {
    return this.#transfer(target, READY_TIMEOUT_MS, signal, async (frames, moved, watch) => {
      await send(frames, { case: 'store', value: { order: target.order } });
      const ready = await receive(frames, 'ready');
      moved();
      watch(STALL_TIMEOUT_MS);
      let sent = ready.alreadyHeld;
      // A host may refuse in the middle: its answer is read while bytes still leave.
      const sending = sent
        ? Promise.resolve()
        : sendBytes(frames, data, moved).then(() => {
            sent = true;
          });
      sending.catch(() => {});
      const { receipt } = await receive(frames, 'stored');
      if (!sent) throw new XcoreError('PROTOCOL', 'a receipt before all bytes were sent');
      await sending;
      if (!receipt) throw new XcoreError('PROTOCOL', 'the receipt is missing');
      return receipt;
    });
  }

  /** Retrieves exactly dataBytes bytes, unverified, and their proof. Errors as store(). */
  async retrieve(
    target: HostTarget,
    range: LeafRange,
    dataBytes: number,
    options: RetrieveOptions = {},
  ): Promise<{ data: Buffer; proof: Uint8Array[] }> {
    return this.#transfer(target, RETRIEVE_STALL_MS, options.signal, async (frames, moved) => {
      await send(frames, { case: 'retrieve', value: { order: target.order, ...range } });
      const answer = await receive(frames, 'retrieved');
      moved();
      if (answer.dataBytes !== dataBytes) throw new XcoreError('CORRUPT_SHARD', 'a shard of another size');
      const data = (options.into ?? Buffer.allocUnsafeSlow(dataBytes)).subarray(0, dataBytes);
      for (let at = 0; at < dataBytes;) {
        const length = await receivePart(frames, data.subarray(at), moved);
        at += length;
        options.onBytes?.(length);
      }
      return { data, proof: answer.proof };
    });
  }

  /** Has the target fetch a mirror from another host and returns its receipt and new hashed keys, unverified. Errors as store(). */
  async copy(
    target: HostTarget,
    source: { readonly order: Signed; readonly addresses: readonly string[]; readonly keysWanted: number },
    signal?: AbortSignal,
  ): Promise<{ receipt: Signed; keys: Signed | undefined }> {
    return this.#transfer(target, COPY_TIMEOUT_MS, signal, async (frames, moved) => {
      const { order, addresses, keysWanted } = source;
      const value = { order: target.order, source: order, addresses: [...addresses], keysWanted };
      await send(frames, { case: 'copy', value });
      const { receipt, keys } = await receive(frames, 'stored', true);
      moved();
      if (!receipt) throw new XcoreError('PROTOCOL', 'the receipt is missing');
      return { receipt, keys };
    });
  }

  /** The target's answer to a challenge, unverified. Errors as store(). */
  async prove(target: HostTarget, challenge: Uint8Array, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#transfer(target, RETRIEVE_STALL_MS, signal, async (frames, moved) => {
      await send(frames, { case: 'prove', value: { order: target.order, challenge } });
      const { answer } = await receive(frames, 'proved');
      moved();
      return answer;
    });
  }

  /** The order on which the target says it deleted a shard, unverified, or undefined. Errors as store(). */
  async findDeletion(target: HostTarget, shardId: Uint8Array, signal?: AbortSignal): Promise<Signed | undefined> {
    return this.#transfer(target, RETRIEVE_STALL_MS, signal, async (frames, moved) => {
      await send(frames, { case: 'findDeletion', value: { shardId } });
      const { order } = await receive(frames, 'deletion');
      moved();
      return order;
    });
  }

  /** Ids of shards that the target says it holds, after `after`, ascending. Errors as store(). */
  async list(
    target: HostTarget,
    after: Uint8Array,
    limit: number,
    signal?: AbortSignal,
  ): Promise<{ shardIds: Uint8Array[]; last: boolean }> {
    return this.#transfer(target, LIST_TIMEOUT_MS, signal, async (frames, moved) => {
      await send(frames, { case: 'listShards', value: { after, limit } });
      const { shardIds, last } = await receive(frames, 'shardPage');
      moved();
      return { shardIds, last };
    });
  }

  /** Ends all kept streams. Transfers under way are ended by their own signals. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#sweeper.cancel();
    await Promise.all([...this.#hosts.values()].map((host) => closeAll(host)));
  }

  async #transfer<T>(
    target: HostTarget,
    stallMs: number,
    signal: AbortSignal | undefined,
    task: (frames: FrameStream, moved: () => void, watch: (stallMs: number) => void) => Promise<T>,
  ): Promise<T> {
    const host = this.#hostOf(target.host);
    return host.limiter.run(async () => {
      for (;;) {
        const kept = this.#takeIdle(target.host, host);
        const frames = kept ?? (await this.#open(target, signal));
        if (this.#relayed.has(frames)) this.#shortcuts?.wish(target.host);
        const guard = new StallGuard(frames, signal);
        let moves = 0;
        guard.watch(stallMs);
        try {
          const moved = (): void => {
            moves += 1;
            guard.moved();
          };
          const result = await task(frames, moved, (newStallMs) => guard.watch(newStallMs));
          this.#keep(host, frames);
          return result;
        } catch (error) {
          const failure = toNetworkError(error);
          if (failure.code === 'TIMEOUT' && !signal?.aborted) this.#shortcuts?.stalled(target.host);
          if (error instanceof HostFailure) this.#keep(host, frames);
          else frames.abort(failure);
          // A kept stream may have died unnoticed, with a host that is long back.
          if (kept && moves === 0 && failure.code === 'UNREACHABLE') continue;
          throw failure;
        } finally {
          guard.release();
        }
      }
    }, signal);
  }

  async #open(target: HostTarget, signal?: AbortSignal): Promise<FrameStream> {
    if (this.#stopped) throw new XcoreError('CLOSED', 'stopped');
    const either = deadline(this.#clock, DIAL_TIMEOUT_MS, signal);
    try {
      const stream = await this.#openStream(target, either);
      const frames = new FrameStream(stream, SHARD_FRAME_BYTES, this.#clock);
      if (this.#shortcuts?.isDirect(target.host) === false) this.#relayed.add(frames);
      return frames;
    } catch (error) {
      if (signal?.aborted) throw toNetworkError(signal.reason);
      if (!either.aborted) throw toNetworkError(error);
      this.#shortcuts?.stalled(target.host);
      throw new XcoreError('TIMEOUT', `host ${target.host} did not answer`, { cause: error });
    }
  }

  #hostOf(name: PeerName): Host {
    let host = this.#hosts.get(name);
    if (!host) {
      host = { limiter: new Limiter(MAX_STREAMS_PER_HOST), idle: [] };
      this.#hosts.set(name, host);
    }
    return host;
  }

  /** A kept stream that is of use: not one through a relay where there is a direct connection by now. */
  #takeIdle(name: PeerName, host: Host): FrameStream | undefined {
    for (let last = host.idle.pop(); last; last = host.idle.pop()) {
      const { frames } = last;
      if (frames.signal.aborted) continue;
      if (!this.#relayed.has(frames) || !this.#shortcuts?.isDirect(name)) return frames;
      void frames.close();
    }
    return undefined;
  }

  #keep(host: Host, frames: FrameStream): void {
    if (this.#stopped) frames.abort(new XcoreError('CLOSED', 'stopped'));
    else if (!frames.signal.aborted) host.idle.push({ frames, sinceMs: this.#clock.monotonicMs() });
  }

  #sweep(): void {
    this.#sweeper.restart();
    const oldest = this.#clock.monotonicMs() - KEEP_STREAM_MS;
    for (const host of this.#hosts.values()) {
      while (host.idle[0] && host.idle[0].sinceMs < oldest) void host.idle.shift()?.frames.close();
    }
  }
}

function dialWith(node: NetworkNode): OpenStream {
  return async (target, signal) => {
    const addresses = dialAddresses(target.host, target.addresses);
    if (addresses.length === 0) throw new XcoreError('UNREACHABLE', `host ${target.host} has no usable address`);
    const options = { signal, runOnLimitedConnection: true };
    // libp2p would dial again where the connection that is there goes through a relay.
    const open = node.getConnections(peerIdFromString(target.host)).filter(({ status }) => status === 'open');
    const connection = open.find(({ remoteAddr }) => !isRelayed(remoteAddr)) ?? open[0];
    if (connection) {
      try {
        return await connection.newStream(SHARD_PROTOCOL, options);
      } catch (error) {
        // one that has just ended says nothing of the host
        if (connection.status === 'open' || signal.aborted) throw error;
      }
    }
    return node.dialProtocol(addresses, SHARD_PROTOCOL, options);
  };
}

async function closeAll(host: Host): Promise<void> {
  await Promise.all(host.idle.splice(0).map(({ frames }) => frames.close()));
}

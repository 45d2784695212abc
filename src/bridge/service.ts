// From a request to the part of the bridge that answers it. Knows who is on the other end of a stream
// and what that party has proved, not how anything is answered.

import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Metrics } from '../lib/metrics.ts';
import { PeerRates } from '../lib/peer-rates.ts';
import { announceable } from '../net/address-scope.ts';
import { networkPrefix } from '../net/network-prefix.ts';
import type { PeerName } from '../net/network.ts';
import type { Heartbeat, RegisterHost, Signed } from '../net/proto/wire_pb.ts';
import type { RequestBody, ResponseInit, RpcContext, RpcSession } from '../net/rpc.ts';
import { authenticate } from './authenticate.ts';
import type { Owner } from './authenticate.ts';
import type { DeleteQueue } from './delete-queue.ts';
import type { HashedKeys } from './hashed-keys.ts';
import type { HostRegistry } from './host-registry.ts';
import type { Leases, LeaseView } from './lease.ts';
import type { Locator } from './locator.ts';
import type { Placer } from './placer.ts';
import type { Reachability } from './reachability.ts';
import type { Receipts } from './receipts.ts';
import { toNumber } from './records.ts';
import type { VolumeLog } from './volume-log.ts';
import { Twins } from './twins.ts';
import type { Watchers } from './watchers.ts';

const MAX_DELETE_REPORTS = 10_000;
const MAX_LOST_REPORTS = 1_000;

/** The parts that answer. */
export interface ServiceParts {
  readonly registry: HostRegistry;
  readonly reachability: Reachability;
  readonly placer: Placer;
  readonly receipts: Receipts;
  readonly locator: Locator;
  readonly keys: HashedKeys;
  readonly log: VolumeLog;
  readonly leases: Leases;
  readonly watchers: Watchers;
  readonly deletes: DeleteQueue;
  /** Called for a shard that its host says it has lost. */
  readonly onLost: (host: PeerName, shardId: Uint8Array) => Promise<void>;
  /** The bridge's word that a peer is connected from a multiaddr. */
  readonly sight: (peer: PeerName, from: string, nonce: Uint8Array) => Signed;
  readonly space: (owner: Owner) => Promise<ResponseInit>;
  readonly bridge: PeerName;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Bounds of a peer. */
export interface ServiceOptions {
  readonly heartbeatMs: number;
  readonly maxRequestsPerSecond: number;
}

interface Session {
  owner: Owner | undefined;
}

/** Answers all requests of all streams. */
export class Service {
  readonly #parts: ServiceParts;
  readonly #options: ServiceOptions;
  readonly #rates: PeerRates;
  readonly #twins: Twins;
  readonly #sessions = new WeakMap<RpcSession, Session>();
  readonly #requests;

  constructor(parts: ServiceParts, options: ServiceOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#twins = new Twins(parts);
    this.#rates = new PeerRates(options.maxRequestsPerSecond);
    this.#requests = parts.metrics.counter('bridge_requests_total', 'Requests answered', ['request', 'outcome']);
  }

  /** Answers one request; `from` is the multiaddr that it came from, if that is known. */
  async handle(body: RequestBody, context: RpcContext, from = ''): Promise<ResponseInit> {
    const session = this.#sessionOf(context.session);
    const { clock } = this.#parts;
    const waitMs = this.#rates.of(context.remotePeer, clock.monotonicMs()).take(clock.monotonicMs());
    if (waitMs > 0) await clock.sleep(waitMs, context.signal);
    try {
      const answer = await this.#answer(body, context, session, from);
      this.#requests.inc({ request: body.case, outcome: 'ok' });
      return answer;
    } catch (error) {
      this.#requests.inc({ request: body.case, outcome: error instanceof XcoreError ? error.code : 'INTERNAL' });
      throw error;
    }
  }

  async #answer(body: RequestBody, context: RpcContext, session: Session, from: string): Promise<ResponseInit> {
    const { placer, receipts, locator, keys, log, leases, space } = this.#parts;
    switch (body.case) {
      case 'authenticate': {
        const parties = { bridge: this.#parts.bridge, client: context.remotePeer };
        const owner = authenticate(body.value, parties, this.#parts.clock);
        if (session.owner) throw new XcoreError('REFUSED', 'this stream speaks for a volume already');
        session.owner = owner;
        context.session.widen();
        return DONE;
      }
      case 'announce':
        return placer.announce(ownerOf(session), body.value);
      case 'place':
        return placer.place(ownerOf(session), body.value);
      case 'confirm':
        return receipts.confirm(ownerOf(session), body.value);
      case 'locate':
        return locator.locate(ownerOf(session), body.value);
      case 'report':
        return locator.report(ownerOf(session), body.value);
      case 'append':
        return log.append(ownerOf(session), body.value.entry, body.value.again);
      case 'readLog':
        return log.read(ownerOf(session), body.value);
      case 'acquireLease':
        return leaseAnswer(await leases.acquire(ownerOf(session), body.value.takeOver));
      case 'renewLease':
        return leaseAnswer(await leases.renew(ownerOf(session), body.value.epoch));
      case 'releaseLease':
        return leaseAnswer(await leases.release(ownerOf(session), body.value.epoch));
      case 'sight':
        return { case: 'sighting', value: this.#parts.sight(context.remotePeer, from, body.value.nonce) };
      case 'handOver':
        return keys.handOver(ownerOf(session), body.value);
      case 'space':
        return space(ownerOf(session));
      case 'watch':
        return this.#watch(ownerOf(session), context.session);
      case 'registerHost':
        return this.#register(context, body.value, from);
      case 'heartbeat':
        return this.#heartbeat(context, body.value);
      default:
        throw new XcoreError('PROTOCOL', 'an unknown request');
    }
  }

  #watch({ volume }: Owner, session: RpcSession): ResponseInit {
    this.#parts.watchers.add(volume, session);
    this.#parts.leases.track(volume);
    return DONE;
  }

  async #register({ remotePeer, session }: RpcContext, request: RegisterHost, from: string): Promise<ResponseInit> {
    const space = { capacityBytes: toNumber(request.capacityBytes), usedBytes: toNumber(request.usedBytes) };
    const { operator, region } = request;
    const addresses = announceable(request.addresses, from);
    const place = { network: networkPrefix(from), operator, region };
    this.#twins.register(remotePeer, session);
    await this.#parts.registry.register(remotePeer, addresses, space, place);
    this.#parts.reachability.registered(remotePeer, from, request.addresses);
    session.widen();
    return DONE;
  }

  async #heartbeat({ remotePeer: host, session }: RpcContext, request: Heartbeat): Promise<ResponseInit> {
    const { registry, deletes, clock } = this.#parts;
    this.#twins.check(host, session);
    if (request.deleted.length > MAX_DELETE_REPORTS) throw new XcoreError('PROTOCOL', 'too many deletions at once');
    registry.heartbeat(host, {
      capacityBytes: toNumber(request.capacityBytes),
      usedBytes: toNumber(request.usedBytes),
      freeBytes: toNumber(request.freeBytes),
      paused: request.paused,
      exiting: request.exiting,
      rest: {
        fromMs: toNumber(request.restFromMs),
        untilMs: toNumber(request.restUntilMs),
        partTime: request.partTime,
      },
    });
    if (request.lost.length > MAX_LOST_REPORTS) throw new XcoreError('PROTOCOL', 'too many losses at once');
    for (const shardId of request.lost) await this.#parts.onLost(host, shardId);
    if (request.deleted.length > 0) await deletes.reported(host, request.deleted);
    const standing = registry.standing(host);
    standing.reason += this.#twins.word(host);
    return {
      case: 'heartbeatReply',
      value: {
        deletes: await deletes.ordersFor(host),
        intervalMs: this.#options.heartbeatMs,
        standing,
        reachability: { ...this.#parts.reachability.of(host) },
        nowMs: BigInt(clock.now()),
      },
    };
  }

  #sessionOf(session: RpcSession): Session {
    let known = this.#sessions.get(session);
    if (!known) {
      known = { owner: undefined };
      this.#sessions.set(session, known);
    }
    return known;
  }
}

/** A lease as it travels. */
export function leaseAnswer(view: LeaseView): ResponseInit {
  return { case: 'lease', value: { ...view } };
}

const DONE: ResponseInit = { case: 'done', value: {} };

function ownerOf(session: Session): Owner {
  if (!session.owner) throw new XcoreError('REFUSED', 'prove first for which volume you speak');
  return session.owner;
}

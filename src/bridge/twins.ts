// Two hosts with one identity, as a folder that was copied makes them: the one that registered last is the host, and
// the other one is told so. Knows no records.

import { LRUCache } from 'lru-cache';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import type { RpcSession } from '../net/rpc.ts';

/** Hosts whose sessions are remembered; the most silent one is forgotten. */
const MAX_SESSIONS = 16_384;
/** For so long after the other one was heard the host is told of it. */
const TELL_MS = 10 * 60_000;

/** A stream from a host; its signal is aborted when it ends. */
type HostSession = Pick<RpcSession, 'signal'>;

interface Registered {
  readonly session: HostSession;
  twinUntilMs: number;
}

/** Which session speaks for which host. */
export class Twins {
  readonly #clock: Clock;
  readonly #hosts = new LRUCache<PeerName, Registered>({ max: MAX_SESSIONS });
  readonly #displaced = new WeakSet<HostSession>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** A session that registers speaks for its host from now on; REFUSED for one that was displaced, while the other one is there. */
  register(host: PeerName, session: HostSession): void {
    const known = this.#hosts.get(host);
    if (known?.session === session) return;
    if (known && !known.session.signal.aborted) {
      if (this.#displaced.has(session)) throw this.#twin(known);
      this.#displaced.add(known.session);
    }
    this.#displaced.delete(session);
    this.#hosts.set(host, { session, twinUntilMs: known?.twinUntilMs ?? 0 });
  }

  /** REFUSED for a session that does not speak for its host: it has to register again. A host never goes back to an earlier one by itself. */
  check(host: PeerName, session: HostSession): void {
    const known = this.#hosts.get(host);
    if (!known || known.session === session || session.signal.aborted) return;
    if (!known.session.signal.aborted) throw this.#twin(known);
    throw new XcoreError('REFUSED', 'another host with the identity of this one was here; register again');
  }

  /** What the host that registered last is to be told; empty where there is nothing. */
  word(host: PeerName): string {
    const isSeen = (this.#hosts.get(host)?.twinUntilMs ?? 0) > this.#clock.monotonicMs();
    return isSeen ? '; another host with the same identity is connected, and one of the two has to be stopped' : '';
  }

  #twin(known: Registered): XcoreError {
    known.twinUntilMs = this.#clock.monotonicMs() + TELL_MS;
    return new XcoreError(
      'REFUSED',
      'another host with its identity is connected, and one of the two has to be stopped',
    );
  }
}

// Whether hosts can be dialled from outside. The bridge tries it itself, at the address from which the host is connected to
// it and nowhere else; a host that cannot be dialled gets a place on the bridge's relay.

import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { asError } from '../lib/errors.ts';
import type { PeerName } from '../net/network.ts';
import { networkPrefix } from '../net/network-prefix.ts';
import { relayedAddress } from '../net/peer-name.ts';

/** Between two looks at the same host. */
const CHECK_INTERVAL_MS = 10 * 60_000;
/** After a look in vain, at first; twice as long after each more. A router that is asked for a port takes some seconds. */
const FIRST_RETRY_MS = 10_000;
/** Hosts that are looked at side by side. */
const MAX_AT_ONCE = 16;
/** Ports of one host that are tried. */
const MAX_PORTS = 3;
const DIAL_TIMEOUT_MS = 4_000;

/** What the bridge's node can do about it. */
export interface Outside {
  /** Dials a multiaddr without /p2p/, makes sure that this host answers there, and hangs up. */
  dial(host: PeerName, address: string, signal: AbortSignal): Promise<void>;
  /** Whether the host has a place on this bridge's relay. */
  relays(host: PeerName): boolean;
  /** Says whom the relay may take in. */
  letReserve(mayReserve: (host: PeerName) => boolean): void;
}

/** "direct", "relayed", "none", or empty while it is not known. */
export interface ReachabilityView {
  readonly state: '' | 'direct' | 'relayed' | 'none';
  /** That was dialled last. */
  readonly address: string;
  readonly reason: string;
}

interface Known {
  readonly candidates: readonly string[];
  lookedMs: number;
  /** From the last look to the next one. */
  waitMs: number;
  dialled: boolean | undefined;
  address: string;
  reason: string;
}

/** What is known of all hosts; at most one entry for each. */
export class Reachability {
  readonly #clock: Clock;
  readonly #bridge: PeerName;
  readonly #outside: Outside | undefined;
  readonly #hosts = new Map<PeerName, Known>();

  /** Without an outside nothing is tried, and nothing is known. */
  constructor(components: {
    readonly clock: Clock;
    readonly bridge: PeerName;
    readonly outside?: Outside | undefined;
  }) {
    this.#clock = components.clock;
    this.#bridge = components.bridge;
    this.#outside = components.outside;
    this.#outside?.letReserve((host) => this.#hosts.get(host)?.dialled === false);
  }

  /** A host has registered: from a multiaddr, and listening on others. It is looked at soon, unless nothing has changed. */
  registered(host: PeerName, from: string, announced: readonly string[]): void {
    if (!this.#outside) return;
    const candidates = candidatesFor(from, announced);
    const known = this.#hosts.get(host);
    if (known?.candidates.join() === candidates.join()) {
      // Its owner may have done something about it, or its router.
      if (known.dialled === false) known.waitMs = FIRST_RETRY_MS;
      return;
    }
    this.#hosts.delete(host);
    const first = candidates[0] ?? '';
    const fresh = {
      candidates,
      lookedMs: -Infinity,
      waitMs: FIRST_RETRY_MS,
      dialled: candidates.length > 0 ? undefined : false,
      address: first,
    };
    this.#hosts.set(host, { ...fresh, reason: candidates.length > 0 ? '' : 'it listens on no TCP port' });
  }

  /** The host is not one of the bridge's any more. */
  forget(host: PeerName): void {
    this.#hosts.delete(host);
  }

  /** How a host can be reached. */
  of(host: PeerName): ReachabilityView {
    const known = this.#hosts.get(host);
    if (known?.dialled === undefined) return { state: '', address: known?.address ?? '', reason: '' };
    const { address, reason, dialled } = known;
    if (dialled) return { state: 'direct', address, reason: '' };
    return { state: this.#outside?.relays(host) ? 'relayed' : 'none', address, reason };
  }

  /** Where others are to dial a host: where the bridge could, else through the relay, else where it says itself. */
  addressesOf(host: PeerName, announced: readonly string[]): readonly string[] {
    const { state, address } = this.of(host);
    if (state === 'relayed') return [relayedAddress(this.#bridge, host)];
    // On the bridge's own machine it was dialled where nobody else can dial it.
    const isNew = state === 'direct' && !announced.includes(address) && networkPrefix(address) !== '';
    return isNew ? [address, ...announced] : announced;
  }

  /** Looks at some of the hosts that are due; those that are not there now are left for later. */
  async round(isOnline: (host: PeerName) => boolean, signal: AbortSignal): Promise<void> {
    const now = this.#clock.monotonicMs();
    const due: [PeerName, Known][] = [];
    for (const [host, known] of this.#hosts) {
      if (due.length >= MAX_AT_ONCE) break;
      if (known.lookedMs + known.waitMs <= now) due.push([host, known]);
    }
    for (const [, known] of due) known.lookedMs = now;
    const there = due.filter(([host]) => isOnline(host));
    await Promise.all(there.map(([host, known]) => this.#look(host, known, signal)));
  }

  async #look(host: PeerName, known: Known, signal: AbortSignal): Promise<void> {
    for (const address of known.candidates) {
      if (signal.aborted) return;
      known.address = address;
      try {
        await this.#outside?.dial(host, address, deadline(this.#clock, DIAL_TIMEOUT_MS, signal));
        known.dialled = true;
        known.waitMs = CHECK_INTERVAL_MS;
        return;
      } catch (error) {
        if (signal.aborted) return;
        known.reason = asError(error).message;
      }
    }
    // The first look in vain is followed by one soon.
    known.waitMs = known.dialled === false ? Math.min(2 * known.waitMs, CHECK_INTERVAL_MS) : FIRST_RETRY_MS;
    known.dialled = false;
  }
}

/** The ports on which a host listens, at the address from which it came. */
function candidatesFor(from: string, announced: readonly string[]): string[] {
  const [, protocol, ip] = from.split('/');
  if ((protocol !== 'ip4' && protocol !== 'ip6') || ip === undefined) return [];
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1];
  const host = mapped === undefined ? `/${protocol}/${ip}` : `/ip4/${mapped}`;
  const own = announced.filter((address) => address.startsWith(`${host}/tcp/`));
  const ports = [...own, ...announced].flatMap((address) => /\/tcp\/(\d+)/.exec(address)?.[1] ?? []);
  return [...new Set(ports)].slice(0, MAX_PORTS).map((port) => `${host}/tcp/${port}`);
}

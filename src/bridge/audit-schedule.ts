// When which host is audited: often enough to notice a loss, more often the more it holds, and at times that it
// cannot foresee. Knows nothing of audits.

import type { PeerName } from '../net/network.ts';

const DAY_MS = 24 * 60 * 60 * 1_000;
/** Audits of one host that may be due at once; those that were missed beyond are dropped. */
const MAX_DUE = 64;

/** How often. */
export interface AuditRate {
  /** Of each host, whatever it holds. */
  readonly auditsPerDay: number;
  /** Share of a host's shards that is drawn each day, if that is more. */
  readonly auditShareADay: number;
}

/** What is known of a host. */
export interface Audited {
  readonly host: PeerName;
  readonly shards: number;
}

/** Keeps the time of each host's next audit. */
export class AuditSchedule {
  readonly #rate: AuditRate;
  readonly #random: () => number;
  /** One time for each host that is audited. */
  #next = new Map<PeerName, number>();

  /** `random` gives numbers in [0, 1). */
  constructor(rate: AuditRate, random: () => number) {
    this.#rate = rate;
    this.#random = random;
  }

  /** Hosts to audit now, one entry for each audit. Those that are not named are forgotten. */
  due(hosts: readonly Audited[], nowMs: number): PeerName[] {
    const due: PeerName[] = [];
    const next = new Map<PeerName, number>();
    for (const { host, shards } of hosts) {
      if (shards === 0) continue;
      const intervalMs = this.#intervalMs(shards);
      // A host that was not there is not examined for the time that it missed.
      let at = this.#next.get(host) ?? nowMs + this.#random() * intervalMs;
      for (let count = 0; at <= nowMs && count < MAX_DUE; count += 1) {
        due.push(host);
        at += intervalMs * (0.5 + this.#random());
      }
      next.set(host, at > nowMs ? at : nowMs + intervalMs * this.#random());
    }
    this.#next = next;
    return due;
  }

  #intervalMs(shards: number): number {
    const { auditsPerDay, auditShareADay } = this.#rate;
    return DAY_MS / Math.max(auditsPerDay, shards * auditShareADay);
  }
}

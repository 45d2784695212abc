// Examines hosts: has them show a leaf, or all, of shards that they are to hold, and draws the consequences for the mirror
// and for the host. What clients report, and what an inventory lacks, is looked at here and proves nothing before.

import { leafCountOf, LEAF_SIZE_BYTES, verifyRange, verifyShard } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { HostCalls } from '../net/connected-hosts.ts';
import { Limiter } from '../net/limiter.ts';
import type { PeerName } from '../net/network.ts';
import { AuditSchedule } from './audit-schedule.ts';
import type { AuditRate } from './audit-schedule.ts';
import type { HostRegistry } from './host-registry.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import type { OrderSigner } from './order-signer.ts';
import type { ShardRecord } from './proto/records_pb.ts';
import { hexOf } from './records.ts';

/** Mirrors that wait to be looked at because somebody doubts them; beyond, doubts are dropped. */
export const MAX_RECHECKS = 10_000;
/** Of them, looked at in one round. */
const RECHECKS_PER_ROUND = 256;
/** For an answer. */
const AUDIT_TIMEOUT_MS = 15_000;

/** What an auditor works with. */
export interface AuditorComponents {
  readonly registry: HostRegistry;
  readonly index: MirrorIndex;
  readonly mirrors: Mirrors;
  readonly signer: OrderSigner;
  readonly calls: HostCalls;
  readonly bridge: PeerName;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Called for a host that has failed an audit. */
  readonly onFailure: (host: PeerName) => void;
}

/** How much is audited. */
export interface AuditorOptions extends AuditRate {
  /** At once, over all hosts. */
  readonly parallelAudits: number;
}

/** What an audit came to; "skipped" when there was nothing to audit. */
export type AuditOutcome = 'passed' | 'failed' | 'unanswered' | 'skipped';

/** Audits in rounds, and mirrors that are in doubt before all others. */
export class Auditor {
  readonly #components: AuditorComponents;
  readonly #schedule: AuditSchedule;
  readonly #limiter: Limiter;
  readonly #rechecks = new Map<string, { host: PeerName; shardId: Uint8Array }>();
  readonly #audits;
  readonly #bytes;

  constructor(components: AuditorComponents, options: AuditorOptions) {
    this.#components = components;
    this.#schedule = new AuditSchedule(options, components.random);
    this.#limiter = new Limiter(options.parallelAudits);
    this.#audits = components.metrics.counter('bridge_audits_total', 'Audits of hosts', ['outcome']);
    this.#bytes = components.metrics.counter('bridge_audit_bytes_total', 'Bytes that hosts showed in audits');
  }

  /** Room for further doubts. */
  get recheckRoom(): number {
    return MAX_RECHECKS - this.#rechecks.size;
  }

  /** Has a whole mirror looked at soon. */
  recheck(host: PeerName, shardId: Uint8Array): void {
    if (this.recheckRoom > 0) this.#rechecks.set(`${host} ${hexOf(shardId)}`, { host, shardId });
  }

  /** Audits what is due and what is in doubt, and resolves when all of it has been answered or given up. */
  async round(signal: AbortSignal): Promise<void> {
    const { registry, index, clock, random } = this.#components;
    const doubted = [...this.#rechecks].slice(0, RECHECKS_PER_ROUND);
    for (const [key] of doubted) this.#rechecks.delete(key);
    const hosts = registry.all().filter(({ online, standing }) => online && standing.state !== 'disqualified');
    const due = this.#schedule.due(hosts, clock.now());
    await Promise.all([
      ...doubted.map(([, { host, shardId }]) => this.audit(host, shardId, 'whole', signal)),
      ...due.map(async (host) => {
        const shardId = await index.draw(host, random);
        if (shardId) await this.audit(host, shardId, 'leaf', signal);
      }),
    ]);
  }

  /** Audits one mirror: a random leaf, or all of it. */
  async audit(host: PeerName, shardId: Uint8Array, what: 'leaf' | 'whole', signal: AbortSignal): Promise<AuditOutcome> {
    const { mirrors, registry, log, onFailure } = this.#components;
    const record = await mirrors.get(shardId);
    const mirror = record?.mirrors.find((candidate) => candidate.host === host);
    if (!record || !mirror) return 'skipped';
    // A last mirror that is known to be bad is held against its host once; that it is good again must be seen as a whole.
    const doubted = mirror.failed;
    const outcome = await this.#limiter.run(() => this.#ask(host, shardId, record, doubted ? 'whole' : what, signal));
    if (signal.aborted) return 'skipped';
    this.#audits.inc({ outcome });
    if (doubted && outcome === 'failed') return outcome;
    if (doubted && outcome === 'passed') await mirrors.restore(shardId, record.volume, host);
    if (outcome === 'unanswered') registry.unanswered(host);
    else if (outcome !== 'skipped') registry.audited(host, outcome === 'passed');
    if (outcome === 'failed') {
      log.warn({ host, shard: hexOf(shardId) }, 'a mirror failed its audit');
      await mirrors.fail(shardId, record.volume, host);
      onFailure(host);
    }
    return outcome;
  }

  async #ask(
    host: PeerName,
    shardId: Uint8Array,
    record: ShardRecord,
    what: 'leaf' | 'whole',
    stopping: AbortSignal,
  ): Promise<AuditOutcome> {
    const { calls, signer, bridge, random, clock } = this.#components;
    const { sizeBytes, volume } = record;
    const order = signer.make({ operation: 'retrieve', client: bridge, host, shardId, sizeBytes, volume }).signed;
    const firstLeaf = Math.floor(random() * leafCountOf(sizeBytes));
    const leafBytes = Math.min(LEAF_SIZE_BYTES, sizeBytes - firstLeaf * LEAF_SIZE_BYTES);
    const signal = deadline(clock, AUDIT_TIMEOUT_MS, stopping);
    try {
      if (what === 'whole') {
        const { data } = await calls.retrieve(host, order, { firstLeaf: 0, leafCount: 0 }, sizeBytes, signal);
        this.#bytes.inc(data.length);
        return verifyShard(shardId, data) ? 'passed' : 'failed';
      }
      const { data, proof } = await calls.retrieve(host, order, { firstLeaf, leafCount: 1 }, leafBytes, signal);
      this.#bytes.inc(data.length);
      return verifyRange(shardId, sizeBytes, firstLeaf, data, proof) ? 'passed' : 'failed';
    } catch (error) {
      if (!(error instanceof XcoreError)) throw error;
      // INTERNAL is what a host says whose disk cannot be read.
      return hasCode(error, 'NOT_FOUND', 'CORRUPT_SHARD', 'INTERNAL') ? 'failed' : 'unanswered';
    }
  }
}

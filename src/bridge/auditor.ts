// Examines hosts: has them show a leaf, or all, of shards that they are to hold, and draws the consequences for the mirror
// and for the host. What clients report, and what an inventory lacks, is looked at here and proves nothing before.

import { Limiter } from '../net/limiter.ts';
import type { PeerName } from '../net/network.ts';
import { AuditSchedule } from './audit-schedule.ts';
import type { AuditRate } from './audit-schedule.ts';
import { Examiner } from './examiner.ts';
import type { AuditOutcome, Examination, ExaminerComponents } from './examiner.ts';
import type { HostRegistry } from './host-registry.ts';
import type { MirrorIndex } from './mirror-index.ts';
import type { Mirrors } from './mirrors.ts';
import { hexOf } from './records.ts';

/** Mirrors that wait to be looked at because somebody doubts them; beyond, doubts are dropped. */
export const MAX_RECHECKS = 10_000;
/** Of them, looked at in one round. */
const RECHECKS_PER_ROUND = 256;

/** What an auditor works with. */
export interface AuditorComponents extends ExaminerComponents {
  readonly registry: HostRegistry;
  readonly index: MirrorIndex;
  readonly mirrors: Mirrors;
  /** Called for a host that has failed an audit. */
  readonly onFailure: (host: PeerName) => void;
}

/** How much is audited. */
export interface AuditorOptions extends AuditRate {
  /** At once, over all hosts. */
  readonly parallelAudits: number;
  /** Share of the audits that ask for the answer to a hashed key, where the shard has one. */
  readonly hashedAuditShare: number;
}

/** Audits in rounds, and mirrors that are in doubt before all others. */
export class Auditor {
  readonly #components: AuditorComponents;
  readonly #options: AuditorOptions;
  readonly #schedule: AuditSchedule;
  readonly #examiner: Examiner;
  readonly #limiter: Limiter;
  readonly #rechecks = new Map<string, { host: PeerName; shardId: Uint8Array }>();
  readonly #audits;

  constructor(components: AuditorComponents, options: AuditorOptions) {
    this.#components = components;
    this.#options = options;
    this.#examiner = new Examiner(components);
    this.#schedule = new AuditSchedule(options, components.random);
    this.#limiter = new Limiter(options.parallelAudits);
    this.#audits = components.metrics.counter('bridge_audits_total', 'Audits of hosts', ['outcome']);
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
        const what = random() < this.#options.hashedAuditShare ? 'hashed' : 'leaf';
        if (shardId) await this.audit(host, shardId, what, signal);
      }),
    ]);
  }

  /** Audits one mirror. */
  async audit(host: PeerName, shardId: Uint8Array, what: Examination, signal: AbortSignal): Promise<AuditOutcome> {
    const { mirrors, registry, log, onFailure } = this.#components;
    const record = await mirrors.get(shardId);
    const mirror = record?.mirrors.find((candidate) => candidate.host === host);
    if (!record || !mirror) return 'skipped';
    // A last mirror that is known to be bad is held against its host once; that it is good again must be seen as a whole.
    const doubted = mirror.failed;
    const examined = { host, shardId, record, mirror };
    const outcome = await this.#limiter.run(() => this.#examiner.examine(examined, doubted ? 'whole' : what, signal));
    if (signal.aborted) return 'skipped';
    this.#audits.inc({ outcome });
    if (doubted && (outcome === 'failed' || outcome === 'excused')) {
      // By now others may be there to make it again from, perhaps on the same host.
      await mirrors.fail(shardId, record.volume, host);
      return outcome;
    }
    if (doubted && outcome === 'passed') await mirrors.restore(shardId, record.volume, host);
    if (outcome === 'unanswered') registry.unanswered(host);
    else if (outcome === 'excused') registry.excused(host);
    else registry.audited(host, outcome === 'passed');
    if (outcome === 'excused') await mirrors.fail(shardId, record.volume, host);
    if (outcome === 'failed') {
      log.warn({ host, shard: hexOf(shardId) }, 'a mirror failed its audit');
      await mirrors.fail(shardId, record.volume, host);
      onFailure(host);
    }
    return outcome;
  }
}

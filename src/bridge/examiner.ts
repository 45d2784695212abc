// Looks at one mirror: has its host show a leaf, all of it, or the answer to a hashed key, and says what that proves.
// Draws no consequences.

import { isAnswer } from '../crypto/hashed-key.ts';
import { leafCountOf, LEAF_SIZE_BYTES, verifyRange, verifyShard } from '../crypto/merkle.ts';
import type { Clock } from '../lib/clock.ts';
import { deadline } from '../lib/deadline.ts';
import { hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { HostCalls } from '../net/connected-hosts.ts';
import type { PeerName } from '../net/network.ts';
import { verifyOrder } from '../net/orders.ts';
import type { Signed } from '../net/proto/wire_pb.ts';
import type { HashedKeys } from './hashed-keys.ts';
import type { OrderSigner } from './order-signer.ts';
import type { MirrorRecord, ShardRecord } from './proto/records_pb.ts';
import { hexOf, sameBytes } from './records.ts';

/** For an answer. */
const AUDIT_TIMEOUT_MS = 15_000;

/** What an examiner works with. */
export interface ExaminerComponents {
  readonly keys: HashedKeys;
  readonly signer: OrderSigner;
  readonly calls: HostCalls;
  readonly bridge: PeerName;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** What of a mirror is looked at: a random leaf, all of it by a hashed key if the shard has one left, or all of it. */
export type Examination = 'leaf' | 'hashed' | 'whole';

/** What an audit came to; "excused" when the host was told to delete the shard, "skipped" when there was nothing to audit. */
export type AuditOutcome = 'passed' | 'failed' | 'unanswered' | 'excused' | 'skipped';

/** A mirror as the bridge knows it. */
export interface Examined {
  readonly host: PeerName;
  readonly shardId: Uint8Array;
  readonly record: ShardRecord;
  readonly mirror: MirrorRecord;
}

/** Examines mirrors, one at a time each. */
export class Examiner {
  readonly #components: ExaminerComponents;
  readonly #bytes;
  readonly #answers;
  readonly #falseKeys;

  constructor(components: ExaminerComponents) {
    this.#components = components;
    const { metrics } = components;
    this.#bytes = metrics.counter('bridge_audit_bytes_total', 'Bytes that hosts showed in audits');
    this.#answers = metrics.counter('bridge_answers_total', 'Audits by hashed keys', ['outcome']);
    this.#falseKeys = metrics.counter('bridge_false_keys_total', 'Hashed keys that a whole shard did not answer');
  }

  /** Examines a mirror; never "skipped". */
  async examine(examined: Examined, what: Examination, stopping: AbortSignal): Promise<AuditOutcome> {
    const key = what === 'hashed' ? await this.#takeKey(examined) : undefined;
    if (!key) return this.#ask(examined, what === 'whole' ? what : 'leaf', stopping);
    const first = await this.#prove(examined, key, stopping);
    this.#answers.inc({ outcome: first });
    if (first !== 'failed') return first;
    // Whoever minted the key may have lied: only the bytes themselves are held against a host.
    const outcome = await this.#ask(examined, 'whole', stopping);
    if (outcome !== 'passed') return outcome;
    const { host, shardId } = examined;
    this.#falseKeys.inc();
    this.#components.log.warn({ host, shard: hexOf(shardId) }, 'a hashed key was false');
    await this.#components.keys.drop(shardId);
    return outcome;
  }

  async #takeKey({ host, shardId, record }: Examined): ReturnType<HashedKeys['take']> {
    try {
      return await this.#components.keys.take(shardId, record, host);
    } catch (error) {
      // The volume's queue is full; there are other ways to look.
      if (hasCode(error, 'REFUSED')) return undefined;
      throw error;
    }
  }

  #prove(
    examined: Examined,
    { challenge, commitment }: { readonly challenge: Uint8Array; readonly commitment: Uint8Array },
    stopping: AbortSignal,
  ): Promise<AuditOutcome> {
    return this.#judge(examined, stopping, async (order, signal) => {
      const answer = await this.#components.calls.prove(examined.host, order, challenge, signal);
      this.#bytes.inc(answer.length);
      return isAnswer(answer, commitment);
    });
  }

  #ask(examined: Examined, what: 'leaf' | 'whole', stopping: AbortSignal): Promise<AuditOutcome> {
    const { calls, random } = this.#components;
    const { host, shardId, record } = examined;
    const { sizeBytes } = record;
    return this.#judge(examined, stopping, async (order, signal) => {
      if (what === 'whole') {
        const { data } = await calls.retrieve(host, order, { firstLeaf: 0, leafCount: 0 }, sizeBytes, signal);
        this.#bytes.inc(data.length);
        return verifyShard(shardId, data) !== null;
      }
      const firstLeaf = Math.floor(random() * leafCountOf(sizeBytes));
      const leafBytes = Math.min(LEAF_SIZE_BYTES, sizeBytes - firstLeaf * LEAF_SIZE_BYTES);
      const { data, proof } = await calls.retrieve(host, order, { firstLeaf, leafCount: 1 }, leafBytes, signal);
      this.#bytes.inc(data.length);
      return verifyRange(shardId, sizeBytes, firstLeaf, data, proof);
    });
  }

  async #judge(
    examined: Examined,
    stopping: AbortSignal,
    look: (order: Signed, signal: AbortSignal) => Promise<boolean>,
  ): Promise<AuditOutcome> {
    const { signer, bridge, clock } = this.#components;
    const { host, shardId, record } = examined;
    const { sizeBytes, volume } = record;
    const order = signer.make({ operation: 'retrieve', client: bridge, host, shardId, sizeBytes, volume }).signed;
    const signal = deadline(clock, AUDIT_TIMEOUT_MS, stopping);
    try {
      return (await look(order, signal)) ? 'passed' : 'failed';
    } catch (error) {
      if (!(error instanceof XcoreError)) throw error;
      if (error.code === 'NOT_FOUND') return (await this.#wasOrdered(examined, signal)) ? 'excused' : 'failed';
      // Whatever else a host says, INTERNAL too, it could not look: that is no word on the mirror.
      return error.code === 'CORRUPT_SHARD' ? 'failed' : 'unanswered';
    }
  }

  /** Whether this bridge itself had the host delete the shard after it was counted, and has forgotten: it was restored from a backup, or the shard is just being freed. */
  async #wasOrdered({ host, shardId, mirror }: Examined, signal: AbortSignal): Promise<boolean> {
    const { calls, signer, bridge } = this.#components;
    try {
      const signed = await calls.findDeletion(host, shardId, signal);
      if (!signed) return false;
      const order = verifyOrder(signed, bridge);
      return (
        order.operation === 'delete' &&
        order.host === host &&
        sameBytes(order.shardId, shardId) &&
        signer.madeMs(order) >= Number(mirror.countedMs)
      );
    } catch (error) {
      if (error instanceof XcoreError) return false;
      throw error;
    }
  }
}

// A host's side of its bridge: registers, sends heartbeats, takes delete orders. Keeps trying while the bridge is away.

import type { Clock } from '../lib/clock.ts';
import { asError, hasCode } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import { BridgeLink } from '../net/bridge-link.ts';
import type { NetworkNode } from '../net/node.ts';
import type { RpcClient } from '../net/rpc.ts';
import type { Reachability, Standing } from '../net/proto/wire_pb.ts';
import type { Allowance } from './allowance.ts';
import type { Deletions } from './deletions.ts';
import type { Intent } from './intent.ts';
import type { SpaceBudget } from './space-budget.ts';

const VERSION = '1';
const FIRST_INTERVAL_MS = 1_000;
const MIN_INTERVAL_MS = 50;
const MAX_INTERVAL_MS = 60_000;
/** Between two looks that its owner asks for. */
const LOOK_AGAIN_MS = 15_000;
const MAX_LOST = 10_000;
const LOST_PER_HEARTBEAT = 1_000;

/** What an agent works with. */
export interface BridgeAgentComponents {
  readonly node: NetworkNode;
  readonly budget: SpaceBudget;
  /** What it can take now. */
  readonly freeBytes: () => Promise<number>;
  readonly deletions: Pick<Deletions, 'carryOut'>;
  readonly intent: Intent;
  readonly allowance?: Allowance | undefined;
  /** Who runs the host, and where, as its owner says. */
  readonly place?: { readonly operator: string; readonly region: string };
  /** Gets or keeps a place on the bridge's relay. */
  readonly reserve?: (() => Promise<void>) | undefined;
  readonly clock: Clock;
  /** Numbers in [0, 1). */
  readonly random: () => number;
  readonly log: Logger;
  /** Transfers under way. */
  readonly transfers: () => number;
}

/** Speaks to one bridge from start() to stop(). */
export class BridgeAgent {
  readonly #components: BridgeAgentComponents;
  readonly #link: BridgeLink;
  readonly #stopping = new AbortController();
  readonly #firstAnswer = Promise.withResolvers<boolean>();
  #beating: Promise<void> | null = null;
  #intervalMs = FIRST_INTERVAL_MS;
  /** Serials that the bridge has not taken notice of; at most those of one heartbeat's orders. */
  #deleted: Uint8Array[] = [];
  /** Shards that are gone or harmed and that the bridge does not know of yet. */
  #lost: Uint8Array[] = [];
  #standing: Standing | undefined;
  #reachability: Reachability | undefined;
  /** As it was logged last. */
  #complaint: string | undefined;
  /** As the bridge was told last; undefined: it is to be told anew. */
  #addresses: string | undefined;
  #clockAheadMs = 0;
  #lookedMs = -Infinity;
  #hurry = new AbortController();

  /** `bridge` is a multiaddr with /p2p/ id; USAGE otherwise. */
  constructor(components: BridgeAgentComponents, bridge: string) {
    this.#components = components;
    const { clock, random } = components;
    this.#link = new BridgeLink(components.node, {
      ...{ bridge, clock, random },
      greet: (rpc) => this.#register(rpc),
      onConnection: (connected, error) => {
        this.#firstAnswer.resolve(connected);
        this.#note(connected ? '' : (error?.message ?? 'it does not answer'));
      },
    });
  }

  /** Starts, and resolves with whether the bridge could be reached at once; it is tried again in any case. */
  async start(waitMs: number): Promise<boolean> {
    this.#link.start();
    this.#beating ??= this.#beat();
    const waited = this.#components.clock.sleep(waitMs, this.#stopping.signal).then(
      () => false,
      () => false,
    );
    return Promise.race([this.#firstAnswer.promise, waited]);
  }

  get connected(): boolean {
    return this.#link.connected;
  }

  /** What keeps it from its bridge; empty when nothing does. */
  get complaint(): string {
    return this.#complaint ?? '';
  }

  /** By how much this machine's clock was ahead of the bridge's at the last heartbeat; negative: behind. */
  get clockAheadMs(): number {
    return this.#clockAheadMs;
  }

  /** How the bridge judged the host last. */
  get standing(): Standing | undefined {
    return this.#standing;
  }

  /** Whether the bridge could dial the host, once it has tried. */
  get reachability(): Reachability | undefined {
    return this.#reachability;
  }

  /** Sends a heartbeat now, or once more after the one under way. */
  hurry(): void {
    this.#hurry.abort();
  }

  /** Has the bridge look again, now and not in some minutes, whether a host that it could not dial can be; now and then at most. */
  lookAgain(): void {
    const now = this.#components.clock.monotonicMs();
    const { state = '' } = this.#reachability ?? {};
    if ((state !== 'none' && state !== 'relayed') || now - this.#lookedMs < LOOK_AGAIN_MS) return;
    this.#lookedMs = now;
    // Whoever registers is looked at soon.
    this.#addresses = undefined;
    this.hurry();
  }

  /** Tells the bridge with the next heartbeats that a shard is gone or harmed; beyond a bound, its inventories find out. */
  reportLost(shardId: Uint8Array): void {
    if (this.#lost.length < MAX_LOST) this.#lost.push(shardId);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#link.stop();
    await this.#beating;
  }

  async #register(rpc: RpcClient): Promise<void> {
    const { signal } = this.#stopping;
    await this.#tellAddresses((body, expected) => rpc.call(body, expected, { signal }));
    await this.#heartbeat((body, expected) => rpc.call(body, expected, { signal }));
  }

  async #tellAddresses(call: RpcClient['call']): Promise<void> {
    const { budget } = this.#components;
    const addresses = this.#ownAddresses();
    await call(
      {
        case: 'registerHost',
        value: {
          addresses,
          capacityBytes: BigInt(budget.limitBytes),
          usedBytes: BigInt(budget.usedBytes),
          version: VERSION,
          ...this.#components.place,
        },
      },
      'done',
    );
    this.#addresses = addresses.join();
  }

  #ownAddresses(): string[] {
    const { node } = this.#components;
    return node.getMultiaddrs().map((address) => address.toString().replace(/\/p2p\/[^/]+$/, ''));
  }

  async #beat(): Promise<void> {
    const { signal } = this.#stopping;
    const { clock } = this.#components;
    while (!signal.aborted) {
      await clock.sleep(this.#intervalMs, AbortSignal.any([signal, this.#hurry.signal])).catch(() => {});
      this.#hurry = new AbortController();
      if (signal.aborted || !this.#link.connected) continue;
      try {
        const call: RpcClient['call'] = (body, expected) => this.#link.call(body, expected, { signal });
        // A router may have opened a port meanwhile, or an interface may have come up.
        if (this.#ownAddresses().join() !== this.#addresses) await this.#tellAddresses(call);
        await this.#heartbeat(call);
        this.#note('');
      } catch (error) {
        // It has forgotten this host, or takes another one for it.
        if (hasCode(error, 'REFUSED', 'NOT_FOUND')) this.#addresses = undefined;
        this.#note(asError(error).message);
      }
    }
  }

  /** Logs what keeps it from its bridge, once, not at each attempt in vain. */
  #note(complaint: string): void {
    if (complaint === this.#complaint || this.#stopping.signal.aborted) return;
    this.#complaint = complaint;
    const { log } = this.#components;
    if (complaint === '') log.info({}, 'registered with the bridge');
    else log.warn({ reason: complaint }, 'the bridge cannot be used; it is tried again and again');
  }

  async #heartbeat(call: RpcClient['call']): Promise<void> {
    const { budget, freeBytes, deletions, transfers, intent, allowance, clock } = this.#components;
    for (;;) {
      const rest = allowance?.nextRest();
      const reported = this.#deleted;
      const lost = this.#lost.slice(0, LOST_PER_HEARTBEAT);
      const reply = await call(
        {
          case: 'heartbeat',
          value: {
            capacityBytes: BigInt(budget.limitBytes),
            usedBytes: BigInt(budget.usedBytes),
            freeBytes: BigInt(await freeBytes()),
            deleted: reported,
            transfers: transfers(),
            paused: intent.wishes.paused || allowance?.resting() !== undefined,
            exiting: intent.wishes.exiting,
            lost,
            restFromMs: BigInt(rest?.fromMs ?? 0),
            restUntilMs: BigInt(rest?.untilMs ?? 0),
            partTime: allowance?.partTime ?? false,
          },
        },
        'heartbeatReply',
      );
      this.#deleted = this.#deleted.slice(reported.length);
      this.#lost = this.#lost.slice(lost.length);
      this.#standing = reply.standing;
      if (reply.nowMs > 0n) this.#clockAheadMs = clock.now() - Number(reply.nowMs);
      await this.#beReachable(reply.reachability);
      this.#intervalMs = Math.min(MAX_INTERVAL_MS, Math.max(MIN_INTERVAL_MS, reply.intervalMs));
      this.#deleted.push(...(await deletions.carryOut(reply.deletes)));
      // What was deleted is told at once: room for others.
      if (this.#deleted.length === 0 || this.#stopping.signal.aborted) return;
    }
  }

  /** A host that the bridge cannot dial asks for a place on its relay; without one it is of little use, and tells its owner so. */
  async #beReachable(told: Reachability | undefined): Promise<void> {
    const { reserve, log } = this.#components;
    if (told && told.state !== this.#reachability?.state) {
      log.info({ state: told.state, address: told.address, reason: told.reason }, 'reachable from outside?');
    }
    this.#reachability = told;
    if (told?.state !== 'none' || !reserve) return;
    try {
      await reserve();
      // Whoever sleeps is woken; in the midst of a heartbeat the next one is soon enough.
      if (this.#hurry.signal.aborted) return;
      this.#hurry.abort();
      this.#hurry = new AbortController();
    } catch (error) {
      log.warn({ err: asError(error) }, 'the bridge does not relay for this host');
    }
  }
}

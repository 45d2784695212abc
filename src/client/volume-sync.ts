// Keeps this device and the volume log together: who writes, what others published, what is ours
// to publish. One loop does all of it, one step after another, so that no two steps ever meet.

import type { VolumeKeys } from '../crypto/keys.ts';
import type { Clock } from '../lib/clock.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Lease, Network } from '../net/network.ts';
import type { CheckpointComponents } from './checkpoint.ts';
import { Checkpointing } from './checkpointing.ts';
import { fill, follow, isStaged } from './follow.ts';
import type { FollowComponents } from './follow.ts';
import { FORKED_ADVICE, newestSeen } from './hand-in.ts';
import type { HandIn } from './hand-in.ts';
import type { EntryCodec } from './log-entry.ts';
import type { LocalVolume } from './local-volume.ts';
import { Pace } from './pace.ts';
import type { Problems } from './problems.ts';
import type { Publisher } from './publisher.ts';
import type { Invalidations } from './replay.ts';
import { WriteLease } from './write-lease.ts';

const STEP_INTERVAL_MS = 1_000;
const RETRY_DELAY_MS = 1_000;

/** What the loop is built from. */
export interface SyncComponents {
  readonly network: Network;
  readonly codec: EntryCodec;
  readonly publisher: Publisher;
  readonly handIn: HandIn;
  readonly keys: VolumeKeys;
  readonly device: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly problems: Problems;
  readonly checkpoints: CheckpointComponents;
  /** The open volume; another one after setAside(). */
  readonly volume: () => LocalVolume;
  /** Opens an empty volume, lets it be filled, and puts it in the place of the present one, which is kept or removed. */
  readonly rebuild: (keep: boolean, fill: (next: LocalVolume) => Promise<void>) => Promise<void>;
  /** Records changed under the mount. */
  readonly onApplied: (invalidations: Invalidations) => void;
  /** The bridge knows too few mirrors of shards that hosts have: they are stored again. */
  readonly onForgotten: (shards: readonly number[]) => void;
  /** Whether a shard is being stored, or waits for it. */
  readonly isUploading: (shard: number) => boolean;
  /** This device writes from now on, or no longer. */
  readonly onRole: (writer: boolean) => void;
}

/** How this device takes part. */
export interface SyncOptions {
  readonly readOnly: boolean;
  readonly takeOver: boolean;
  /** Of the root directory that a first writer makes. */
  readonly owner: { readonly uid: number; readonly gid: number };
  /** Log after which a checkpoint is due; unless told, 8 MiB or half of the last one. */
  readonly checkpointLogBytes?: number;
}

/** The loop between a local volume and its log. */
export class VolumeSync {
  readonly #c: SyncComponents;
  readonly #options: SyncOptions;
  readonly #stopping = new AbortController();
  readonly #pace: Pace;
  readonly #lease: WriteLease;
  readonly #checkpointing: Checkpointing;
  #connected = false;
  #mustRead = true;
  #mustSetAside = false;
  /** Shards that are stored again, and that the next entries wait for. */
  #forgotten: readonly number[] = [];
  #running: Promise<void> | null = null;
  readonly #waiters = new Set<() => void>();

  constructor(components: SyncComponents, options: SyncOptions) {
    this.#c = components;
    this.#options = options;
    const { network, device, clock, onRole } = components;
    this.#lease = new WriteLease({ network, device, clock, onRole }, options.takeOver);
    const lease = this.#lease;
    this.#checkpointing = new Checkpointing({ ...components, lease }, options.checkpointLogBytes);
    this.#pace = new Pace(components.clock, this.#stopping.signal);
  }

  /** Whether this device may change the volume now. */
  get writer(): boolean {
    return this.#lease.writer;
  }

  /** Peer name of the device that holds the lease, as far as known. */
  get holder(): string {
    return this.#lease.holder;
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Goes on from local state: a device that wrote last may write at once, also while the bridge is away. */
  begin(): void {
    const { network } = this.#c;
    network.on('connection', (connected) => {
      this.#connected = connected;
      if (!connected) return;
      this.#mustRead = true;
      this.#lease.hurry();
      this.nudge();
    });
    network.on('head', (head) => {
      if (head.seq > this.#c.volume().tree.head.seq) this.#mustRead = true;
      this.nudge();
    });
    network.on('lease', (lease) => {
      if (this.#lease.note(lease)) this.#lost();
      this.nudge();
    });
    const { epoch } = this.#c.volume().tree.head;
    if (epoch > 0 && !this.#options.readOnly) this.#lease.begin(epoch);
  }

  /** One pass while connected: reads the log, takes the lease if it is to be had. Throws what fails. */
  async catchUp(): Promise<void> {
    await this.#step();
  }

  /** Runs until stop(). */
  start(): void {
    this.#running = this.#run();
  }

  /** Ends the loop after the step under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  /** Gives the lease back, so that another device need not wait for its end. */
  async release(): Promise<void> {
    const { writer, epoch } = this.#lease;
    if (writer && this.#connected && epoch > 0) await this.#c.network.releaseLease(epoch);
  }

  /** Becomes the writer even if another device is. */
  takeOver(): void {
    this.#lease.takeOver();
    this.nudge();
  }

  /** Writes a checkpoint as soon as this device may: the shards of the one that the log names may be gone. */
  wantCheckpoint(): void {
    this.#checkpointing.want();
  }

  /** Something happened that may be published or read. */
  nudge(): void {
    this.#pace.nudge();
  }

  /** Resolves after the next step of the loop. */
  nextStep(): Promise<void> {
    return new Promise((resolve) => this.#waiters.add(resolve));
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      let delayMs = STEP_INTERVAL_MS;
      this.#pace.begin();
      if (this.#connected) {
        try {
          await this.#step();
          this.#c.problems.clear('log');
        } catch (error) {
          this.#fail(asError(error));
          delayMs = RETRY_DELAY_MS;
        }
      }
      for (const waiter of this.#waiters) waiter();
      this.#waiters.clear();
      await this.#pace.pause(delayMs);
    }
  }

  #fail(error: Error): void {
    this.#mustRead = true;
    if (hasCode(error, 'UNREACHABLE', 'TIMEOUT', 'CLOSED', 'ABORTED')) return;
    this.#c.log.warn({ error }, 'the volume log could not be followed; trying again');
    const advice = hasCode(error, 'FORKED_LOG') ? FORKED_ADVICE : 'nothing to do: tried again until it works';
    this.#c.problems.set('log', error instanceof XcoreError ? error.code : 'INTERNAL', error.message, advice);
  }

  async #step(): Promise<void> {
    if (this.#mustRead) await this.#readLog();
    if (this.#mustSetAside) {
      if (await isStaged(this.#c.volume())) await this.#rebuild();
      this.#mustSetAside = false;
    }
    await this.#holdLease();
    if (!this.#lease.writer || this.#lease.epoch === 0) return;
    await this.#publishAll();
  }

  // ------------------------------------------------------------------ reading

  async #readLog(): Promise<void> {
    this.#mustRead = false;
    try {
      const volume = this.#c.volume();
      if ((await follow(this.#following(volume), volume)) === 'stuck') await this.#rebuild();
    } catch (error) {
      this.#mustRead = true;
      throw error;
    }
  }

  #following(volume: LocalVolume): FollowComponents {
    const { network, codec, checkpoints, handIn, onApplied } = this.#c;
    const isCurrent = (): boolean => volume === this.#c.volume();
    return {
      ...{ network, codec, checkpoints, handIn },
      onForeign: () => isCurrent() && this.#lease.end(),
      onApplied: (invalidations) => isCurrent() && onApplied(invalidations),
    };
  }

  /** Builds the volume anew from the log beside the present one, which serves until then; keeps that one if it holds staged work. */
  async #rebuild(): Promise<void> {
    this.#lease.end();
    const keep = await isStaged(this.#c.volume());
    if (keep) this.#c.log.warn({}, 'another device writes the volume; what is staged here is set aside');
    await this.#c.rebuild(keep, async (next) => {
      const { seq, hash } = newestSeen(this.#c.volume().tree.head);
      next.tree.putHead({ ...next.tree.head, seenSeq: seq, seenHash: hash });
      await fill(this.#following(next), next);
      // nothing was ever published: an empty folder
      if (next.tree.isEmpty) next.tree.format({ uid: 0, gid: 0 }, this.#c.clock.nowNs());
      await next.store.commit(true);
    });
  }

  // ------------------------------------------------------------------ the lease

  /**
   * Another device writes now. Where it took a lease that was still ours, what is staged here can
   * never be published; where ours had run out, it still can if the other one changes nothing.
   */
  #lost(): void {
    this.#mustSetAside ||= this.#lease.isRunning;
    this.#lease.lose();
    this.#c.log.warn({ holder: this.#lease.holder }, 'another device has the lease; this device only reads now');
    this.#mustRead = true;
    // also after a restart while the bridge is away
    const { tree } = this.#c.volume();
    tree.putHead({ ...tree.head, epoch: 0 });
  }

  async #holdLease(): Promise<void> {
    if (this.#options.readOnly) return;
    const lease = await this.#lease.hold();
    if (lease === null) return;
    if (lease === 'lost') return this.#lost();
    // whoever wrote before may have published until the lease changed hands
    await this.#readLog();
    if (!this.#lease.isTaken(lease)) await this.#becomeWriter(lease);
  }

  async #becomeWriter(lease: Lease): Promise<void> {
    const { tree, store } = this.#c.volume();
    await store.commit();
    store.setRecording(true, tree.head.lastCommit);
    const isNew = tree.head.seq === 0 && store.firstUnpublished > store.lastCommit;
    if (isNew) tree.format(this.#options.owner, this.#c.clock.nowNs());
    if (tree.head.epoch !== lease.epoch) tree.putHead({ ...tree.head, epoch: lease.epoch });
    await store.commit(true);
    if (this.#lease.isTaken(lease)) return tree.putHead({ ...tree.head, epoch: 0 });
    this.#lease.grant(lease);
    this.#lease.begin(lease.epoch);
  }

  // ------------------------------------------------------------------ publishing

  async #publishAll(): Promise<void> {
    const volume = this.#c.volume();
    if (this.#forgotten.some((shard) => this.#c.isUploading(shard))) return;
    let isPublished = false;
    try {
      // the bridge takes a claim from any device
      if (this.#c.publisher.isClaiming && !(await this.#lease.renew())) return this.#lost();
      while (!this.#stopping.signal.aborted && this.#lease.writer) {
        if (this.#checkpointing.isDue(volume)) await this.#checkpointing.write(volume, this.#stopping.signal);
        if (!(await this.#c.publisher.publish(volume, this.#lease.epoch))) break;
        isPublished = true;
        for (const waiter of this.#waiters) waiter();
        this.#waiters.clear();
        await this.#holdLease();
      }
      // a power cut must not make this device forget what it published: a bridge may, too
      if (isPublished) await volume.store.commit(true);
    } catch (error) {
      if (hasCode(error, 'STALE_HEAD')) this.#mustRead = true;
      else if (hasCode(error, 'LEASE_LOST', 'LEASE_HELD')) this.#lost();
      else if (hasCode(error, 'NO_MIRROR', 'NOT_FOUND')) await this.#storeAgain(volume);
      else throw error;
    }
  }

  /**
   * The bridge knows too few mirrors of some shard after all: what this disk has of those that are unpublished is
   * stored again, and the next entry makes the bridge look for the others on the hosts.
   */
  async #storeAgain({ tree, files }: LocalVolume): Promise<void> {
    const durable = (await tree.uploads()).filter(({ upload }) => upload.durable).map(({ shard }) => shard);
    this.#forgotten = durable.filter((shard) => files.has(shard));
    if (this.#forgotten.length < durable.length) this.#c.publisher.claim();
    this.#c.onForgotten(this.#forgotten);
  }
}

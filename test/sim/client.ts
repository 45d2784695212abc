// An owner of a simulated world: stores shards, names them in its log, frees some, reads them back, on the real
// network of a client. What it was promised is in its notes, which outlive its process.

import { createHash } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { leafHashes, shardIdOf } from '../../src/crypto/merkle.ts';
import { publicKeyOf, sign } from '../../src/crypto/sign.ts';
import { asError, hasCode, XcoreError } from '../../src/lib/errors.ts';
import { ClientNetwork } from '../../src/net/client-network.ts';
import { entryHash } from '../../src/net/entry-hash.ts';
import type { Head, WireEntry } from '../../src/net/network.ts';
import { EntryHeaderSchema } from '../../src/net/proto/wire_pb.ts';
import { SimFile } from './disk.ts';
import { openFileSystem } from './file-system.ts';
import { Machine } from './machines.ts';
import type { BridgeMachine, Ground } from './machines.ts';
import type { SimNode } from './network.ts';
import type { SimProcess } from './process.ts';

/** How far a shard has come: durable ones are promised to be kept, freed ones may be deleted from then on. */
export type Stage = 'staged' | 'durable' | 'published' | 'freed';

/** A shard as its owner knows it. */
export interface OwnedShard {
  readonly id: Buffer;
  readonly hex: string;
  readonly data: Buffer;
  stage: Stage;
  /** Whether its owner was ever told that it is durable. */
  promised: boolean;
  /** Whether the entry that frees it was answered. */
  gone: boolean;
  /** The entries that added and freed it; 0 while there are none. */
  addedSeq: bigint;
  freedSeq: bigint;
  /** Whether it may be dead before any entry names it. */
  mayDie?: boolean;
  /** Whether an entry that frees it was sent, and perhaps taken. */
  doomed?: boolean;
}

const FRESH = { stage: 'staged', promised: false, gone: false, addedSeq: 0n, freedSeq: 0n } as const;

/** An entry that was sent and not answered yet. */
interface Pending {
  readonly entry: WireEntry;
  readonly added: readonly OwnedShard[];
  readonly freed: readonly OwnedShard[];
}

/** How much a client stores, and how long it waits between two things. */
export interface Habits {
  readonly maxShards: number;
  readonly pauseMs: readonly [number, number];
}

/** One owner with one device. */
export class ClientMachine extends Machine {
  readonly shards: OwnedShard[] = [];
  /** What must not have happened. */
  readonly complaints: string[] = [];
  /** Whether it goes on storing and freeing. */
  busy = true;
  readonly #bridge: BridgeMachine;
  readonly #habits: Habits;
  readonly #ownerSeed: Buffer;
  /** Else it says again, in other entries, what a restored bridge has lost. */
  readonly #handsIn: boolean;
  #network: ClientNetwork | undefined;
  #seq = 0n;
  /** Of all entries that were answered, the first of them nothing. */
  readonly #hashes: Uint8Array[] = [new Uint8Array(32)];
  /** Those entries. */
  readonly #entries: WireEntry[] = [];
  #pending: Pending | undefined;
  reads = 0;

  constructor(ground: Ground, number: number, bridge: BridgeMachine, habits: Habits) {
    super(ground, `client${number}`, `10.2.${number}.1`);
    this.#bridge = bridge;
    this.#habits = habits;
    this.#ownerSeed = this.luck.bytes(32);
    this.#handsIn = number % 2 === 0;
  }

  protected async run(process: SimProcess, node: SimNode): Promise<void> {
    const disk = openFileSystem(this.disk, process);
    const { clock, luck } = process;
    const network = new ClientNetwork(
      { bridge: this.#bridge.address, deviceSeed: this.seed, ownerSeed: this.#ownerSeed, parallelTransfers: 2 },
      { clock, random: luck.next, randomBytes: luck.bytes, disk, createNode: () => Promise.resolve(node) },
    );
    this.#network = network;
    await network.start();
    await disk.mkdir('/client', { recursive: true, mode: 0o700 });
    await Promise.all([this.#store(process, network), this.#publish(process, network), this.#read(process)]);
  }

  /** Reads a shard, whatever it takes; whether it is what was stored. */
  async reads1(shard: OwnedShard): Promise<boolean> {
    const { process } = this;
    const network = this.#network!;
    const path = `/client/read-${shard.hex}`;
    await network.fetchShard(shard.id, shard.data.length, path);
    const disk = openFileSystem(this.disk, process!);
    const content = await disk.readFile(path);
    await disk.unlink(path);
    this.reads += 1;
    return content.subarray(0, shard.data.length).equals(shard.data);
  }

  async #store(process: SimProcess, network: ClientNetwork): Promise<void> {
    const { clock, luck } = process;
    const uploads = this.shards.filter(({ stage }) => stage === 'staged').map((shard) => this.#upload(network, shard));
    while (process.alive) {
      await clock.sleep(luck.between(...this.#habits.pauseMs));
      if (!this.busy || this.shards.length >= this.#habits.maxShards) continue;
      uploads.push(this.#upload(network, this.#make(luck)));
    }
    await Promise.all(uploads);
  }

  #make(luck: SimProcess['luck']): OwnedShard {
    const sizeBytes = 1 + Math.floor(luck.chance(0.1) ? luck.between(100_000, 400_000) : luck.between(0, 40_000));
    const data = luck.content(sizeBytes);
    const id = shardIdOf(leafHashes(data), sizeBytes);
    const shard: OwnedShard = { id, hex: id.toString('hex'), data, ...FRESH };
    this.shards.push(shard);
    return shard;
  }

  async #upload(network: ClientNetwork, shard: OwnedShard): Promise<void> {
    const path = `/client/${shard.hex}`;
    if (!this.disk.find(path)) {
      this.disk.set([path, new SimFile(shard.data)]);
    }
    const standing = await network.upload({ id: shard.id, sizeBytes: shard.data.length, path });
    if (!standing.durable) throw new Error('an upload that is not durable');
    if (shard.stage === 'staged') shard.stage = 'durable';
    shard.promised = true;
    this.ground.scheduler.trace(`${this.name} durable ${shard.hex.slice(0, 8)}`);
  }

  async #publish(process: SimProcess, network: ClientNetwork): Promise<void> {
    const { clock, luck } = process;
    let epoch = 0;
    let mustLook = false;
    network.on('connection', (connected) => {
      mustLook ||= connected;
    });
    while (process.alive) {
      await clock.sleep(luck.between(...this.#habits.pauseMs));
      try {
        if (mustLook) {
          const { head } = await network.readLog(1, 1, true);
          if (BigInt(head.seq) < this.#seq && this.#wasRestored(head)) {
            if (this.#handsIn) await this.#handIn(network, head.seq);
            else this.#rewind(head);
          }
          mustLook = false;
        }
        if (epoch === 0) {
          const lease = await network.acquireLease(true);
          if (!lease.held) continue;
          epoch = lease.epoch;
        }
        this.#pending ??= this.#entry(luck, epoch);
        const pending = this.#pending;
        if (!pending) continue;
        const head = await network.append(pending.entry);
        if (!Buffer.from(head.hash).equals(entryHash(pending.entry.header))) throw new Error('another head');
        this.#seq += 1n;
        this.#hashes.push(head.hash);
        this.#entries.push(pending.entry);
        this.#pending = undefined;
        for (const shard of pending.added) Object.assign(shard, { stage: 'published', addedSeq: this.#seq });
        for (const shard of pending.freed) Object.assign(shard, { gone: true, freedSeq: this.#seq });
        this.ground.scheduler.trace(`${this.name} entry ${this.#seq}`);
      } catch (error) {
        if (hasCode(error, 'LEASE_LOST')) {
          // The entry names the epoch: what it says comes again in another one.
          epoch = 0;
          for (const shard of this.#pending?.added ?? []) shard.stage = 'durable';
          this.#pending = undefined;
        } else if (hasCode(error, 'NO_MIRROR', 'NOT_FOUND')) {
          // Mirrors went between the upload and the entry: stored again, as a client does.
          for (const shard of this.#pending?.added ?? []) {
            shard.stage = 'staged';
            void this.#upload(network, shard);
          }
          this.#pending = undefined;
        } else if (hasCode(error, 'STALE_HEAD') && this.#bridge.restored) {
          mustLook = true;
        } else if (!hasCode(error, 'UNREACHABLE', 'TIMEOUT', 'EAGAIN', 'INTERNAL', 'ABORTED')) {
          this.complaints.push(`an entry was refused: ${asError(error).message}`);
          this.#pending = undefined;
          epoch = 0;
        }
      }
    }
  }

  /** Whether a bridge that has lost entries may have; nothing is done about one that may not. */
  #wasRestored({ seq, hash }: Head): boolean {
    if (this.#bridge.restored && Buffer.from(hash).equals(this.#hashes[seq]!)) return true;
    this.complaints.push(`the bridge is at entry ${seq} of ${this.#seq}`);
    return false;
  }

  /** Hands in again what the bridge has lost, as the mounted client does. */
  async #handIn(network: ClientNetwork, seq: number): Promise<void> {
    this.ground.scheduler.trace(`${this.name} hands in ${seq + 1} to ${this.#seq}`);
    for (const entry of this.#entries.slice(seq)) await network.append(entry, true);
  }

  /** Goes back to where the bridge is: what later entries said is said again, and what they named is stored again. */
  #rewind({ seq }: Head): void {
    this.ground.scheduler.trace(`${this.name} goes back from ${this.#seq} to ${seq}`);
    this.#seq = BigInt(seq);
    this.#hashes.length = seq + 1;
    this.#entries.length = seq;
    this.#pending = undefined;
    for (const shard of this.shards) {
      if (shard.freedSeq > this.#seq) Object.assign(shard, { gone: false, freedSeq: 0n });
      if (shard.addedSeq > this.#seq && shard.stage === 'published')
        Object.assign(shard, { stage: 'durable', addedSeq: 0n });
    }
  }

  #entry(luck: SimProcess['luck'], epoch: number): Pending | undefined {
    const added = this.shards.filter(({ stage }) => stage === 'durable');
    const published = this.shards.filter(({ stage }) => stage === 'published');
    const chosen = this.busy && luck.chance(0.3) ? published.filter(() => luck.chance(0.2)) : [];
    // From here on the bridge may have the entry, whatever it answers.
    for (const shard of chosen) shard.stage = 'freed';
    const freed = this.shards.filter(({ stage, gone }) => stage === 'freed' && !gone);
    if (added.length === 0 && freed.length === 0) return undefined;
    const body = Buffer.from(`entry ${this.#seq + 1n}`);
    const header = toBinary(
      EntryHeaderSchema,
      create(EntryHeaderSchema, {
        version: 1,
        seq: this.#seq + 1n,
        prevHash: this.#hashes[Number(this.#seq)]!,
        volume: publicKeyOf(this.#ownerSeed),
        device: this.peer,
        epoch: BigInt(epoch),
        bodyHash: createHash('sha256').update(body).digest(),
        bodySizeBytes: body.length,
        shardsAdded: added.map(({ id, data }) => ({ shardId: id, sizeBytes: data.length })),
        shardsFreed: freed.map(({ id }) => id),
      }),
    );
    return { entry: { header, signature: sign(this.#ownerSeed, 'xcore/entry/1', header), body }, added, freed };
  }

  async #read(process: SimProcess): Promise<void> {
    const { clock, luck } = process;
    while (process.alive) {
      await clock.sleep(2 * luck.between(...this.#habits.pauseMs));
      const shard = luck.pick(this.shards.filter(({ stage }) => stage === 'published'));
      if (!shard || !this.busy) continue;
      try {
        if (!(await this.reads1(shard)) && shard.stage !== 'freed') this.complaints.push(`${shard.hex} was read wrong`);
      } catch (error) {
        // Mirrors may all be out of reach for now.
        if (!(error instanceof XcoreError)) throw error;
      }
    }
  }
}

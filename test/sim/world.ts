// One simulated world: machines made from a seed, faults while it lasts, and what must be true at every moment and in
// the end.

import { BridgeMachine, HostMachine, pathOf } from './machines.ts';
import type { Deceit, Ground } from './machines.ts';
import { ClientMachine } from './client.ts';
import type { Habits, OwnedShard } from './client.ts';
import { DeviceMachine } from './device.ts';
import type { Keeping, Owner } from './device.ts';
import { History } from './history.ts';
import { Luck } from './luck.ts';
import { SimNetwork } from './network.ts';
import { Scheduler } from './scheduler.ts';
import type { BridgeOptions } from '../../src/bridge/options.ts';
import type { VolumeKeys } from '../../src/crypto/keys.ts';

/** Mirrors that each shard is to have in the end. */
export const WANTED = 3;
const DAY_MS = 24 * 60 * 60 * 1_000;

/** Times short enough that a few minutes hold a host's whole life. */
const BRIDGE_OPTIONS: Partial<BridgeOptions> = {
  heartbeatMs: 4_000,
  repairAfterMs: 20_000,
  repairRetryMs: 10_000,
  maxRepairRetryMs: 40_000,
  auditsPerDay: DAY_MS / 8_000,
  verifiedPerRound: 4,
  inventoryMs: 30_000,
  strayAfterMs: 40_000,
  storeOrderMs: 40_000,
  retrieveOrderMs: 40_000,
  deleteOrderMs: 20_000,
  confirmGraceMs: 20_000,
};

/** Days of a real bridge: as long to the time of a backup as those are to hours. */
const PATIENT_MS = 300_000;

/** What a world is made of. */
export interface WorldOptions {
  readonly hosts: number;
  /** How so many of the hosts deceive. */
  readonly deceits: readonly Deceit[];
  readonly clients: number;
  readonly habits: Habits;
  /** Whether its bridge will be restored from a backup, and has to be patient with what it does not know. */
  readonly restores: boolean;
  /** Devices that have the same volume mounted, and how. */
  readonly devices?: number;
  readonly keeping?: Keeping;
  /** Whether their files may be longer than a shard. */
  readonly hasLargeFiles?: boolean;
  /** Of that volume. */
  readonly keys?: VolumeKeys;
  readonly bridge?: Partial<BridgeOptions>;
}

/** One world. */
export class World {
  readonly scheduler = new Scheduler();
  readonly luck: Luck;
  readonly network: SimNetwork;
  readonly bridge: BridgeMachine;
  readonly hosts: HostMachine[];
  readonly clients: ClientMachine[];
  readonly devices: DeviceMachine[] = [];
  readonly owner: Owner | undefined;
  readonly complaints: string[] = [];
  readonly #ground: Ground;
  readonly #keeping: Keeping;

  constructor(seed: string, options: WorldOptions) {
    this.luck = new Luck(seed);
    this.network = new SimNetwork(this.scheduler, this.luck.fork('network'));
    const ground: Ground = { scheduler: this.scheduler, network: this.network, luck: this.luck };
    this.bridge = new BridgeMachine(ground, {
      ...BRIDGE_OPTIONS,
      ...(options.restores && { strayAfterMs: PATIENT_MS }),
      ...options.bridge,
    });
    this.hosts = Array.from(
      { length: options.hosts },
      (_, number) => new HostMachine(ground, number, this.bridge, options.deceits[number]),
    );
    this.clients = Array.from(
      { length: options.clients },
      (_, number) => new ClientMachine(ground, number, this.bridge, options.habits),
    );
    this.#ground = ground;
    this.#keeping = options.keeping ?? { cacheBytes: 100_000_000 };
    if (options.keys) {
      const history = new History((line) => this.scheduler.trace(line));
      this.owner = {
        ...{ keys: options.keys, history, shards: new Map(), entries: new Map() },
        hasLargeFiles: options.hasLargeFiles ?? false,
        onFork: (seq) => this.#forked(seq),
      };
    }
    for (let number = options.devices ?? 0; number > 0; number -= 1) this.addDevice();
    for (const host of this.hosts) {
      host.disk.onUnlink = (path, content) => this.#removed(host, path, content);
    }
  }

  /** One more device of the owner; it is to be started. */
  addDevice(): DeviceMachine {
    const device = new DeviceMachine(this.#ground, this.devices.length, this.bridge, this.owner!, this.#keeping);
    this.devices.push(device);
    return device;
  }

  get machines(): (BridgeMachine | HostMachine | ClientMachine | DeviceMachine)[] {
    return [this.bridge, ...this.hosts, ...this.clients, ...this.devices];
  }

  /** Shards of all owners. */
  get shards(): OwnedShard[] {
    return [...this.clients.flatMap(({ shards }) => shards), ...(this.owner?.shards.values() ?? [])];
  }

  start(): void {
    for (const machine of this.machines) machine.start();
  }

  /** Hosts whose disk has the shard, byte for byte. */
  holders(shard: OwnedShard): HostMachine[] {
    return this.hosts.filter((host) => host.shard(shard.hex)?.equals(shard.data) === true);
  }

  /** The honest ones of them. */
  honest(shard: OwnedShard): HostMachine[] {
    return this.holders(shard).filter(({ deceit }) => deceit === undefined);
  }

  /** What is still to be done until every shard has its mirrors and the freed ones are gone; empty when nothing is. */
  unfinished(): string[] {
    const missing: string[] = [];
    for (const shard of this.shards) {
      const name = `${shard.hex.slice(0, 8)} (${shard.stage})`;
      const holders = this.holders(shard);
      if (shard.stage === 'staged' || shard.stage === 'durable') {
        if (shard.mayDie !== true) missing.push(`${name} is not published`);
      } else if (shard.stage === 'published' && holders.length < WANTED)
        missing.push(`${name} has ${holders.length} mirrors: ${holders.map((host) => host.name).join(', ')}`);
      else if (shard.stage === 'freed' && !shard.gone) missing.push(`${name} is not freed yet`);
      else if (
        shard.stage === 'freed' &&
        this.hosts.some((host) => !host.deceit && host.shard(shard.hex) !== undefined)
      )
        missing.push(`${name} is still there`);
    }
    for (const host of this.hosts) {
      if (host.leaving && host.shards().size > 0) missing.push(`${host.name} leaves and holds ${host.shards().size}`);
    }
    return missing;
  }

  /** Every durable shard is on an honest disk. */
  check(): void {
    for (const shard of this.shards) {
      if (!shard.promised || shard.stage === 'freed' || shard.doomed === true) continue;
      if (this.honest(shard).length === 0) this.#complain(`${shard.hex.slice(0, 8)} (${shard.stage}) is lost`);
    }
  }

  // What the lost entries named nobody owes any more, nor what they freed, which may be gone or still be named.
  #forked(seq: bigint): void {
    this.owner!.history.fork(seq);
    for (const shard of this.owner!.shards.values()) {
      if (shard.addedSeq < seq && shard.freedSeq < seq) continue;
      Object.assign(shard, { stage: 'staged', mayDie: true, doomed: true });
    }
  }

  /** All that went wrong. */
  verdict(): string[] {
    const mounted = this.owner?.history.complaints ?? [];
    return [...this.complaints, ...this.clients.flatMap(({ complaints }) => complaints), ...mounted];
  }

  #removed(host: HostMachine, path: string, content: Buffer): void {
    const shard = this.shards.find(({ hex }) => pathOf(hex) === path);
    if (shard) this.scheduler.trace(`${host.name} deletes ${shard.hex.slice(0, 8)}`);
    if (!shard?.promised || shard.stage === 'freed' || shard.doomed === true) return;
    if (host.deceit || !content.equals(shard.data)) return;
    if (this.honest(shard).length === 0)
      this.#complain(`${host.name} deleted the last good mirror of ${shard.hex.slice(0, 8)}`);
  }

  #complain(what: string): void {
    if (this.complaints.length < 20) this.complaints.push(`${(this.scheduler.nowMs / 1_000).toFixed(1)} s: ${what}`);
  }
}

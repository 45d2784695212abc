// What goes wrong in a simulated world: networks that are cut and slow, connections that break, processes that end
// between any two of their steps, power that fails, disks that fail, and rot. Nothing here takes the last good mirror
// of a shard: that is for the code under test not to do.

import type { Luck } from './luck.ts';
import type { HostMachine } from './machines.ts';
import { pathOf } from './machines.ts';
import { WANTED } from './world.ts';
import type { World } from './world.ts';

/** Honest mirrors that rot and forgetting leave. */
const LEAST_LEFT = 2;

const RESUME_MS = [2_000, 10_000, 30_000];
const LEAF_BYTES = 16_384;
/** Mirrors of one host that rot or are forgotten, in all: one with more of them is rightly disqualified. */
const MAX_ROT_OF_A_HOST = 3;

/** Earliest and latest time of the backup of a bridge that is restored. */
const BACKUP_MS = [5_000, 45_000] as const;

/** How much goes wrong. */
export interface FaultOptions {
  /** Whether the bridge is restored from a backup once. */
  readonly restores: boolean;
  /** Mean time between two faults. */
  readonly everyMs: number;
  /** When the last one begins. */
  readonly untilMs: number;
}

type Machine = World['machines'][number];

/** The faults of one world. */
export class Faults {
  readonly #world: World;
  readonly #luck: Luck;
  readonly #options: FaultOptions;
  /** What makes good again what is wrong now. */
  readonly #repairs = new Set<() => void>();
  readonly #rotten = new Map<HostMachine, number>();
  #ended = false;
  readonly counts = new Map<string, number>();

  constructor(world: World, options: FaultOptions) {
    this.#world = world;
    this.#luck = world.luck.fork('faults');
    this.#options = options;
  }

  start(): void {
    if (this.#options.restores) this.#restoreOnce();
    this.#next();
  }

  #next(): void {
    this.#later(this.#luck.between(0, 2 * this.#options.everyMs), () => {
      if (this.#ended || this.#world.scheduler.nowMs > this.#options.untilMs) return;
      this.#one();
      this.#next();
    });
  }

  /** Makes all good again: whole networks and disks, machines that are up. */
  end(): void {
    this.#ended = true;
    for (const repair of this.#repairs) repair();
    for (const machine of this.#world.machines) {
      machine.process?.crashIn(Infinity, () => {});
      machine.start();
    }
    // An owner whose call was lost calls again.
    for (const ms of RESUME_MS) this.#later(ms, () => this.#world.hosts.forEach((host) => host.tell('resume')));
  }

  #one(): void {
    const luck = this.#luck;
    const { machines, hosts, bridge, devices } = this.#world;
    const machine = luck.pick(machines)!;
    const kinds: [number, string, () => void][] = [
      [3, 'cut', () => this.#cut(machine, luck.pick(machines)!)],
      [1, 'isolate', () => this.#isolate(machine)],
      [4, 'crash', () => this.#crash(machine)],
      [1, 'crash of the bridge', () => this.#crash(bridge)],
      [3, 'break', () => this.#break()],
      [2, 'failing disk', () => this.#failingDisk(luck.chance(0.25) ? bridge : luck.pick([...hosts, ...devices])!)],
      [2, 'rot', () => this.#rot(luck.pick(hosts)!)],
      [1, 'slow', () => this.#slow(machine)],
      [0.5, 'pause', () => this.#pause(luck.pick(hosts)!)],
      [0.5, 'verify', () => luck.pick(hosts)!.tell('verify')],
      [0.3, 'exit', () => this.#exit(luck.pick(hosts)!)],
      ...(devices.length > 0
        ? ([
            [6, 'crash of a device', () => this.#crash(luck.pick(devices)!)],
            [1, 'unmount', () => this.#unmount(luck.pick(devices)!)],
          ] as [number, string, () => void][])
        : []),
    ];
    let draw = luck.next() * kinds.reduce((sum, [weight]) => sum + weight, 0);
    const [, name, begin] = kinds.find(([weight]) => (draw -= weight) < 0)!;
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#world.scheduler.trace(`fault: ${name}`);
    begin();
  }

  #cut(a: Machine, b: Machine): void {
    if (a === b) return;
    this.#until(this.#luck.between(500, 40_000), this.#world.network.cut(a.peer, b.peer));
  }

  #isolate(machine: Machine): void {
    const others = this.#world.machines.filter((other) => other !== machine);
    const joins = others.map((other) => this.#world.network.cut(machine.peer, other.peer));
    this.#until(this.#luck.between(500, 40_000), () => {
      for (const join of joins) join();
    });
  }

  #crash(machine: Machine): void {
    const luck = this.#luck;
    const losesPower = luck.chance(0.5);
    const awayMs = luck.chance(0.3) ? luck.between(20_000, 60_000) : luck.between(50, 8_000);
    const crash = (): void => {
      machine.crash(losesPower);
      this.#until(awayMs, () => machine.start());
    };
    if (luck.chance(0.3)) crash();
    else machine.process?.crashIn(1 + luck.below(60), crash);
  }

  #break(): void {
    const connection = this.#luck.pick(this.#world.network.connections);
    connection?.breakAt(connection.ends[this.#luck.below(2)]!, 'a fault');
  }

  #restoreOnce(): void {
    const luck = this.#world.luck.fork('backup');
    const { bridge, scheduler } = this.#world;
    this.#later(luck.between(...BACKUP_MS), () => {
      const copy = bridge.storage.copy();
      this.#later(luck.between(1_000, this.#options.untilMs - scheduler.nowMs), () => {
        bridge.restore(copy);
        this.#until(luck.between(100, 10_000), () => bridge.start());
      });
    });
  }

  #failingDisk(machine: Machine): void {
    const probability = this.#luck.between(0.05, 0.6);
    machine.disk.faults = probability;
    machine.storage.faults = probability;
    this.#until(this.#luck.between(200, 8_000), () => {
      machine.disk.faults = 0;
      machine.storage.faults = 0;
    });
  }

  #rot(host: HostMachine): void {
    const luck = this.#luck;
    for (let times = 1 + luck.below(3); times > 0; times -= 1) {
      const before = this.#rotten.get(host) ?? 0;
      if (before >= MAX_ROT_OF_A_HOST && !host.deceit) return;
      const shard = luck.pick(this.#world.shards.filter((candidate) => this.#world.holders(candidate).includes(host)));
      if (!shard || (!host.deceit && this.#world.honest(shard).length <= LEAST_LEFT)) continue;
      this.#rotten.set(host, before + 1);
      const rotten = Buffer.from(shard.data);
      // In each leaf: one of many would be found by an audit only after long.
      for (let at = luck.below(Math.min(rotten.length, LEAF_BYTES)); at < rotten.length; at += LEAF_BYTES) {
        rotten[at] = rotten[at]! ^ 1;
      }
      host.disk.meddle(pathOf(shard.hex), luck.chance(0.5) ? rotten : null);
      this.#world.scheduler.trace(`${host.name} rots ${shard.hex.slice(0, 8)}`);
    }
  }

  #pause(host: HostMachine): void {
    host.tell('pause');
    this.#until(this.#luck.between(2_000, 20_000), () => host.tell('resume'));
  }

  /** As many honest hosts stay as a shard has mirrors. */
  #exit(host: HostMachine): void {
    const honest = this.#world.hosts.filter(({ deceit }) => deceit === undefined);
    if (host.deceit === undefined && honest.length > WANTED && !honest.some(({ leaving }) => leaving))
      host.tell('exit');
  }

  #unmount(device: World['devices'][number]): void {
    const back = (): void => this.#until(this.#luck.between(50, 20_000), () => device.start());
    device.unmount().then(back, () => {
      // the disk fails, or the network: nothing is promised then
      device.crash(false);
      back();
    });
  }

  #slow(machine: Machine): void {
    const { node } = machine;
    if (!node) return;
    node.slowness = this.#luck.between(5, 200);
    this.#until(this.#luck.between(1_000, 20_000), () => {
      node.slowness = 1;
    });
  }

  /** Makes something good again after a while, or when all faults end. */
  #until(ms: number, repair: () => void): void {
    const once = (): void => {
      if (this.#repairs.delete(once)) repair();
    };
    this.#repairs.add(once);
    this.#later(ms, once);
  }

  #later(ms: number, run: () => void): void {
    this.#world.scheduler.after(ms, run);
  }
}

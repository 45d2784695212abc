// The machines of a simulated world: what lies on their disks, and the processes that come and go on them. The code
// that runs there is the real one.

import type { BridgeOptions } from '../../src/bridge/options.ts';
import { BRIDGE_DEFAULTS } from '../../src/bridge/options.ts';
import { runBridge } from '../../src/bridge/run-bridge.ts';
import type { HostHandlers } from '../../src/host/control.ts';
import { Intent } from '../../src/host/intent.ts';
import { HOST_DEFAULTS } from '../../src/host/options.ts';
import { runHost } from '../../src/host/run-host.ts';
import { silentLogger } from '../../src/lib/log.ts';
import { peerNameOf } from '../../src/net/peer-name.ts';
import { SimDisk } from './disk.ts';
import { openFileSystem } from './file-system.ts';
import { lyingNode } from './liar.ts';
import type { Luck } from './luck.ts';
import type { SimNetwork, SimNode } from './network.ts';
import { SimProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';
import { SimStorage } from './store.ts';

const HOST_BYTES = 500_000_000;
/** Two machines are at most two hours apart. */
const MAX_SKEW_MS = 55 * 60_000;
const USUAL_SKEW_MS = 20_000;

/** What the machines of a world share. */
export interface Ground {
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly luck: Luck;
}

/** A machine on which one process runs at a time. */
export abstract class Machine {
  readonly name: string;
  readonly seed: Buffer;
  readonly peer: string;
  readonly ip: string;
  readonly disk = new SimDisk();
  readonly storage = new SimStorage();
  readonly luck: Luck;
  protected readonly ground: Ground;
  readonly #skewMs: number;
  process: SimProcess | undefined;
  node: SimNode | undefined;
  starts = 0;
  readonly #processes: SimProcess[] = [];

  constructor(ground: Ground, name: string, ip: string) {
    this.ground = ground;
    this.name = name;
    this.ip = ip;
    this.luck = ground.luck.fork(name);
    this.seed = this.luck.bytes(32);
    this.peer = peerNameOf(this.seed);
    const mostMs = this.luck.chance(0.3) ? MAX_SKEW_MS : USUAL_SKEW_MS;
    this.#skewMs = this.luck.between(-mostMs, mostMs);
  }

  get up(): boolean {
    return this.process?.alive === true;
  }

  /** Multiaddr with /p2p/ id. */
  get address(): string {
    return `/ip4/${this.ip}/tcp/4001/p2p/${this.peer}`;
  }

  /** Starts the machine's process, again after it failed to start. */
  start(): void {
    if (this.up) return;
    const { scheduler, network } = this.ground;
    this.starts += 1;
    const process = new SimProcess(this.name, scheduler, this.luck.fork(`start ${this.starts}`), this.#skewMs);
    this.process = process;
    this.#processes.push(process);
    this.node = network.join(process, this.peer, this.ip);
    scheduler.trace(`${this.name} starts`);
    this.run(process, this.node).catch((error: unknown) => {
      if (!process.alive) return;
      scheduler.trace(`${this.name} does not start`);
      this.failed(error);
      process.die();
      scheduler.after(1_000, () => this.start());
    });
  }

  /** Ends the process at once. Without power, what was not synced is lost as well. */
  crash(losesPower: boolean): void {
    if (!this.up) return;
    this.ground.scheduler.trace(`${this.name} crashes ${losesPower}`);
    this.process?.die();
    if (!losesPower) return;
    this.disk.losePower(this.luck);
    this.storage.losePower(this.luck);
  }

  /** The world is over. */
  bury(): void {
    for (const process of this.#processes) process.bury();
  }

  /** Why the process could not start; unless told otherwise a disk that fails is to blame. */
  protected failed(_error: unknown): void {
    return;
  }

  protected abstract run(process: SimProcess, node: SimNode): Promise<void>;
}

/** The bridge. */
export class BridgeMachine extends Machine {
  readonly options: BridgeOptions;
  /** Whether its store was ever replaced by an older copy. */
  restored = false;

  constructor(ground: Ground, options: Partial<BridgeOptions>) {
    super(ground, 'bridge', '10.0.0.1');
    this.options = { ...BRIDGE_DEFAULTS, ...options };
  }

  /** Ends it as a loss of its disk does, with a copy of its store on the new one. */
  restore(copy: SimStorage): void {
    this.crash(false);
    this.storage.restore(copy);
    this.restored = true;
    this.ground.scheduler.trace('bridge is restored');
  }

  protected async run(process: SimProcess, node: SimNode): Promise<void> {
    const { clock, luck } = process;
    const store = this.storage.openFor(process);
    const { seed } = this;
    await runBridge(
      { store, node, seed, clock, random: luck.next, randomBytes: luck.bytes, log: silentLogger },
      this.options,
    );
  }
}

/** How a host deceives: with what it says, or with a disk that forgets and shows other bytes. */
export type Deceit = 'lies' | 'bad disk';

/** A host. */
export class HostMachine extends Machine {
  /** Absent for an honest one. */
  readonly deceit: Deceit | undefined;
  /** Whether its owner has told it to leave. */
  leaving = false;
  #handlers: HostHandlers | undefined;
  readonly #bridge: Machine;

  constructor(ground: Ground, number: number, bridge: Machine, deceit?: Deceit) {
    super(ground, `host${number}`, `10.1.${number}.1`);
    this.#bridge = bridge;
    this.deceit = deceit;
    if (deceit === 'bad disk') {
      const share = this.luck.between(0.1, 1);
      this.disk.lie = (content) => (this.luck.chance(share) ? this.luck.content(content.length) : content);
    }
    this.disk.make('/host');
  }

  protected async run(process: SimProcess, node: SimNode): Promise<void> {
    const { clock, luck } = process;
    const fs = openFileSystem(this.disk, process);
    const intent = await Intent.open('/host', fs);
    const { seed } = this;
    const said = this.deceit === 'lies' ? lyingNode(node, process, seed, luck.between(0.1, 1)) : node;
    const host = await runHost(
      {
        fs,
        serials: this.storage.openFor(process),
        intent,
        node: said,
        seed,
        clock,
        random: luck.next,
        randomBytes: luck.bytes,
        log: silentLogger,
      },
      { dir: '/host', bridge: this.#bridge.address, capacityBytes: HOST_BYTES },
      { ...HOST_DEFAULTS, floorBytes: 0 },
    );
    this.#handlers = host.handlers;
    await host.start();
  }

  /** Its owner calls; nothing comes of it where the process ends before it answers. */
  tell(what: 'pause' | 'resume' | 'exit' | 'verify'): void {
    const handlers = this.up ? this.#handlers : undefined;
    if (!handlers) return;
    const context = { progress: () => {}, signal: new AbortController().signal };
    const told = what === 'exit' ? handlers.exit({ wait: false }, context) : handlers[what]({}, context);
    // A disk that fails is told to the owner.
    Promise.resolve(told).then(
      () => (this.leaving ||= what === 'exit'),
      () => {},
    );
  }

  /** What it holds, by id in hex. */
  shards(): Map<string, Buffer> {
    const found = new Map<string, Buffer>();
    for (const [path, data] of this.disk.files('/host/shards')) found.set(path.slice(-64), data);
    return found;
  }

  /** The content of one shard, if it holds it. */
  shard(id: string): Buffer | undefined {
    const file = this.disk.find(pathOf(id));
    return file?.kind === 'file' ? file.data : undefined;
  }
}

/** Where a host keeps a shard. */
export function pathOf(id: string): string {
  return `/host/shards/${id.slice(0, 2)}/${id}`;
}

// A whole network as separate processes, on loopback or on machines of their own: one bridge, some hosts, any number of clients.

import type { ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Client, isAlive } from './client.ts';
import { reservePort } from './ports.ts';
import { Run, until, XCORE } from './run.ts';
import type { Scope } from './run.ts';
import type { Machine } from './weather.ts';

const READY_MS = 120_000;
const STOP_MS = 60_000;

/** A bridge or a host: one process, one folder, one address that stays the same over restarts. */
export class Server {
  readonly name: string;
  readonly dir: string;
  readonly #run: Run;
  readonly #args: readonly string[];
  readonly #machine: Machine | undefined;
  #child: ChildProcess | undefined;
  #address = '';

  /** `args` is the command without --dir and --listen; on loopback without a `machine`. */
  constructor(run: Run, name: string, args: readonly string[], machine?: Machine) {
    this.#machine = machine;
    this.#run = run;
    this.name = name;
    this.dir = join(run.dir, name);
    this.#args = args;
    mkdirSync(this.dir, { mode: 0o700 });
  }

  /** Multiaddr with the peer id. */
  get address(): string {
    return this.#address;
  }

  get peer(): string {
    return this.#address.split('/p2p/')[1] ?? '';
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts the process and waits for the line with its address. */
  async start(): Promise<void> {
    const listen = this.#address === '' ? this.#firstAddress() : (this.#address.split('/p2p/')[0] ?? '');
    const child = this.#run.spawn(this.name, [XCORE, ...this.#args, '--dir', this.dir, '--listen', listen], {
      env: { XCORE_HOME: join(this.#run.dir, `${this.name}-home`) },
      namespace: this.#machine?.namespace,
    });
    this.#child = child;
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
    this.#address = await until(
      `${this.name} to print its multiaddr`,
      () => {
        if (child.exitCode !== null) throw new Error(`${this.name} ended with ${child.exitCode}: ${output}`);
        return /(\/ip4\/\S+\/p2p\/\w+)\s/.exec(output)?.[1];
      },
      READY_MS,
    );
  }

  #firstAddress(): string {
    if (this.#machine !== undefined) return `/ip4/${this.#machine.ip}/tcp/0`;
    return `/ip4/127.0.0.1/tcp/${reservePort()}`;
  }

  /** Ends the process as a user would, with SIGTERM. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** kill -9. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Starts anew on an empty disk, as another peer at the same address. */
  async replace(): Promise<void> {
    await this.stop();
    rmSync(this.dir, { recursive: true });
    mkdirSync(this.dir, { mode: 0o700 });
    await this.start();
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const pid = this.pid;
    if (pid === 0 || !isAlive(pid)) return;
    process.kill(pid, signal);
    await until(`${this.name} to end on ${signal}`, () => !isAlive(pid), STOP_MS);
  }
}

/** The processes of one test. */
export interface TestNetwork {
  readonly run: Run;
  readonly bridge: Server;
  readonly hosts: readonly Server[];
  /** A user of this network with a home of their own, not initialised. */
  client(name: string, machine?: Machine): Client;
  /** A user with a fresh identity. */
  newClient(name: string, machine?: Machine): Promise<Client>;
  /** A second machine of a user: the same words, an empty home. */
  recovered(name: string, words: string, machine?: Machine): Promise<Client>;
}

/** Starts a bridge, with arguments of its own, and `hosts` hosts, of `space` each; ends with the test `t`. `place` says on
 * which machine a server is to be, by its name: bridge, host1, host2 and so on. */
export async function withNetwork(
  t: Scope,
  options: { hosts: number; space?: string; bridge?: readonly string[]; run?: Run; place?: (name: string) => Machine },
): Promise<TestNetwork> {
  const run = options.run ?? new Run(t);
  const { place } = options;
  const bridge = new Server(run, 'bridge', ['bridge', ...(options.bridge ?? [])], place?.('bridge'));
  await bridge.start();
  const hosts: Server[] = [];
  for (let n = 1; n <= options.hosts; n++) {
    const args = ['serve', '--bridge', bridge.address, '--space', options.space ?? '20GB'];
    hosts.push(new Server(run, `host${n}`, args, place?.(`host${n}`)));
  }
  await Promise.all(hosts.map((host) => host.start()));
  return {
    run,
    bridge,
    hosts,
    client: (name, machine) => new Client(run, name, machine),
    newClient: async (name, machine) => {
      const client = new Client(run, name, machine);
      await client.init(bridge.address);
      return client;
    },
    recovered: async (name, words, machine) => {
      const client = new Client(run, name, machine);
      await client.recover(words, bridge.address);
      return client;
    },
  };
}

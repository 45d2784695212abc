// Machines of a test: network namespaces with an address in a network of their own each, between them a line with a
// rate (tc tbf), a delay and a loss (forwarder.ts). Root's, on Linux.

import { spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Interface } from 'node:readline';
import { DEVICE } from './forwarder.ts';
import type { ForwarderOptions } from './forwarder.ts';
import { NAMESPACES } from './cleanup.ts';
import { ROOT } from './run.ts';
import type { Run, Scope } from './run.ts';

/** Large packets: the forwarder's work is by packet. */
const MTU_BYTES = 9_000;

/** What every machine's line is like. */
export interface Line {
  /** Upwards, in Mbit/s. */
  readonly mbit: number;
  /** One way between two machines. */
  readonly delayMs: number;
  /** Share of packets lost, in [0, 1). */
  readonly loss: number;
}

/** Where a process runs. */
export interface Machine {
  /** Name of its network namespace. */
  readonly namespace: string;
  readonly ip: string;
}

/** Why there can be no machines here; undefined when there can. */
export function missingForWeather(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root can make network namespaces';
  for (const tool of ['ip', 'tc', 'nsenter']) {
    if (spawnSync(tool, ['-V']).error) return `${tool} is not installed`;
  }
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    return 'there is no /dev/net/tun';
  }
  const name = `xc-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'del', name]);
  return made.status === 0 ? undefined : `no network namespaces: ${made.stderr.trim()}`;
}

/** The machines of one run; they end with it. */
export class Weather {
  readonly #forwarder: ChildProcess;
  readonly #answers: Interface;
  readonly #names: ReadonlyMap<number, string>;
  readonly #cut = new Set<number>();

  private constructor(forwarder: ChildProcess, names: ReadonlyMap<number, string>) {
    this.#forwarder = forwarder;
    this.#names = names;
    this.#answers = createInterface({ input: forwarder.stdout! });
  }

  /** Makes a machine for each number, 1 to 254. */
  static async start(t: Scope, run: Run, numbers: readonly number[], line: Line): Promise<Weather> {
    const names = new Map(numbers.map((number) => [number, `${basename(run.dir)}-${number}`]));
    await Promise.all([...names.values()].map((name) => run.must('ip', ['netns', 'add', name])));
    const options: ForwarderOptions = {
      machines: [...names].map(([number, name]) => ({ number, namespace: join(NAMESPACES, name) })),
      delayMs: line.delayMs,
      loss: line.loss,
    };
    const script = join(ROOT, 'test/support/forwarder.ts');
    // Each device has a read of its own that waits in a thread.
    const env = { UV_THREADPOOL_SIZE: String(numbers.length + 4) };
    const forwarder = run.spawn('forwarder', [script, JSON.stringify(options)], { env, input: 'pipe' });
    const weather = new Weather(forwarder, names);
    await weather.#answer();
    await Promise.all([...names].map(([number, name]) => configure(t, run, name, addressOf(number), line)));
    return weather;
  }

  machine(number: number): Machine {
    return { namespace: this.#names.get(number)!, ip: addressOf(number) };
  }

  /** From now on no packet reaches or leaves this machine. */
  async cutOff(number: number): Promise<void> {
    await this.#say(this.#cut.add(number));
  }

  /** Ends that. */
  async rejoin(number: number): Promise<void> {
    this.#cut.delete(number);
    await this.#say(this.#cut);
  }

  async #say(cut: ReadonlySet<number>): Promise<void> {
    this.#forwarder.stdin!.write(`${JSON.stringify({ cut: [...cut] })}\n`);
    await this.#answer();
  }

  async #answer(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const failed = (): void => reject(new Error('the forwarder has ended; see forwarder.log'));
      this.#answers.once('close', failed);
      this.#answers.once('line', () => {
        this.#answers.off('close', failed);
        resolve();
      });
    });
  }
}

async function configure(t: Scope, run: Run, namespace: string, ip: string, { mbit }: Line): Promise<void> {
  const up = [
    'link set lo up',
    `addr add ${ip}/24 dev ${DEVICE}`,
    `link set ${DEVICE} mtu ${MTU_BYTES} up`,
    `route add default dev ${DEVICE}`,
  ];
  await run.must('ip', ['-batch', '-'], { namespace, input: up.map((line) => `${line}\n`).join('') });
  const shape = `qdisc add dev ${DEVICE} root tbf rate ${mbit}mbit burst 256kb latency 300ms`;
  const { code, stderr } = await run.exec('tc', shape.split(' '), { namespace });
  if (code !== 0) t.comment(`${ip} has no rate limit: ${stderr.trim()}`);
}

function addressOf(number: number): string {
  return `10.77.${number}.2`;
}

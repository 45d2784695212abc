// The command line as a user of one $XCORE_HOME types it.

import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { MountStatus } from '../../src/client/control-api.ts';
import { DRIVER } from './driver.ts';
import { until, XCORE } from './run.ts';
import type { Result, Run, RunOptions } from './run.ts';
import type { Machine } from './weather.ts';

/** What `xcore status --json` prints. */
export interface StatusOutput {
  readonly home: string;
  readonly mounts: readonly MountStatus[];
}

/** Whether a process lives, with any of its threads: a zombie whose last thread has ended does not, and holds no file or lock. */
export function isAlive(pid: number): boolean {
  const lives = (thread: string): boolean => {
    try {
      return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'));
    } catch {
      return false;
    }
  };
  try {
    return readdirSync(`/proc/${pid}/task`).some(lives);
  } catch {
    return false;
  }
}

/** One user with one home. */
export class Client {
  readonly run: Run;
  readonly home: string;
  readonly mountPoint: string;
  readonly #namespace: string | undefined;

  /** The home is `<dir>/<name>`, not made yet; the mount point `<dir>/mnt-<name>`, an empty folder; `machine` is this one unless told. */
  constructor(run: Run, name: string, machine?: Machine) {
    this.#namespace = machine?.namespace;
    this.run = run;
    this.home = join(run.dir, name);
    this.mountPoint = join(run.dir, `mnt-${name}`);
    if (!existsSync(this.mountPoint)) mkdirSync(this.mountPoint);
  }

  /** Runs one command, 60 s unless told. */
  async xcore(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const env = { XCORE_HOME: this.home, ...options.env };
    const namespace = this.#namespace;
    return await this.run.exec(process.execPath, [XCORE, ...args], { ...options, env, namespace });
  }

  /** Runs one command that must succeed; its standard output. */
  async must(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const result = await this.xcore(args, options);
    if (result.code !== 0)
      throw new Error(`xcore ${args.join(' ')}: code ${result.code}\n${result.stdout}${result.stderr}`);
    return result.stdout;
  }

  /** A fresh identity on `bridge`; without one, on the embedded network. */
  async init(bridge?: string): Promise<void> {
    await this.must(['init', ...(bridge ? ['--bridge', bridge] : [])]);
  }

  /** The identity of 24 words. */
  async recover(words: string, bridge?: string): Promise<void> {
    await this.must(['init', '--recover', ...(bridge ? ['--bridge', bridge] : [])], { input: `${words}\n` });
  }

  /** The 24 words. */
  async phrase(): Promise<string> {
    return (await this.must(['phrase'])).trim();
  }

  /** Mounts on the client's mount point and returns it. */
  async mount(...options: string[]): Promise<string> {
    await this.must(['mount', this.mountPoint, '--driver', DRIVER, ...options], { timeoutMs: 120_000 });
    return this.mountPoint;
  }

  /** Unmounts, waiting until all is durable. */
  async umount(...options: string[]): Promise<void> {
    await this.must(['umount', this.mountPoint, ...options], { timeoutMs: 600_000 });
  }

  /** Returns when all written so far is durable. */
  async flush(): Promise<void> {
    await this.must(['flush', this.mountPoint], { timeoutMs: 600_000 });
  }

  /** State of the client's mount; undefined when it has none. */
  async findMount(): Promise<MountStatus | undefined> {
    const result = await this.xcore(['status', '--json']);
    if (result.stdout.trim() === '') return undefined;
    const status = JSON.parse(result.stdout) as StatusOutput;
    return status.mounts.find((mount) => mount.mountPoint === this.mountPoint);
  }

  /** State of the client's mount, which must be there. */
  async status(): Promise<MountStatus> {
    const status = await this.findMount();
    if (!status) throw new Error(`${this.mountPoint} is not in the status of ${this.home}`);
    return status;
  }

  /** The first state of the mount that `check` accepts. */
  async untilStatus(what: string, check: (status: MountStatus) => boolean, timeoutMs?: number): Promise<MountStatus> {
    return await until(
      what,
      async () => {
        const status = await this.findMount();
        return status && check(status) ? status : undefined;
      },
      timeoutMs,
    );
  }

  /** Id of the process that serves the mount. */
  async daemonPid(): Promise<number> {
    return (await this.status()).pid;
  }

  /** kill -9 for the process that serves the mount; returns when it is gone. */
  async kill(pid?: number): Promise<void> {
    const daemon = pid ?? (await this.daemonPid());
    process.kill(daemon, 'SIGKILL');
    await until('the daemon to die', () => !isAlive(daemon));
  }
}

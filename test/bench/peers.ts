// Other filesystems to compare with, from Debian's packages, each in its usual configuration:
// libfuse's own pass-through example, gocryptfs, sshfs, and rclone (crypt over sftp, full VFS cache).

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { until } from '../support/run.ts';
import type { Run } from '../support/run.ts';
import type { Target } from './target.ts';

const PASSTHROUGH_SOURCE = '/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c';
const PASSWORD = 'only for measuring';
const FINISH_MS = 600_000;

/** What each peer needs from Debian. */
export const PEER_PACKAGES: Readonly<Record<string, readonly string[]>> = {
  'pass-through': ['libfuse3-dev', 'gcc', 'pkg-config'],
  gocryptfs: ['gocryptfs'],
  sshfs: ['sshfs', 'openssh-server'],
  rclone: ['rclone', 'openssh-server'],
};

/** Starts and ends the daemons of one benchmark. */
export class Peers {
  readonly #run: Run;
  readonly #daemons: ChildProcess[] = [];
  #sshd: Promise<SftpServer> | undefined;

  constructor(run: Run) {
    this.#run = run;
  }

  /** A peer by its name in PEER_PACKAGES; undefined when its programs are not installed. */
  async start(name: string): Promise<Target | undefined> {
    switch (name) {
      case 'pass-through':
        return existsSync(PASSTHROUGH_SOURCE) && (await this.#has('gcc')) ? await this.#passthrough() : undefined;
      case 'gocryptfs':
        return (await this.#has('gocryptfs')) ? await this.#gocryptfs() : undefined;
      case 'sshfs':
        return (await this.#has('sshfs')) && existsSync('/usr/sbin/sshd') ? await this.#sshfs() : undefined;
      case 'rclone':
        return (await this.#has('rclone')) && existsSync('/usr/sbin/sshd') ? await this.#rclone() : undefined;
      default:
        throw new RangeError(`no peer is called ${name}`);
    }
  }

  /** Ends all daemons; an ssh server hides the mark by which others are found. */
  stop(): void {
    for (const daemon of this.#daemons) daemon.kill('SIGKILL');
  }

  async #has(command: string): Promise<boolean> {
    return (await this.#run.exec('sh', ['-c', `command -v ${command}`])).code === 0;
  }

  async #passthrough(): Promise<Target> {
    const { below, dir } = this.#folders('pass-through');
    const flags = (await this.#run.must('pkg-config', ['--cflags', '--libs', 'fuse3'])).trim().split(/\s+/);
    const program = join(this.#run.dir, 'passthrough_ll');
    await this.#run.must('gcc', ['-O2', '-w', PASSTHROUGH_SOURCE, '-o', program, ...flags]);
    const daemon = this.#spawn('pass-through', program, ['-f', '-o', `source=${below},cache=auto`, dir]);
    await untilMounted(dir, daemon);
    return { name: 'pass-through', dir, pids: () => [daemon.pid ?? 0], settle: async () => {} };
  }

  async #gocryptfs(): Promise<Target> {
    const { below, dir } = this.#folders('gocryptfs');
    const secret = this.#secret();
    await this.#run.must('gocryptfs', ['-init', '-q', '-passfile', secret, below]);
    const daemon = this.#spawn('gocryptfs', 'gocryptfs', ['-fg', '-q', '-passfile', secret, below, dir]);
    await untilMounted(dir, daemon);
    return { name: 'gocryptfs', dir, pids: () => [daemon.pid ?? 0], settle: async () => {} };
  }

  async #sshfs(): Promise<Target> {
    const { below, dir } = this.#folders('sshfs');
    const server = await this.#sftp();
    const options = [`port=${server.port}`, `IdentityFile=${server.key}`, 'StrictHostKeyChecking=no', 'reconnect'];
    options.push('UserKnownHostsFile=/dev/null', 'LogLevel=ERROR');
    const daemon = this.#spawn('sshfs', 'sshfs', [
      '-f',
      `${server.user}@127.0.0.1:${below}`,
      dir,
      ...options.flatMap((option) => ['-o', option]),
    ]);
    await untilMounted(dir, daemon);
    const pids = (): number[] => [daemon.pid ?? 0, ...childrenOf(daemon.pid ?? 0)];
    return { name: 'sshfs', dir, pids, settle: async () => {}, forget: async () => {} };
  }

  async #rclone(): Promise<Target> {
    const { below, dir } = this.#folders('rclone');
    const server = await this.#sftp();
    const password = (await this.#run.must('rclone', ['obscure', PASSWORD])).trim();
    const config = join(this.#run.dir, 'rclone.conf');
    const remote = ['[remote]', 'type = sftp', 'host = 127.0.0.1', `port = ${server.port}`, `user = ${server.user}`];
    remote.push(`key_file = ${server.key}`, '', '[crypt]', 'type = crypt', `remote = remote:${below}`);
    writeFileSync(config, [...remote, `password = ${password}`, ''].join('\n'), { mode: 0o600 });
    const cache = join(this.#run.dir, 'rclone-cache');
    const control = `127.0.0.1:${await freePort()}`;
    const start = async (): Promise<ChildProcess> => {
      const options = ['--config', config, '--cache-dir', cache, '--vfs-cache-mode', 'full'];
      options.push('--rc', '--rc-addr', control, '--rc-no-auth');
      const started = this.#spawn('rclone', 'rclone', ['mount', 'crypt:', dir, ...options]);
      await untilMounted(dir, started);
      return started;
    };
    let daemon = await start();
    const settle = async (withinMs = FINISH_MS): Promise<void> => {
      await until('rclone to have sent everything', async () => !(await isSending(control)), withinMs);
    };
    return {
      name: 'rclone',
      dir,
      pids: () => [daemon.pid ?? 0],
      settle,
      // it sends small files at some dozens a second
      pause: () => daemon.kill('SIGSTOP'),
      resume: () => daemon.kill('SIGCONT'),
      forget: async () => {
        await settle();
        await this.#run.must('fusermount3', ['-u', dir]);
        await until('rclone to end', () => daemon.exitCode !== null);
        rmSync(cache, { recursive: true });
        daemon = await start();
      },
    };
  }

  #folders(name: string): { below: string; dir: string } {
    const [below, dir] = [join(this.#run.dir, `${name}-below`), join(this.#run.dir, `mnt-${name}`)];
    mkdirSync(below);
    mkdirSync(dir);
    return { below, dir };
  }

  #secret(): string {
    const path = join(this.#run.dir, 'password');
    writeFileSync(path, `${PASSWORD}\n`, { mode: 0o600 });
    return path;
  }

  #spawn(name: string, command: string, args: readonly string[]): ChildProcess {
    const log = openSync(join(this.#run.dir, `${name}.log`), 'a');
    try {
      const daemon = spawn(command, args, { env: this.#run.env(), cwd: '/', stdio: ['ignore', log, log] });
      this.#daemons.push(daemon);
      return daemon;
    } finally {
      closeSync(log);
    }
  }

  /** One ssh server for all; its keys are made for this run. */
  #sftp(): Promise<SftpServer> {
    return (this.#sshd ??= this.#startSshd());
  }

  async #startSshd(): Promise<SftpServer> {
    const dir = join(this.#run.dir, 'ssh');
    mkdirSync(dir, { mode: 0o700 });
    const [hostKey, key] = [join(dir, 'host-key'), join(dir, 'key')];
    for (const path of [hostKey, key])
      await this.#run.must('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path]);
    const port = await freePort();
    const config = join(dir, 'sshd_config');
    const lines = [`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${hostKey}`, `AuthorizedKeysFile ${key}.pub`];
    lines.push('PasswordAuthentication no', 'StrictModes no', 'PermitRootLogin prohibit-password', 'UsePAM yes');
    lines.push(`PidFile ${join(dir, 'pid')}`, 'Subsystem sftp internal-sftp', '');
    writeFileSync(config, lines.join('\n'));
    // privilege separation wants it; the package's own service makes it at boot
    if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true });
    this.#spawn('sshd', '/usr/sbin/sshd', ['-D', '-e', '-f', config]);
    const user = userInfo().username;
    const login = [
      '-i',
      key,
      '-p',
      String(port),
      '-o',
      'StrictHostKeyChecking=no',
      '-o',
      'UserKnownHostsFile=/dev/null',
    ];
    await until('the ssh server to answer', async () => {
      const result = await this.#run.exec('sftp', [
        ...login.map((word) => (word === '-p' ? '-P' : word)),
        '-b',
        '/dev/null',
        `${user}@127.0.0.1`,
      ]);
      return result.code === 0;
    });
    return { port, key, user };
  }
}

interface SftpServer {
  readonly port: number;
  readonly key: string;
  readonly user: string;
}

async function untilMounted(dir: string, daemon: ChildProcess): Promise<void> {
  await until(`a mount at ${dir}`, () => {
    if (daemon.exitCode !== null) throw new Error(`the daemon of ${dir} ended with ${daemon.exitCode}`);
    return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${dir} `);
  });
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Whether rclone's cache still has something to send, as its remote control tells. */
async function isSending(control: string): Promise<boolean> {
  const answer = await fetch(`http://${control}/vfs/stats`, { method: 'POST' });
  const { diskCache } = (await answer.json()) as {
    diskCache?: { uploadsInProgress: number; uploadsQueued: number; bytesUsed: number };
  };
  return diskCache !== undefined && diskCache.uploadsInProgress + diskCache.uploadsQueued > 0;
}

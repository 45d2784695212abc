// One test's temporary folder and the programs that it runs. Nothing here knows what xcore is
// beyond where its command lies.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NAMESPACES, RUN_MARK, endEverything } from './cleanup.ts';

/** The checkout. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** The command under test; XCORE_TEST_BIN names another one, say an installed package's. */
export const XCORE = process.env['XCORE_TEST_BIN'] ?? join(ROOT, 'bin/xcore.js');

/** Compiled code of the programs, for all tests: each has fresh homes, where a user's second start finds it. */
const CODE_CACHE = join(ROOT, 'node_modules/.cache/xcore');

/** The part of a tap test that helpers need. */
export interface Scope {
  teardown(handler: () => unknown): void;
  comment(...args: unknown[]): void;
  readonly passing: () => boolean;
}

/** How a program ended. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run a program. */
export interface RunOptions {
  readonly input?: string;
  readonly env?: Record<string, string>;
  readonly timeoutMs?: number;
  readonly cwd?: string;
  /** Name of a network namespace to run it in. */
  readonly namespace?: string | undefined;
}

/** How to start a program that lives on. */
export interface SpawnOptions {
  readonly env?: Record<string, string>;
  /** Name of a network namespace to run it in. */
  readonly namespace?: string | undefined;
  /** Its standard input; empty unless told. */
  readonly input?: 'pipe';
}

/** Code of a program that a signal or its deadline ended. */
export const KILLED = -1;

/**
 * A folder of one test, its path short enough for unix sockets. When the test ends, however it ends,
 * every process started through it is killed by id, every mount below it detached, and it is removed
 * (XCORE_TEST_KEEP=1 keeps the files).
 */
export class Run {
  readonly dir: string;
  readonly #reaper: ChildProcess;

  constructor(t: Scope) {
    const keep = process.env['XCORE_TEST_KEEP'] === '1';
    this.dir = mkdtempSync(join(process.env['XCORE_TEST_TMP'] ?? tmpdir(), 'xc-'));
    this.#reaper = spawn(process.execPath, [join(ROOT, 'test/support/reaper.ts'), this.dir], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    t.teardown(async () => {
      if (!t.passing()) this.#showLogs(t);
      endEverything(this.dir, keep);
      const gone = new Promise((resolve) => this.#reaper.once('exit', resolve));
      this.#reaper.stdin?.destroy();
      await gone;
    });
    if (keep) t.comment(`files stay in ${this.dir}`);
  }

  /** The environment of every program of this test. */
  env(extra: Record<string, string> = {}): NodeJS.ProcessEnv {
    const { NODE_OPTIONS: _, TAP: _tap, XCORE_HOME: _home, ...rest } = process.env;
    return {
      NODE_COMPILE_CACHE: CODE_CACHE,
      ...rest,
      [RUN_MARK]: this.dir,
      XCORE_HOME: join(this.dir, 'nobody'),
      ...extra,
    };
  }

  /** Runs a program to its end; KILLED when the deadline (60 s unless told) passed. Never rejects. */
  async exec(command: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const [program, words] = inNamespace(options.namespace, command, args);
    const child = spawn(program, words, { env: this.env(options.env), cwd: options.cwd ?? '/' });
    const timeoutMs = options.timeoutMs ?? 60_000;
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    return await new Promise((resolve) => {
      const deadline = setTimeout(() => {
        stderr += `\n(test: ${command} ${args.join(' ')} was killed or left open pipes after ${timeoutMs} ms)\n`;
        child.kill('SIGKILL');
        child.stdout.destroy();
        child.stderr.destroy();
        resolve({ code: KILLED, stdout, stderr });
      }, timeoutMs);
      child.once('error', (error) => (stderr += String(error)));
      child.once('close', (code) => {
        clearTimeout(deadline);
        resolve({ code: code ?? KILLED, stdout, stderr });
      });
    });
  }

  /** Runs a program that must succeed; its standard output. */
  async must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    const result = await this.exec(command, args, options);
    if (result.code !== 0) throw new Error(`${command} ${args.join(' ')}: code ${result.code}\n${result.stderr}`);
    return result.stdout;
  }

  /** Starts a Node program that lives on, its standard output a pipe and its errors in `<dir>/<name>.log`. */
  spawn(name: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const log = openSync(join(this.dir, `${name}.log`), 'a');
    try {
      const [program, words] = inNamespace(options.namespace, process.execPath, args);
      const stdio = [options.input ?? 'ignore', 'pipe', log] as const;
      return spawn(program, words, { env: this.env(options.env), stdio: [...stdio], cwd: '/' });
    } finally {
      closeSync(log);
    }
  }

  #showLogs(t: Scope): void {
    for (const name of readdirSync(this.dir, { recursive: true, encoding: 'utf8' })) {
      if (!name.endsWith('.log') || /(^|\/)mnt/.test(name) || /\d{6}\.log$/.test(name)) continue;
      const lines = readFileSync(join(this.dir, name), 'utf8').trimEnd().split('\n').slice(-15);
      t.comment(`${name}\n${lines.join('\n')}`);
    }
  }
}

// Not `ip netns exec`, whose mount namespace of its own would hide the mounts that are made in it.
function inNamespace(name: string | undefined, command: string, args: readonly string[]): [string, readonly string[]] {
  if (name === undefined) return [command, args];
  return ['nsenter', [`--net=${join(NAMESPACES, name)}`, '--', command, ...args]];
}

/** Waits until `check` gives something other than undefined or false, 60 s unless told; throws when they have passed. */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 60_000,
  everyMs = 100,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    // before it is asked, since asking may take long as well
    const isOver = performance.now() > end;
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (isOver) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

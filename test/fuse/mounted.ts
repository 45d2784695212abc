// Starts a process that serves a mount, and ends it and its mount whatever the test does.

import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ChildMessage, ChildOptions, ParentMessage } from './mount-child.ts';

const CHILD = fileURLToPath(new URL('mount-child.ts', import.meta.url));

/** Whether this process is root. */
export const isRoot = process.geteuid?.() === 0;

type Log = Extract<ChildMessage, { type: 'log' }>;
type Question = ParentMessage extends infer Message ? (Message extends unknown ? Omit<Message, 'id'> : never) : never;

/** One mount with the process that serves it. */
export interface Mounted {
  readonly directory: string;
  readonly child: ChildProcess;
  readonly logs: Log[];
  /** Resolves when the session has ended. */
  readonly ended: Promise<void>;
  /** Asks the child to do something; resolves to the code of its error, or undefined. */
  ask(question: Question): Promise<string | undefined>;
  /** Unmounts, ends the process, removes the directory; may be called twice. */
  stop(): Promise<void>;
}

/** How a child could not mount. */
export class MountFailure extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export function newDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'xcore-fuse-'));
}

/** Whether something is mounted there, without touching it. */
export function isInMountTable(directory: string): boolean {
  const escaped = directory.replaceAll(' ', '\\040');
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${escaped} `);
}

/** Takes a mount away from outside. */
export function umountLazily(directory: string): void {
  if (!isInMountTable(directory)) return;
  if (isRoot) spawnSync('umount', ['-l', directory]);
  else spawnSync('fusermount3', ['-u', '-z', directory]);
}

/** Mounts in a child; `prefix` is a command to run it under. */
export async function startMount(
  options: Partial<ChildOptions> = {},
  prefix: string[] = [],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Mounted> {
  const isOwn = options.mountPoint === undefined;
  const directory = options.mountPoint ?? newDirectory();
  const argument = JSON.stringify({ ...options, mountPoint: directory });
  const [command, ...args] = [...prefix, process.execPath, CHILD, argument];
  const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const logs: Log[] = [];
  const answers = new Map<number, (error: string | undefined) => void>();
  const ended = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  let nextId = 1;

  child.on('message', (message: ChildMessage) => {
    if (message.type === 'log') logs.push(message);
    if (message.type === 'mounted') started.resolve();
    if (message.type === 'failed') started.reject(new MountFailure(message.code, message.message));
    if (message.type === 'ended') ended.resolve();
    if (message.type === 'done') answers.get(message.id)?.(message.error);
  });
  void exited.then(() => started.reject(new Error('the child ended before it had mounted')));

  let isRefused = false;
  const stop = async (): Promise<void> => {
    // what is mounted there when this one was refused belongs to another
    if (!isRefused) umountLazily(directory);
    child.kill('SIGKILL');
    await exited;
    if (!isRefused) umountLazily(directory);
    if (!isOwn) return;
    try {
      rmdirSync(directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  };

  try {
    await started.promise;
  } catch (error) {
    isRefused = error instanceof MountFailure;
    await stop();
    throw error;
  }
  return {
    directory,
    child,
    logs,
    ended: ended.promise,
    ask: (question) =>
      new Promise((resolve) => {
        const id = nextId++;
        answers.set(id, resolve);
        child.send({ ...question, id });
      }),
    stop,
  };
}

// The background process of a mount: started detached, told its passphrase through one pipe, heard
// through another. Both ends of that conversation are here.

import { spawn } from 'node:child_process';
import { closeSync, createReadStream, createWriteStream, mkdirSync, openSync, renameSync, statSync } from 'node:fs';
import { text as readAll } from 'node:stream/consumers';
import type { Readable, Writable } from 'node:stream';
import { asError, ERRNO, XcoreError, type ErrorCode } from '../lib/errors.ts';
import { readLines } from '../lib/lines.ts';
import type { Paths } from '../lib/paths.ts';
import { BIN } from './context.ts';

/** Descriptors of the daemon: the passphrase comes in by one, one line goes out by the other. */
const SECRET_FD = 3;
const READY_FD = 4;
const MAX_LINE_BYTES = 65_536;
const MAX_LOG_BYTES = 16 * 2 ** 20;
/**
 * V8 collects when it nears its limit; what lives is bounded by the caches, some 100 MiB at most. Below the initial size it
 * does not, which would cost a burst of small files a mark of the whole heap every few hundred of them.
 */
const HEAP_SETTINGS = ['--max-semi-space-size=8', '--max-old-space-size=256', '--initial-old-space-size=64'];
/** glibc (mallopt(3)): shard buffers go back to the system when they are freed, whichever thread had them. */
const MEMORY_SETTINGS = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '65536',
  MALLOC_TRIM_THRESHOLD_: '131072',
};

/** What the daemon says once it serves the mount. */
export interface Ready {
  /** Lines worth telling the user. */
  readonly notes: readonly string[];
  readonly pid: number;
}

/**
 * Starts `xcore mount … --foreground` as a process of its own that outlives this one, and resolves
 * when it says that the folder is usable. Rejects with the daemon's own error; when `signal` aborts, the daemon is asked to end.
 */
export async function startDaemonProcess(
  args: readonly string[],
  options: { paths: Paths; passphrase: string | null; signal: AbortSignal },
): Promise<Ready> {
  const { paths, passphrase, signal } = options;
  const log = openDaemonLog(paths);
  const child = spawn(process.execPath, [...HEAP_SETTINGS, BIN, ...args, '--daemon'], {
    detached: true,
    // The daemon must not keep another file system busy.
    cwd: '/',
    stdio: ['ignore', log, log, 'pipe', 'pipe'],
    env: { ...MEMORY_SETTINGS, NODE_COMPILE_CACHE: paths.codeCache, ...process.env },
  });
  closeSync(log);
  const secret = child.stdio[SECRET_FD] as Writable;
  const ready = child.stdio[READY_FD] as Readable;
  secret.on('error', () => undefined);
  secret.end(passphrase ?? '');
  const onAbort = (): void => {
    child.kill('SIGTERM');
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await new Promise<Ready>((resolve, reject) => {
      const died = (): void => {
        if (signal.aborted) reject(new XcoreError('ABORTED', 'cancelled'));
        else reject(untimelyEnd(child.signalCode, paths));
      };
      child.once('error', reject);
      child.once('exit', () => setImmediate(died));
      ready.once('error', died);
      readLines(ready, MAX_LINE_BYTES, (line) => {
        const said = JSON.parse(line) as { notes?: string[]; error?: { code: string; message: string } };
        if (said.error) {
          const code = Object.hasOwn(ERRNO, said.error.code) ? (said.error.code as ErrorCode) : 'INTERNAL';
          reject(new XcoreError(code, said.error.message));
        } else resolve({ notes: said.notes ?? [], pid: child.pid ?? 0 });
      });
    });
  } finally {
    signal.removeEventListener('abort', onAbort);
    ready.destroy();
    child.unref();
  }
}

/** Signals by which native code ends a process; LevelDB does so over some damaged tables. */
const FAULTS: readonly (string | null)[] = ['SIGABRT', 'SIGSEGV', 'SIGBUS', 'SIGILL', 'SIGFPE'];

function untimelyEnd(signal: NodeJS.Signals | null, { daemonLog }: Paths): XcoreError {
  if (!FAULTS.includes(signal)) {
    return new XcoreError('INTERNAL', `the mount's process ended before it was ready; ${daemonLog} tells why`);
  }
  return new XcoreError(
    'CORRUPT_RECORD',
    `the mount's process was ended by ${signal ?? ''}, as a damaged index may do it; to look and repair it: xcore fsck --repair. ${daemonLog} tells more`,
  );
}

/** In the daemon: the passphrase that the starting process handed over; empty when there is none. */
export async function receivePassphrase(): Promise<string> {
  return await readAll(createReadStream('', { fd: SECRET_FD }));
}

/** In the daemon: tells the starting process how it went, once. */
export async function tellStarter(outcome: { notes: readonly string[] } | { error: unknown }): Promise<void> {
  const pipe = createWriteStream('', { fd: READY_FD });
  // The starting process may be gone, and the mount is none the worse for it.
  pipe.on('error', () => undefined);
  const line =
    'error' in outcome
      ? {
          error: {
            code: outcome.error instanceof XcoreError ? outcome.error.code : 'INTERNAL',
            message: asError(outcome.error).message,
          },
        }
      : { ready: true, notes: outcome.notes };
  await new Promise<void>((resolve) => {
    pipe.once('close', resolve);
    pipe.end(`${JSON.stringify(line)}\n`);
  });
}

/** Opens the daemon's log for appending; one older log is kept. */
export function openDaemonLog(paths: Paths): number {
  mkdirSync(paths.log, { recursive: true, mode: 0o700 });
  const size = statSync(paths.daemonLog, { throwIfNoEntry: false })?.size ?? 0;
  if (size > MAX_LOG_BYTES) renameSync(paths.daemonLog, `${paths.daemonLog}.1`);
  return openSync(paths.daemonLog, 'a', 0o600);
}

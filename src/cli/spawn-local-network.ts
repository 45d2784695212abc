// Runs the embedded network as a child process that cannot outlive the daemon: it ends when its
// standard input does.

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { XcoreError } from '../lib/errors.ts';
import { readLines } from '../lib/lines.ts';
import type { Paths } from '../lib/paths.ts';
import { BIN } from './context.ts';

const MAX_LINE_BYTES = 4096;
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;

/** A running embedded network. */
export interface LocalNetworkProcess {
  /** Multiaddr with the /p2p/ id. */
  readonly bridge: string;
  /** Resolves when the process has ended, asked or not. */
  readonly ended: Promise<void>;
  stop(): Promise<void>;
}

/** Starts the embedded network with all its data below `dir`, and resolves once it can be joined. */
export async function spawnLocalNetwork(dir: string, paths: Paths): Promise<LocalNetworkProcess> {
  mkdirSync(paths.log, { recursive: true, mode: 0o700 });
  const logFile = join(paths.log, 'local-network.log');
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(process.execPath, [BIN, 'local-network', '--dir', dir], {
    stdio: ['pipe', 'pipe', log],
    // A group of its own: Ctrl-C at a foreground mount is for the mount, which then still needs it.
    detached: true,
    cwd: '/',
  });
  closeSync(log);
  const stdin = child.stdin!;
  stdin.on('error', () => undefined);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const stop = async (): Promise<void> => {
    stdin.end();
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(timer);
  };
  let timer: NodeJS.Timeout | undefined;
  try {
    const bridge = await new Promise<string>((resolve, reject) => {
      const fail = (what: string): void =>
        reject(new XcoreError('UNREACHABLE', `the local network ${what}; ${logFile} tells why`));
      timer = setTimeout(() => fail('did not start in time'), START_TIMEOUT_MS);
      child.once('error', reject);
      child.once('exit', () => setImmediate(fail, 'ended before it was ready'));
      readLines(child.stdout!, MAX_LINE_BYTES, (line) => resolve(line.trim()));
    });
    return { bridge, ended, stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

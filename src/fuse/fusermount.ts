// Runs fusermount3, the setuid helper through which ordinary users mount and unmount.

import { spawn } from 'node:child_process';
import { XcoreError } from '../lib/errors.ts';

/** The helper of libfuse 3, then that of libfuse 2: both speak the same protocol. */
const HELPERS = ['fusermount3', 'fusermount'];
const TIMEOUT_MS = 20_000;
/** Most of its messages that are kept. */
const MAX_MESSAGE_CHARS = 4096;

/** How the helper ended. */
export interface HelperResult {
  readonly exitCode: number;
  /** What it wrote to stderr, trimmed. */
  readonly message: string;
}

/**
 * Runs the helper; `socket`, if any, is the descriptor that it sends the mount's descriptor over.
 * FUSE_MISSING when there is no helper.
 */
export async function runFusermount(args: string[], socket?: number): Promise<HelperResult> {
  for (const helper of HELPERS) {
    const result = await run(helper, args, socket);
    if (result !== null) return result;
  }
  throw new XcoreError(
    'FUSE_MISSING',
    'fusermount3 is not installed, and only root can mount without it: install it with "apt install fuse3"',
  );
}

function run(helper: string, args: string[], socket: number | undefined): Promise<HelperResult | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(helper, args, {
      stdio: ['ignore', 'ignore', 'pipe', ...(socket === undefined ? [] : [socket])],
      env: {
        PATH: `${process.env['PATH'] ?? ''}:/usr/local/bin:/usr/bin:/bin`,
        LC_ALL: 'C',
        ...(socket === undefined ? {} : { _FUSE_COMMFD: '3' }),
      },
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    let message = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      message = (message + text).slice(0, MAX_MESSAGE_CHARS);
    });
    child.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' || error.code === 'EACCES' ? resolve(null) : reject(error),
    );
    child.on('close', (exitCode) => resolve({ exitCode: exitCode ?? -1, message: message.trim() }));
  });
}

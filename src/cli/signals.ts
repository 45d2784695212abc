// Ends a foreground program as it should end: SIGINT and SIGTERM ask once, a second SIGINT insists.

import type { Logger } from '../lib/log.ts';

const INTERRUPTED = 130;

/** Something that runs until it is stopped or ends by itself. */
export interface Running {
  readonly ended?: Promise<void>;
  stop(): Promise<void>;
}

/** What happens besides. */
export interface RunOptions {
  /** Tells whoever waits for it that it runs; from then on a signal ends it as it should. */
  readonly tellReady: () => void | Promise<void>;
  /** Stops it as well. */
  readonly also?: Promise<void>;
}

/** Keeps the process up until `running` ends or a signal (or `also`) stops it; resolves once it is stopped. */
export async function runUntilStopped(running: Running, log: Logger, { tellReady, also }: RunOptions): Promise<void> {
  const keepAlive = setInterval(() => undefined, 1 << 30);
  const off = stayUpOnRejection(log);
  try {
    const asked = new Promise<void>((resolve) => {
      let count = 0;
      const onSignal = (signal: NodeJS.Signals): void => {
        count += 1;
        log.info({ signal }, 'asked to stop');
        if (count > 1 && signal === 'SIGINT') process.exit(INTERRUPTED);
        resolve();
      };
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, onSignal);
    });
    // A terminal that closes must not take a mount with it.
    process.on('SIGHUP', () => log.info({}, 'the terminal is gone; going on'));
    await tellReady();
    const ends = [asked, ...(running.ended ? [running.ended] : []), ...(also ? [also] : [])];
    await Promise.race(ends);
    await running.stop();
  } finally {
    off();
    clearInterval(keepAlive);
  }
}

/** A rejection that nobody handled is a defect worth a loud line, and no reason to drop a mount. */
export function stayUpOnRejection(log: Logger): () => void {
  const onRejection = (error: unknown): void => log.error({ err: error }, 'unhandled rejection');
  process.on('unhandledRejection', onRejection);
  return () => process.off('unhandledRejection', onRejection);
}

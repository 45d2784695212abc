// Says why a command takes long that waits for everything to be stored, once, when the bridge is what it waits for.

import { setTimeout as sleep } from 'node:timers/promises';
import { callControl } from '../client/control.ts';
import { note } from './output.ts';

/** Before anything is said. */
const PATIENCE_MS = 3_000;

/** What is said besides, and to whom. */
export interface WaitingOptions {
  readonly controlSocket: string;
  /** What can be done instead of waiting. */
  readonly hint: string;
  readonly quiet: boolean;
  /** PATIENCE_MS unless told. */
  readonly patienceMs?: number;
}

/** Gives what `work` gives. */
export async function whileWaiting<T>(work: Promise<T>, options: WaitingOptions): Promise<T> {
  const ended = new AbortController();
  const telling = options.quiet ? null : tell(options, ended.signal);
  try {
    return await work;
  } finally {
    ended.abort();
    await telling;
  }
}

async function tell(options: WaitingOptions, signal: AbortSignal): Promise<void> {
  const { controlSocket, hint, patienceMs = PATIENCE_MS } = options;
  try {
    await sleep(patienceMs, undefined, { signal });
    const status = await callControl(controlSocket, 'status', {}, { signal });
    if (!signal.aborted && !status.network.connected) {
      note(`the bridge cannot be reached, and not all is stored yet: it is waited for; ${hint}`);
    }
  } catch {
    // What the command itself comes to tells more.
  }
}

// Jobs that go through all shards of one host, a few at a time, and go on after a restart where they were. Knows
// nothing of what a job does.

import { asError, hasCode } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { PeerName } from '../net/network.ts';
import { jobKey, ofKind, parseJobKey } from './keys.ts';
import type { Store, StoreWrite } from '../lib/store.ts';

/** What a job is for: lost: have a host's shards repaired; back: give up what is too much on a host that is back; verify: audit each of its shards; inventory: compare with what it says it holds. */
export type JobKind = 'lost' | 'back' | 'verify' | 'inventory';

const LETTERS: Record<JobKind, string> = { lost: 'l', back: 'b', verify: 'v', inventory: 'i' };

/** What one step of a job came to. */
export interface JobProgress {
  /** The shard up to which the job is done; undefined: all of it is. */
  readonly after: Uint8Array | undefined;
  readonly writes?: readonly StoreWrite[];
}

/** Does a few shards of a host, from the one after `after` on (empty: the first). */
export type JobStep = (host: PeerName, after: Uint8Array, signal: AbortSignal) => Promise<JobProgress>;

/** The jobs under way; at most one of a kind for each host. */
export class HostJobs {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #jobs = new Map<string, Uint8Array>();

  constructor(components: { readonly store: Store; readonly log: Logger }) {
    this.#store = components.store;
    this.#log = components.log;
  }

  /** Reads what is stored. */
  async load(): Promise<void> {
    for await (const [key, value] of this.#store.range(ofKind('j'))) {
      const { kind, host } = parseJobKey(key);
      this.#jobs.set(kind + host, value);
    }
  }

  /** Whether a job is under way. */
  has(kind: JobKind, host: PeerName): boolean {
    return this.#jobs.has(LETTERS[kind] + host);
  }

  /** Starts a job from its beginning. */
  async start(kind: JobKind, host: PeerName): Promise<void> {
    const cursor = new Uint8Array();
    this.#jobs.set(LETTERS[kind] + host, cursor);
    await this.#store.batch([{ key: jobKey(LETTERS[kind], host), value: cursor }]);
  }

  /** Ends a job, whether it is done or not. */
  async end(kind: JobKind, host: PeerName): Promise<void> {
    if (this.#jobs.delete(LETTERS[kind] + host)) await this.#store.batch([{ key: jobKey(LETTERS[kind], host) }]);
  }

  /** Does one step of each job of a kind, one after another; whether there was any. A step that fails is done again next time. */
  async round(kind: JobKind, step: JobStep, signal: AbortSignal): Promise<boolean> {
    const letter = LETTERS[kind];
    const due = [...this.#jobs].filter(([name]) => name.startsWith(letter));
    for (const [name, after] of due) {
      if (signal.aborted) return true;
      const host = name.slice(1);
      try {
        const progress = await step(host, after, signal);
        // It may have been started anew, or ended, in the meantime.
        if (this.#jobs.get(name) !== after) continue;
        if (progress.after === after && !progress.writes) continue;
        const key = jobKey(letter, host);
        const writes = [...(progress.writes ?? []), progress.after ? { key, value: progress.after } : { key }];
        await this.#store.batch(writes);
        if (progress.after) this.#jobs.set(name, progress.after);
        else this.#jobs.delete(name);
      } catch (error) {
        if (signal.aborted) continue;
        // A host that fell silent is noticed elsewhere, and until then tried each round.
        const level = hasCode(error, 'UNREACHABLE', 'TIMEOUT') ? 'debug' : 'warn';
        this.#log[level]({ err: asError(error), host, job: kind }, 'a job could not go on');
      }
    }
    return due.length > 0;
  }
}

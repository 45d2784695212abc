// What this device does for a bridge that was restored from a backup: entries of the log that it saw and the bridge has
// lost are handed in again, byte for byte as they were signed. Where the bridge's log is another one, nothing is.

import type { Clock } from '../lib/clock.ts';
import { asError, hasCode, XcoreError } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Head, Network, WireEntry } from '../net/network.ts';
import type { HeadState } from '../tree/records.ts';
import type { KeptEntries, KeptEntry, LogPlace } from './kept-entries.ts';
import type { EntryCodec } from './log-entry.ts';

/** A bridge that loses what was handed in does not get it again sooner: it may be made to send it over and over. */
const AGAIN_AFTER_MS = 60_000;
/** Others may hand in the same at the same time, so often at most. */
const TRIES = 3;

/** What to do where nothing can be handed in. */
export const FORKED_ADVICE =
  'do not trust this bridge; nothing was changed, and what is here stays. If it was restored from a backup: mount on a ' +
  'device that has the entries which it lost; if there is none, unmount, and xcore fsck --repair --accept-log takes its ' +
  'log as it is and sets aside what is here';

/** What was handed in. */
export interface HandedIn {
  /** First and last of the entries that the bridge had lost. */
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** Shards that they added, as ids in hexadecimal. */
  readonly added: ReadonlySet<string>;
  /** Whether one of them says where a checkpoint lies. */
  readonly hasCheckpoint: boolean;
}

/** What handing in works with. */
export interface HandInComponents {
  readonly network: Network;
  readonly codec: EntryCodec;
  readonly kept: KeptEntries;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onHandedIn: (what: HandedIn) => Promise<void>;
}

/** The newest entry that this device, or an index before this one, saw. */
export function newestSeen({ seq, hash, seenSeq, seenHash }: HeadState): LogPlace {
  return seq >= seenSeq ? { seq, hash } : { seq: seenSeq, hash: seenHash };
}

/** Keeps what may have to be handed in again, and does so. */
export class HandIn {
  readonly #c: HandInComponents;
  #nextMs = 0;

  constructor(components: HandInComponents) {
    this.#c = components;
  }

  /** Keeps an entry that is in the log, before the index says that it was seen. Fails as the disk does. */
  async keep(entry: WireEntry): Promise<void> {
    await this.#c.kept.keep(entry);
  }

  /** Lets what was kept outlive a power cut. Fails as the disk does. */
  async sync(): Promise<void> {
    await this.#c.kept.sync();
  }

  /**
   * Hands in what comes after the head that the bridge shows, up to what was seen; resolves when the bridge shows it, or
   * something else by then. FORKED_LOG when its log is another one, when it refuses, or when it is not known what to hand in.
   */
  async handIn(shown: Head, seen: LogPlace): Promise<void> {
    const { clock, kept } = this.#c;
    const lacking = `the bridge shows a volume log without entry ${seen.seq}, which this device saw`;
    if (clock.monotonicMs() < this.#nextMs) throw new XcoreError('FORKED_LOG', `${lacking} and has handed in already`);
    let head = shown;
    for (let tries = 1; head.seq < seen.seq; tries++) {
      const entries = await kept.between(head, seen);
      if (entries === 'another log') throw new XcoreError('FORKED_LOG', `${lacking}, but other entries in its place`);
      if (entries === 'not kept') {
        const message = `${lacking}, and this device has not kept all entries from ${head.seq + 1} on`;
        throw new XcoreError('FORKED_LOG', message);
      }
      try {
        await this.#append(entries);
      } catch (error) {
        if (hasCode(error, 'ABORTED', 'CLOSED')) throw error;
        if (tries === TRIES || !hasCode(error, 'STALE_HEAD')) {
          throw new XcoreError('FORKED_LOG', `${lacking}, and does not take it again: ${asError(error).message}`, {
            cause: error,
          });
        }
      }
      const { head: then } = await this.#c.network.readLog(seen.seq, 1, true);
      if (then.seq <= head.seq) {
        this.#nextMs = clock.monotonicMs() + AGAIN_AFTER_MS;
        throw new XcoreError('FORKED_LOG', `${lacking}, after it was handed in again`);
      }
      head = then;
    }
    this.#nextMs = clock.monotonicMs() + AGAIN_AFTER_MS;
  }

  async #append(entries: readonly KeptEntry[]): Promise<void> {
    const { network, codec, kept, log, onHandedIn } = this.#c;
    const added = new Set<string>();
    let hasCheckpoint = false;
    let lastSeq = 0;
    try {
      for (const entry of entries) {
        const wire = await kept.read(entry);
        const { header } = codec.open(wire, entry.seq, entry.prevHash);
        await network.append(wire, true);
        for (const { shardId } of header.shardsAdded) added.add(Buffer.from(shardId).toString('hex'));
        for (const id of header.shardsFreed) added.delete(Buffer.from(id).toString('hex'));
        hasCheckpoint ||= header.checkpointSeq > 0n;
        lastSeq = entry.seq;
      }
    } finally {
      if (lastSeq > 0) {
        const firstSeq = entries[0]!.seq;
        log.warn({ firstSeq, lastSeq }, 'the bridge had lost entries of the volume log, and was handed them in again');
        await onHandedIn({ firstSeq, lastSeq, added, hasCheckpoint });
      }
    }
  }
}

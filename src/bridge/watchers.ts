// Who wants to hear of a volume's head and lease. Events are hints: a watcher that lost one asks.

import { XcoreError } from '../lib/errors.ts';
import type { RpcSession } from '../net/rpc.ts';
import type { ResponseInit } from '../net/rpc.ts';
import { hexOf } from './records.ts';

/** The watching sessions of all volumes. */
export class Watchers {
  readonly #sessions = new Map<string, Set<RpcSession>>();
  readonly #maxPerVolume: number;

  constructor(options: { readonly maxPerVolume: number }) {
    this.#maxPerVolume = options.maxPerVolume;
  }

  /** Adds a session until its stream ends; REFUSED when the volume has too many. */
  add(volume: Uint8Array, session: RpcSession): void {
    const name = hexOf(volume);
    const sessions = this.#sessions.get(name) ?? new Set();
    if (sessions.has(session) || session.signal.aborted) return;
    if (sessions.size >= this.#maxPerVolume) throw new XcoreError('REFUSED', 'this volume has too many watchers');
    sessions.add(session);
    this.#sessions.set(name, sessions);
    session.signal.addEventListener('abort', () => this.#remove(name, session), { once: true });
  }

  /** Whether anybody watches. */
  has(volume: Uint8Array): boolean {
    return this.#sessions.has(hexOf(volume));
  }

  /** Sends each watcher what `event` makes for it. */
  notify(volume: Uint8Array, event: (session: RpcSession) => ResponseInit): void {
    for (const session of this.#sessions.get(hexOf(volume)) ?? []) session.push(event(session));
  }

  #remove(name: string, session: RpcSession): void {
    const sessions = this.#sessions.get(name);
    sessions?.delete(session);
    if (sessions?.size === 0) this.#sessions.delete(name);
  }
}

// Numbers by which records of shards name hosts, from 1 on: a host keeps its own, and the next one is above them all.

import type { PeerName } from '../net/network.ts';

/** Who has which number. */
export class NumberedHosts {
  readonly #hosts = new Map<number, PeerName>();
  #last = 0;

  /** The host of a number, or undefined. */
  get(number: number): PeerName | undefined {
    return this.#hosts.get(number);
  }

  /** A number that nobody has. */
  next(): number {
    return this.#last + 1;
  }

  /** Notes whose number it is. */
  set(number: number, host: PeerName): void {
    this.#hosts.set(number, host);
    this.#last = Math.max(this.#last, number);
  }

  /** Nothing names the host by its number any more. */
  delete(number: number): void {
    this.#hosts.delete(number);
  }
}

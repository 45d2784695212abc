// How each volume's shards are stored: what its owner wants, else what the bridge was told, else what fits the network.

import { XcoreError } from '../lib/errors.ts';
import type { Policy } from '../net/network.ts';
import type { HostRegistry } from './host-registry.ts';
import { MAX_MIRRORS, policyFor } from './policy.ts';
import type { Volumes } from './volumes.ts';

/** A network that once had so many hosts is to have them again: repair does not lower its aim to what is left. */
const USUAL_HOSTS = 3;

/** Options of policies. */
export interface PoliciesOptions {
  /** Mirrors of each shard of a volume whose owner has said nothing; 0: three, and four on larger networks. */
  readonly mirrors: number;
}

/** The policies of one bridge. */
export class Policies {
  readonly #registry: HostRegistry;
  readonly #volumes: Volumes;
  readonly #options: PoliciesOptions;

  constructor(components: { readonly registry: HostRegistry; readonly volumes: Volumes }, options: PoliciesOptions) {
    this.#registry = components.registry;
    this.#volumes = components.volumes;
    this.#options = options;
  }

  /** The policy as of now for an announced size, 0 for unknown. */
  of(volume: Uint8Array, sizeBytes = 0): Policy & { readonly hosts: number } {
    const hosts = this.#registry.existing();
    return { ...policyFor(sizeBytes, hosts, this.#mirrorsOf(volume)), hosts };
  }

  /** Mirrors that a stored shard of the volume is to have. */
  wanted(volume: Uint8Array): number {
    const wished = this.#mirrorsOf(volume);
    const hosts = Math.max(USUAL_HOSTS, wished, this.#registry.existing());
    return policyFor(0, hosts, wished).mirrors;
  }

  /** Sets the number of mirrors of a volume's shards, from now on; PROTOCOL for one that no shard has. */
  async setMirrors(volume: Uint8Array, mirrors: number): Promise<void> {
    if (mirrors < 1 || mirrors > MAX_MIRRORS) {
      throw new XcoreError('PROTOCOL', `a shard has 1 to ${MAX_MIRRORS} mirrors`);
    }
    await this.#volumes.setMirrors(volume, mirrors);
  }

  #mirrorsOf(volume: Uint8Array): number {
    return this.#volumes.mirrorsOf(volume) || this.#options.mirrors;
  }
}

// Leaf hashes and the id of a segment's memory, and files of whole shards that are read and checked: in a worker thread.

import { Worker } from 'node:worker_threads';
import { XcoreError } from '../lib/errors.ts';
import type { ShardLoad } from './shard-load.ts';

/** What names the bytes of a shard. */
export interface ShardHashes {
  /** 32 bytes for each leaf. */
  readonly leaves: Buffer;
  /** Shard id, 32 bytes. */
  readonly id: Buffer;
}

/** What the thread is asked for. */
export type HashRequest =
  | { readonly kind: 'hash'; readonly memory: Uint8Array<SharedArrayBuffer>; readonly sizeBytes: number }
  | ({ readonly kind: 'load' } & ShardLoad);

/** What it answers. */
export type HashAnswer =
  { readonly leaves: Uint8Array; readonly shardId: Uint8Array } | { readonly start: number | null };

interface Pending {
  readonly resolve: (answer: HashAnswer) => void;
  readonly reject: (error: Error) => void;
}

/** Computes leaf hashes off the calling thread. */
export class Hasher {
  #worker: Worker | null = null;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();

  /** Hashes of the first `sizeBytes` of a segment's memory, which must not change meanwhile. */
  async hash(memory: Uint8Array<SharedArrayBuffer>, sizeBytes: number): Promise<ShardHashes> {
    const answer = await this.#ask({ kind: 'hash', memory, sizeBytes });
    if ('start' in answer) throw new TypeError('an answer to something else');
    return { leaves: bufferOf(answer.leaves), id: bufferOf(answer.shardId) };
  }

  /** As loadShard(); nothing is written to the memory once this has settled. */
  async load(load: ShardLoad): Promise<number | null> {
    const answer = await this.#ask({ kind: 'load', ...load });
    return 'start' in answer ? answer.start : null;
  }

  #ask(request: HashRequest): Promise<HashAnswer> {
    this.#worker ??= this.#start();
    const id = this.#nextId++;
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref(); // the process must not end before the answer
      worker.postMessage([id, request]);
    });
  }

  #start(): Worker {
    const file = import.meta.url.endsWith('.ts') ? './hash-worker.ts' : './hash-worker.js';
    const worker = new Worker(new URL(file, import.meta.url), { name: 'hasher' });
    worker.on('message', ([id, answer]: [number, HashAnswer]) => {
      this.#pending.get(id)?.resolve(answer);
      this.#pending.delete(id);
      if (this.#pending.size === 0) worker.unref();
    });
    worker.on('error', (error) => this.#fail(worker, error));
    worker.on('exit', () => this.#fail(worker, new XcoreError('CLOSED', 'the hashing thread ended')));
    return worker;
  }

  #fail(worker: Worker, error: unknown): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    for (const { reject } of this.#pending.values())
      reject(new XcoreError('INTERNAL', 'hashing failed', { cause: error }));
    this.#pending.clear();
  }

  async stop(): Promise<void> {
    await this.#worker?.terminate();
  }
}

function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

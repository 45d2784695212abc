// Leaf hashes and the id of a segment's memory, computed in a worker thread.

import { Worker } from 'node:worker_threads';
import { XcoreError } from '../lib/errors.ts';

/** What names the bytes of a shard. */
export interface ShardHashes {
  /** 32 bytes for each leaf. */
  readonly leaves: Buffer;
  /** Shard id, 32 bytes. */
  readonly id: Buffer;
}

interface Pending {
  readonly resolve: (hashes: ShardHashes) => void;
  readonly reject: (error: Error) => void;
}

interface Answer {
  readonly id: number;
  readonly leaves: Uint8Array;
  readonly shardId: Uint8Array;
}

/** Computes leaf hashes off the calling thread; requests are answered in order. */
export class Hasher {
  #worker: Worker | null = null;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();

  /** Hashes of the first `sizeBytes` of a segment's memory, which must not change meanwhile. */
  hash(memory: SharedArrayBuffer, sizeBytes: number): Promise<ShardHashes> {
    this.#worker ??= this.#start();
    const id = this.#nextId++;
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      worker.ref(); // the process must not end before the answer
      worker.postMessage({ id, memory, sizeBytes });
    });
  }

  #start(): Worker {
    const file = import.meta.url.endsWith('.ts') ? './hash-worker.ts' : './hash-worker.js';
    const worker = new Worker(new URL(file, import.meta.url), { name: 'hasher' });
    worker.on('message', ({ id, leaves, shardId }: Answer) => {
      this.#pending.get(id)?.resolve({ leaves: bufferOf(leaves), id: bufferOf(shardId) });
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

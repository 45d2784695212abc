// Leaf hashes of a segment's memory, computed in a worker thread.

import { Worker } from 'node:worker_threads';
import { XcoreError } from '../lib/errors.ts';

interface Pending {
  readonly resolve: (leaves: Buffer) => void;
  readonly reject: (error: Error) => void;
}

/** Computes leaf hashes off the calling thread; requests are answered in order. */
export class Hasher {
  #worker: Worker | null = null;
  #nextId = 1;
  readonly #pending = new Map<number, Pending>();

  /** Leaf hashes (32 bytes each) of the first `sizeBytes` of a segment's memory, which must not change meanwhile. */
  leaves(memory: SharedArrayBuffer, sizeBytes: number): Promise<Buffer> {
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
    worker.on('message', ({ id, leaves }: { id: number; leaves: Uint8Array }) => {
      this.#pending.get(id)?.resolve(Buffer.from(leaves.buffer, leaves.byteOffset, leaves.byteLength));
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

// Files of shards from which leaves were read lately, kept open: to look for a file, to open and to close it cost more
// than the bytes. Knows no ids and no leaves.

import { LRUCache } from 'lru-cache';
import { freeBuffer } from '../lib/free-buffer.ts';
import { readResident } from '../lib/resident-read.ts';
import type { DiskPatience } from '../lib/resident-read.ts';
import type { HostFs } from './host-fs.ts';

/** Files kept open. */
const MAX_OPEN_SHARDS = 256;

type HostFile = Awaited<ReturnType<HostFs['open']>>;

/** An open file and its size when it was opened. */
export interface OpenShard {
  readonly file: HostFile;
  readonly sizeBytes: number;
}

/** Open files by name. */
export class OpenShards {
  readonly #files = new LRUCache<string, Promise<OpenShard>>({
    max: MAX_OPEN_SHARDS,
    // close() waits for reads under way
    dispose: (opened) => void opened.then(({ file }) => file.close()).catch(() => undefined),
  });

  /** The file of a shard; what `open` rejects with is not remembered. */
  get(name: string, open: () => Promise<OpenShard>): Promise<OpenShard> {
    const known = this.#files.get(name);
    if (known) return known;
    const opened = open();
    this.#files.set(name, opened);
    opened.catch(() => {
      if (this.#files.peek(name) === opened) this.#files.delete(name);
    });
    return opened;
  }

  /** Closes the file of a shard that goes or is replaced. */
  forget(name: string): void {
    this.#files.delete(name);
  }

  /** Closes all files. */
  async close(): Promise<void> {
    const opened = [...this.#files.values()];
    this.#files.clear();
    await Promise.allSettled(opened);
  }
}

/** Bytes of an open file that the kernel has in memory, or, with `patience`, that the disk has at hand; or null: they are then read by the kernel. */
export function residentBytes(file: HostFile, offset: number, length: number, patience?: DiskPatience): Buffer | null {
  const { fd } = file as { readonly fd?: number };
  if (fd === undefined || fd < 0) return null;
  const bytes = Buffer.allocUnsafeSlow(length);
  if (readResident(fd, bytes, offset)) return bytes;
  if (patience?.wait(() => readResident(fd, bytes, offset, true)) === true) return bytes;
  freeBuffer(bytes);
  return null;
}

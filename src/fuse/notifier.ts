// Tells the kernel what it must forget. The kernel may wait for locks that a pending request holds, so
// notifications go out one at a time on another thread, not from the thread that answers requests, but for attributes of
// an inode that is held.

import { NOTIFY, NOTIFY_INVAL_ENTRY_OUT, NOTIFY_INVAL_INODE_OUT, OUT_HEADER } from './abi.ts';
import { allocate, writeFrom, writeInThread } from './native.ts';
import type { Memory } from './native.ts';
import { writeU64 } from './reply.ts';
import type { Logger } from '../lib/log.ts';

/** Most notifications that wait; those beyond are lost to the kernel's own timeouts, and logged. */
const MAX_WAITING = 262_144;
const MAX_NAME_BYTES = 1024;
const ENOENT = 2;

type Notification = { ino: number; offset: number; length: number } | { parent: number; name: string };

/** Queue of invalidations of one mount. */
export class Notifier {
  readonly #fd: number;
  readonly #log: Logger;
  readonly #memory = allocate(OUT_HEADER.size + NOTIFY_INVAL_INODE_OUT.size + MAX_NAME_BYTES + 1);
  /** Insertion order is sending order; equal ones wait once. */
  readonly #waiting = new Map<string, Notification>();
  #sending: Promise<void> = Promise.resolve();
  readonly #attributesMemory = allocate(OUT_HEADER.size + NOTIFY_INVAL_INODE_OUT.size);
  #sendingAttributes: Promise<void> = Promise.resolve();
  readonly #nowMemory = allocate(OUT_HEADER.size + NOTIFY_INVAL_INODE_OUT.size);
  #busy = false;
  #stopped = false;
  #lost = 0;

  constructor(fd: number, components: { log: Logger }) {
    this.#fd = fd;
    this.#log = components.log;
  }

  /** `length` 0 is to the end; `offset` -1 is attributes only. */
  inode(ino: number, offset: number, length: number): void {
    this.#add(`i${ino}:${offset}:${length}`, { ino, offset, length });
  }

  entry(parent: number, name: string): void {
    this.#add(`e${parent}:${name}`, { parent, name });
  }

  /**
   * Resolves when the kernel has forgotten the attributes of an inode. It takes no lock for that, so it passes all that
   * waits, and the answer to a request may wait for it.
   */
  attributes(ino: number): Promise<void> {
    this.#sendingAttributes = this.#sendingAttributes.then(async () => {
      if (!this.#stopped) await this.#send(this.#attributesMemory, { ino, offset: -1, length: 0 });
    });
    return this.#sendingAttributes;
  }

  /**
   * Lets the kernel forget the attributes of an inode that a request is about, at once and without a thread. Whoever waits
   * for the answer holds the inode; of one that it lets go of, the kernel would wait until it is gone.
   */
  attributesNow(ino: number): void {
    if (this.#stopped) return;
    const { address } = this.#nowMemory;
    const result = writeFrom(this.#fd, address, this.#encode(this.#nowMemory, { ino, offset: -1, length: 0 }));
    if (result < 0 && result !== -ENOENT) this.#log.debug({ errno: -result }, 'invalidation failed');
  }

  /** Resolves when all that waits now has been sent. */
  async idle(): Promise<void> {
    while (this.#busy) await this.#sending;
    await this.#sendingAttributes;
  }

  /** Drops what waits and resolves when nothing is being sent any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting.clear();
    await Promise.all([this.#sending, this.#sendingAttributes]);
  }

  #add(key: string, notification: Notification): void {
    if (this.#stopped) return;
    if (this.#waiting.size >= MAX_WAITING && !this.#waiting.has(key)) {
      if (this.#lost++ === 0) this.#log.error({ waiting: MAX_WAITING }, 'too many invalidations, some are dropped');
      return;
    }
    this.#waiting.set(key, notification);
    if (this.#busy) return;
    this.#busy = true;
    this.#sending = this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    for (const [key, notification] of this.#waiting) {
      this.#waiting.delete(key);
      await this.#send(this.#memory, notification);
    }
    this.#lost = 0;
    this.#busy = false;
  }

  async #send(memory: Memory, notification: Notification): Promise<void> {
    try {
      const result = await writeInThread(this.#fd, memory.address, this.#encode(memory, notification));
      // ENOENT: the kernel knows nothing of it anyway
      if (result < 0 && result !== -ENOENT) this.#log.debug({ errno: -result }, 'invalidation failed');
    } catch (error) {
      this.#log.error({ err: error }, 'an invalidation cannot be sent');
    }
  }

  #encode({ buffer }: Memory, notification: Notification): number {
    const body = OUT_HEADER.size;
    let sizeBytes: number;
    if ('ino' in notification) {
      sizeBytes = body + NOTIFY_INVAL_INODE_OUT.size;
      writeU64(buffer, body + NOTIFY_INVAL_INODE_OUT.ino, notification.ino);
      buffer.writeBigInt64LE(BigInt(notification.offset), body + NOTIFY_INVAL_INODE_OUT.off);
      buffer.writeBigInt64LE(BigInt(notification.length), body + NOTIFY_INVAL_INODE_OUT.len);
      buffer.writeInt32LE(NOTIFY.INVAL_INODE, OUT_HEADER.error);
    } else {
      const nameStart = body + NOTIFY_INVAL_ENTRY_OUT.size;
      const name = notification.name.slice(0, MAX_NAME_BYTES);
      sizeBytes = nameStart + name.length + 1;
      writeU64(buffer, body + NOTIFY_INVAL_ENTRY_OUT.parent, notification.parent);
      buffer.writeUInt32LE(name.length, body + NOTIFY_INVAL_ENTRY_OUT.namelen);
      buffer.writeUInt32LE(0, body + NOTIFY_INVAL_ENTRY_OUT.flags);
      buffer.write(name, nameStart, 'latin1');
      buffer.writeUInt8(0, nameStart + name.length);
      buffer.writeInt32LE(NOTIFY.INVAL_ENTRY, OUT_HEADER.error);
    }
    buffer.writeUInt32LE(sizeBytes, OUT_HEADER.len);
    writeU64(buffer, OUT_HEADER.unique, 0);
    return sizeBytes;
  }
}

// One live connection to the kernel: receives requests, runs their operations, answers every one of
// them exactly once. Knows the protocol; mounting and unmounting are given to it.

import { closeSync } from 'node:fs';
import { BATCH_FORGET_IN, INIT, INTERRUPT_IN, IN_HEADER, OP, opcodeName } from './abi.ts';
import type { MountOptions, Session } from './driver.ts';
import { isSupported, isTooNew, negotiate, putAgreement } from './handshake.ts';
import { Notifier } from './notifier.ts';
import type { AnyOperation, HandlerContext } from './operation.ts';
import { OPERATIONS } from './operations/table.ts';
import { WaitingRequests } from './interrupts.ts';
import { ReplyWriter, validity } from './reply.ts';
import { RequestLoop } from './request-loop.ts';
import { MalformedRequest, Request } from './request.ts';
import { ERRNO, XcoreError, asError, errnoOf } from '../lib/errors.ts';
import type { Logger } from '../lib/log.ts';
import type { Filesystem } from '../vfs/filesystem.ts';

/** Most requests that wait for the filesystem at once; further ones stay in the kernel's queue. */
const MAX_IN_FLIGHT = 512;
const EPROTO = 71;
const ENODEV = 19;
const ENOENT = 2;

/** Parts of a session: the descriptor is owned by it from now on. */
export interface SessionComponents {
  readonly fd: number;
  readonly filesystem: Filesystem;
  readonly log: Logger;
  /** Takes the mount away; EBUSY while in use. */
  readonly detach: (lazy: boolean) => Promise<void>;
}

/** Serves a mount from start() until it ends. */
export class KernelSession implements Session {
  readonly ended: Promise<void>;
  readonly #components: SessionComponents;
  readonly #log: Logger;
  readonly #writebackCache: boolean;
  readonly #reply: ReplyWriter;
  readonly #loop: RequestLoop;
  readonly #notifier: Notifier;
  readonly #context: { -readonly [Key in keyof HandlerContext]: HandlerContext[Key] };
  readonly #handshake = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<void>();
  readonly #waiting = new WaitingRequests();
  /** Kept for the next request as long as they are answered at once. */
  #spareAbort = new AbortController();
  #inFlight = 0;
  #isOpen = true;

  constructor(components: SessionComponents, options: MountOptions) {
    this.#components = components;
    this.#log = components.log;
    // a read-only mount follows another writer, whose sizes and times must win over the kernel's
    this.#writebackCache = options.writebackCache && !options.readOnly;
    this.#reply = new ReplyWriter(components.fd, {
      entry: validity(options.entryTimeoutMs),
      attributes: validity(options.attributeTimeoutMs),
      negative: validity(options.negativeTimeoutMs),
    });
    this.#notifier = new Notifier(components.fd, components);
    this.#context = {
      filesystem: components.filesystem,
      writebackCache: false,
      extendedSetxattr: false,
      unmasked: false,
      negativeEntries: options.negativeTimeoutMs > 0,
      opensDirectories: false,
      cacheDirectories: options.entryTimeoutMs > 0 && options.attributeTimeoutMs > 0,
      forgetAttributes: (ino) => this.#notifier.attributes(ino),
      forgetHeldAttributes: (ino) => this.#notifier.attributesNow(ino),
      interruptSignal: () => this.#spareAbort.signal,
    };
    this.#loop = new RequestLoop(components.fd, {
      receive: (buffer, sizeBytes) => this.#receive(buffer, sizeBytes),
      fault: (errno) => this.#log.error({ errno }, 'a request could not be read'),
      end: (errno) => this.#finish(errno),
    });
    this.ended = this.#end.promise;
  }

  /** Begins to serve; resolves when kernel and driver have agreed. FUSE_MISSING when they cannot. */
  async start(): Promise<void> {
    this.#loop.resume();
    await this.#handshake.promise;
  }

  async unmount(options: { lazy?: boolean } = {}): Promise<void> {
    if (this.#isOpen) await this.#components.detach(options.lazy === true);
  }

  invalidateInode(ino: number, offset = 0, length = 0): void {
    this.#notifier.inode(ino, offset, length);
  }

  invalidateEntry(parent: number, name: string): void {
    this.#notifier.entry(parent, name);
    // a listing that the kernel keeps goes only with its directory
    if (this.#context.cacheDirectories) this.#notifier.inode(parent, 0, 0);
  }

  invalidated(): Promise<void> {
    return this.#notifier.idle();
  }

  #receive(buffer: Buffer, sizeBytes: number): void {
    try {
      this.#dispatch(new Request(buffer, sizeBytes));
    } catch (error) {
      this.#log.error({ sizeBytes, err: error }, 'malformed request');
      if (sizeBytes < IN_HEADER.unique + 8) return;
      const unique = Number(buffer.readBigUInt64LE(IN_HEADER.unique));
      this.#check(this.#reply.sendError(unique, ERRNO.EIO), buffer.readUInt32LE(IN_HEADER.opcode));
    }
  }

  #dispatch(request: Request): void {
    switch (request.opcode) {
      case OP.FORGET:
      case OP.BATCH_FORGET:
        this.#forget(request);
        return;
      case OP.INTERRUPT:
        this.#interrupt(request);
        return;
      case OP.INIT:
        this.#init(request);
        return;
      case OP.DESTROY:
        this.#reply.begin(request.unique);
        this.#check(this.#reply.send(), request.opcode);
        return;
      default: {
        const operation = OPERATIONS.get(request.opcode);
        if (operation === undefined) this.#check(this.#reply.sendError(request.unique, ERRNO.ENOSYS), request.opcode);
        else this.#run(request, operation);
      }
    }
  }

  /** The filesystem keeps no lookup counts, only what was removed; wants no answer. */
  #forget(request: Request): void {
    if (!this.#context.opensDirectories) return;
    const forgotten = this.#components.filesystem.forget(forgottenIn(request));
    if (forgotten instanceof Promise) {
      forgotten.catch((error: unknown) =>
        this.#log.error({ err: error }, 'what is forgotten stays until the next mount'),
      );
    }
  }

  #run(request: Request, operation: AnyOperation): void {
    let result: unknown;
    try {
      result = operation.run(request, this.#context);
    } catch (error) {
      this.#fail(request, error);
      return;
    }
    if (result instanceof Promise) this.#answerLater(request, operation, result);
    else this.#answer(request, operation, result);
  }

  #answerLater(request: Request, operation: AnyOperation, result: Promise<unknown>): void {
    const canEnd = request.opcode === OP.READ || request.opcode === OP.WRITE;
    if (canEnd) {
      this.#waiting.add(request.unique, request.pid, this.#spareAbort);
      this.#spareAbort = new AbortController();
    }
    if (++this.#inFlight === MAX_IN_FLIGHT) this.#loop.pause();
    const settle = (): boolean => {
      if (this.#inFlight-- === MAX_IN_FLIGHT) this.#loop.resume();
      // one that is gone from here was interrupted and is answered already
      return !canEnd || this.#waiting.remove(request.unique);
    };
    result.then(
      (value) => {
        if (settle()) this.#answer(request, operation, value);
      },
      (error: unknown) => {
        if (settle()) this.#fail(request, error);
      },
    );
  }

  #answer(request: Request, operation: AnyOperation, value: unknown): void {
    if (!this.#isOpen) return;
    this.#reply.begin(request.unique);
    try {
      operation.encode(this.#reply, value, request);
    } catch (error) {
      this.#fail(request, error);
      return;
    }
    this.#check(this.#reply.send(), request.opcode);
  }

  #fail(request: Request, error: unknown): void {
    const errno = error instanceof MalformedRequest ? ERRNO.EIO : errnoOf(error);
    const facts = { opcode: opcodeName(request.opcode), ino: request.nodeid, errno };
    const isKnown = error instanceof XcoreError && error.code !== 'INTERNAL';
    const isSystem = error instanceof Error && 'errno' in error && typeof error.errno === 'number';
    if (!isKnown && !isSystem) this.#log.error({ ...facts, err: asError(error) }, 'request failed unexpectedly');
    else if (errno === ERRNO.EIO) this.#log.warn({ ...facts, err: error }, 'request failed');
    else this.#log.debug({ ...facts, code: isKnown ? error.code : undefined }, 'request refused');
    if (this.#isOpen) this.#check(this.#reply.sendError(request.unique, errno), request.opcode);
  }

  #interrupt(request: Request): void {
    const unique = request.u64(INTERRUPT_IN.unique);
    const reason = new XcoreError('EINTR', 'the caller was interrupted');
    const verdict = this.#waiting.interrupt(unique, reason, () => {
      // EAGAIN to an interrupt makes the kernel send it again
      if (this.#isOpen) this.#check(this.#reply.sendError(request.unique, ERRNO.EAGAIN), OP.INTERRUPT);
    });
    if (verdict === 'ended') this.#check(this.#reply.sendError(unique, ERRNO.EINTR), OP.INTERRUPT);
  }

  #init(request: Request): void {
    const agreement = negotiate(request, this.#writebackCache);
    if (!isSupported(agreement)) {
      this.#reply.sendError(request.unique, EPROTO);
      const spoken = `${agreement.kernelMajor}.${agreement.kernelMinor}`;
      this.#handshake.reject(
        new XcoreError('FUSE_MISSING', `this kernel speaks FUSE ${spoken}; Linux 5.4 or newer is needed`),
      );
      return;
    }
    this.#context.writebackCache = (agreement.flags & INIT.WRITEBACK_CACHE) !== 0;
    this.#context.extendedSetxattr = (agreement.flags & INIT.SETXATTR_EXT) !== 0;
    this.#context.unmasked = (agreement.flags & INIT.DONT_MASK) !== 0;
    this.#context.opensDirectories =
      this.#context.cacheDirectories && (agreement.flags & INIT.NO_OPENDIR_SUPPORT) !== 0;
    if (this.#context.opensDirectories) this.#components.filesystem.holdRemovedDirectories();
    this.#reply.begin(request.unique);
    putAgreement(this.#reply, agreement);
    this.#check(this.#reply.send(), request.opcode);
    if (isTooNew(agreement)) return;
    this.#log.debug({ ...agreement }, 'kernel and driver agree');
    this.#handshake.resolve();
  }

  /** ENOENT: the kernel gave the request up meanwhile. ENODEV: the mount is ending. */
  #check(result: number, opcode: number): void {
    if (result === 0 || result === -ENOENT || result === -ENODEV) return;
    this.#log.error({ opcode: opcodeName(opcode), errno: -result }, 'the kernel refused a reply');
  }

  #finish(errno: number): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (errno !== ENODEV) this.#log.error({ errno }, 'reading requests failed, the mount ends');
    this.#waiting.abortAll(new XcoreError('CLOSED', 'the mount has ended'));
    this.#handshake.reject(new XcoreError('FUSE_MISSING', 'the mount ended before it was usable'));
    void this.#notifier.stop().finally(() => {
      closeSync(this.#components.fd);
      this.#end.resolve();
    });
  }
}

/** The inodes of FORGET and BATCH_FORGET. */
function forgottenIn(request: Request): number[] {
  if (request.opcode === OP.FORGET) return [request.nodeid];
  const count = request.u32(BATCH_FORGET_IN.count);
  return Array.from({ length: count }, (_, n) => request.u64(BATCH_FORGET_IN.first + n * BATCH_FORGET_IN.each));
}

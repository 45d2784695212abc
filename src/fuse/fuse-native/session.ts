// One live mount of the fuse-native driver, seen from the daemon: answers the other process, and leaves
// no mount behind however that process ends.

import type { ChildProcess } from 'node:child_process';
import type { PathFilesystem } from './path-filesystem.ts';
import { MAX_WAITING } from './protocol.ts';
import type { FromChild, FromDaemon } from './protocol.ts';
import type { Session } from '../driver.ts';
import { mountAt } from '../mount-table.ts';
import { detachMount } from '../unmount.ts';
import { asError, errnoOf, ERRNO, hasCode, XcoreError } from '../../lib/errors.ts';
import type { Logger } from '../../lib/log.ts';

const START_TIMEOUT_MS = 30_000;
/** Most of what libfuse writes to stderr that is kept for a message. */
const MAX_STDERR_CHARS = 2048;

/** Parts of a session. */
export interface FuseNativeParts {
  readonly child: ChildProcess;
  /** Real path of the mount point. */
  readonly place: string;
  readonly log: Logger;
  readonly files: PathFilesystem;
}

/** Serves the calls of the process around fuse-native. */
export class FuseNativeSession implements Session {
  readonly ended: Promise<void>;
  readonly #parts: FuseNativeParts;
  readonly #started = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<void>();
  readonly #running = new Map<number, AbortController>();
  #device: string | null = null;
  #isOpen = true;
  #stderr = '';

  constructor(parts: FuseNativeParts) {
    this.#parts = parts;
    this.ended = this.#end.promise;
    const { child, log } = parts;
    child.on('message', (message: FromChild) => this.#receive(message));
    child.on('error', (error) => this.#started.reject(error));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_STDERR_CHARS);
      log.warn({ text: text.slice(0, MAX_STDERR_CHARS) }, 'from the fuse-native process');
    });
    child.once('close', (code, signal) => void this.#childEnded(code, signal));
  }

  /** Resolves when the mount is usable. */
  async start(): Promise<void> {
    const { child, place } = this.#parts;
    const deadline = setTimeout(() => {
      this.#started.reject(new XcoreError('FUSE_MISSING', `fuse-native did not mount ${place} in time`));
    }, START_TIMEOUT_MS);
    try {
      await this.#started.promise;
    } catch (error) {
      child.kill('SIGKILL');
      await this.ended;
      throw error;
    } finally {
      clearTimeout(deadline);
    }
    this.#device = mountAt(place)?.device ?? null;
  }

  /** What libfuse does here is a shell's `fusermount -uz`; this is the kernel driver's own way. */
  async unmount(options: { lazy?: boolean } = {}): Promise<void> {
    if (!this.#isOpen) return;
    const { place } = this.#parts;
    try {
      await detachMount(place, options.lazy === true);
    } catch (error) {
      if (!hasCode(error, 'NOT_MOUNTED')) throw error;
    }
    if (options.lazy !== true) await this.ended;
  }

  /** The kernel holds no attributes, and drops its pages with the next open: it cannot be told. */
  invalidateInode(): void {}

  invalidateEntry(): void {
    this.#parts.files.forgetNames();
  }

  invalidated(): Promise<void> {
    return Promise.resolve();
  }

  #receive(message: FromChild): void {
    switch (message.type) {
      case 'mounted':
        this.#started.resolve();
        return;
      case 'failed':
        this.#started.reject(this.#failure(message.missing, message.message));
        return;
      case 'cancel':
        this.#running.get(message.id)?.abort(new XcoreError('TIMEOUT'));
        return;
      case 'call':
        void this.#run(message);
        return;
    }
  }

  #failure(isMissing: boolean, message: string): XcoreError {
    if (!isMissing) {
      return new XcoreError('FUSE_MISSING', `fuse-native could not mount: ${this.#stderr.trim() || message}`);
    }
    return new XcoreError(
      'FUSE_MISSING',
      `the fuse-native driver cannot be loaded (${message}): install its library with "apt install libfuse2" and the ` +
        'package with "npm install fuse-native", or use --driver kernel',
    );
  }

  async #run({ id, name, args }: Extract<FromChild, { type: 'call' }>): Promise<void> {
    const abort = new AbortController();
    let answer: FromDaemon;
    try {
      if (this.#running.size >= MAX_WAITING) throw new XcoreError('EAGAIN');
      this.#running.set(id, abort);
      const { files } = this.#parts;
      const isWaiting = name === 'read' || name === 'write';
      answer = { id, errno: 0, value: await files.run(name, isWaiting ? [...args, abort.signal] : args) };
    } catch (error) {
      answer = { id, errno: errnoOf(error) };
      this.#report(name, error, answer.errno);
    } finally {
      this.#running.delete(id);
    }
    const { child } = this.#parts;
    if (child.connected) child.send(answer, () => undefined);
  }

  #report(name: string, error: unknown, errno: number): void {
    const isExpected = error instanceof Error && ('code' in error || 'errno' in error) && errno !== ERRNO.EIO;
    if (!isExpected) this.#parts.log.error({ operation: name, errno, err: asError(error) }, 'an operation failed');
  }

  async #childEnded(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    const { place, files, log } = this.#parts;
    this.#isOpen = false;
    for (const abort of this.#running.values()) abort.abort(new XcoreError('CLOSED'));
    try {
      const left = mountAt(place);
      const isOurs =
        left !== null && (this.#device === null ? left.type === 'fuse.xcore' : left.device === this.#device);
      if (isOurs) {
        log.error({ code, signal }, 'the fuse-native process ended before its mount; the mount is taken away');
        await detachMount(place, true);
      }
    } catch (error) {
      log.error({ err: asError(error) }, 'the mount could not be taken away');
    }
    await files.close();
    this.#started.reject(
      new XcoreError('FUSE_MISSING', `fuse-native ended (${signal ?? code}): ${this.#stderr.trim()}`),
    );
    this.#end.resolve();
  }
}

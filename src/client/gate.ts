// Holds a mount's requests back for the moment in which the volume under it is replaced.

import type { Filesystem } from '../vfs/filesystem.ts';

type Method = (...args: unknown[]) => unknown;

/** Open nearly always; while closed, requests wait. */
export class Gate {
  #closed: Promise<void> | null = null;

  /** Lets requests wait until the returned function is called. */
  close(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#closed = promise;
    return () => {
      this.#closed = null;
      resolve();
    };
  }

  /** The same filesystem behind this gate. */
  guard(filesystem: Filesystem): Filesystem {
    const guarded = new Map<PropertyKey, Method>();
    return new Proxy(filesystem, {
      get: (target, name): unknown => {
        const known = guarded.get(name);
        if (known !== undefined) return known;
        const method: unknown = Reflect.get(target, name, target);
        if (typeof method !== 'function') return method;
        const call: Method = (...args) => {
          if (this.#closed === null) return (method as Method).apply(target, args);
          // buffers are only lent for the time of the call
          const kept = args.map((arg) => (Buffer.isBuffer(arg) ? Buffer.from(arg) : arg));
          return this.#closed.then(() => owned((method as Method).apply(target, kept)));
        };
        guarded.set(name, call);
        return call;
      },
    });
  }
}

/** Bytes that are there at once are lent until the next call, which may come before the promise is looked at. */
function owned(result: unknown): unknown {
  if (!Array.isArray(result)) return result;
  return result.map((part: unknown) => (Buffer.isBuffer(part) ? Buffer.from(part) : part));
}

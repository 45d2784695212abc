// What one opcode is made of: decode and ask the filesystem, then encode its answer.

import type { ReplyWriter } from './reply.ts';
import type { Request } from './request.ts';
import type { Filesystem, Now } from '../vfs/filesystem.ts';

/** What handlers may use besides the request. */
export interface HandlerContext {
  readonly filesystem: Filesystem;
  /** The kernel caches writes: it reads through write-only handles and appends by itself. */
  readonly writebackCache: boolean;
  /** SETXATTR carries the long form of its body. */
  readonly extendedSetxattr: boolean;
  /** The kernel leaves the umask to the filesystem, which knows what folders hand down. */
  readonly unmasked: boolean;
  /** The kernel may remember that a name does not exist. */
  readonly negativeEntries: boolean;
  /** The kernel may keep a directory's listing while its names are valid. */
  readonly cacheDirectories: boolean;
  /** The kernel opens directories by itself, once it was told so, and keeps their listings. */
  readonly opensDirectories: boolean;
  /** Resolves when the kernel will ask for the attributes of an inode again; never rejects. */
  forgetAttributes(ino: number): Promise<void>;
  /** The same at once, of an inode that the request's caller holds until it is answered. */
  forgetHeldAttributes(ino: number): void;
  /** Signal that fires when the process behind this request is interrupted. */
  interruptSignal(request: Request): AbortSignal;
}

/** One opcode. `run` decodes the whole body before its first await; `encode` puts the reply's body. */
export interface Operation<Result> {
  run(request: Request, context: HandlerContext): Now<Result>;
  encode(reply: ReplyWriter, result: Result, request: Request): void;
}

/** An operation whose result type only its own two functions know. */
export type AnyOperation = Operation<unknown>;

/** Opcode → operation. */
export type OperationTable = ReadonlyMap<number, AnyOperation>;

/** Ties the two functions of an opcode together. */
export function operation<Result>(run: Operation<Result>['run'], encode: Operation<Result>['encode']): AnyOperation {
  return { run, encode };
}

/** The body of a reply that says nothing but "done". */
export function encodeNothing(): void {}

/** Applies `next` to a result that is there or will be, without a promise when it is there. */
export function chain<From, To>(value: Now<From>, next: (value: From) => Now<To>): Now<To> {
  return value instanceof Promise ? value.then(next) : next(value);
}

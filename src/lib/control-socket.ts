// The control socket of a process that runs in the background: newline-delimited JSON over a unix socket, {id, method, params} →
// {id, progress}*, then {id, result} or {id, error: {code, message}}. Knows no meaning of any call.

import { chmod, rm } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { asError, ERRNO, hasCode, XcoreError, type ErrorCode } from './errors.ts';
import type { Logger } from './log.ts';
import { readLines } from './lines.ts';
import { SOCKET_PATH_MAX_BYTES } from './paths.ts';

/** Longest line of a caller, and of an answer (a status with many hosts and problems). */
const MAX_REQUEST_BYTES = 65_536;
const MAX_ANSWER_BYTES = 4_194_304;
const MAX_CLIENTS = 32;
const MAX_CALLS_PER_CLIENT = 8;
const CONNECT_TIMEOUT_MS = 5_000;
const CALL_TIMEOUT_MS = 30_000;

/** Calls by name, each with what it is given and what it gives; both travel as JSON. */
export type Calls<C> = { readonly [M in keyof C]: { readonly params: object; readonly result: object } };

/** What a handler gets besides its parameters: how to tell progress, and when the caller has gone. */
export interface CallContext<P = unknown> {
  readonly progress: (progress: P) => void;
  readonly signal: AbortSignal;
}

/** One function a call. */
export type Handlers<C extends Calls<C>, P = unknown> = {
  [M in keyof C]: (params: C[M]['params'], context: CallContext<P>) => Promise<C[M]['result']>;
};

/** How a person is told of the one who answers. */
export interface ServerName {
  /** "the daemon", "the host". */
  readonly name: string;
  /** Another one answers already. */
  readonly busy: string;
  /** None answers; with its code. */
  readonly absent: string;
  readonly absentCode: ErrorCode;
}

/** A control socket that answers. */
export interface ControlServer {
  /**
   * Ends the listening and the connections, aborts calls under way, waits for them and removes the
   * socket. A handler must not wait for it: it is waited for itself.
   */
  close(): Promise<void>;
}

/** What a caller may choose. */
export interface CallOptions<P = unknown> {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: P) => void;
  /** Longest silence that is accepted; each progress starts it anew. 30 s unless told, Infinity for none. */
  readonly timeoutMs?: number;
}

/**
 * Listens on a socket of mode 0600, in place of a dead one; HOME_LOCKED when another process answers
 * there. The socket's folder is there already and private.
 */
export async function serveCalls<C extends Calls<C>, P = unknown>(
  path: string,
  handlers: Handlers<C, P>,
  who: ServerName,
): Promise<ControlServer> {
  if (Buffer.byteLength(path) > SOCKET_PATH_MAX_BYTES) {
    throw new XcoreError('USAGE', `${path} is too long for a unix socket; set a shorter XCORE_HOME`);
  }
  if (await answers(path, who)) throw new XcoreError('HOME_LOCKED', who.busy);
  await rm(path, { force: true });
  const clients = new Map<Socket, AbortController>();
  const calls = new Set<Promise<void>>();
  const server = createServer((socket) => {
    const controller = new AbortController();
    clients.set(socket, controller);
    socket.on('close', () => {
      clients.delete(socket);
      controller.abort();
    });
    serveClient(socket, handlers, calls, controller.signal);
  });
  server.maxConnections = MAX_CLIENTS;
  await listen(server, path);
  await chmod(path, 0o600);
  return {
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const controller of clients.values()) controller.abort();
      // Whatever the calls come to still reaches their callers.
      await Promise.all(calls);
      for (const socket of clients.keys()) socket.destroySoon();
      await closed;
      // a disk that has become read-only keeps it: whoever comes next takes its place
      await rm(path, { force: true }).catch(() => undefined);
    },
  };
}

/** As serveCalls(), and gives what ends it; where the path is too long for a socket nobody can call, which `log` is told. */
export async function serveCallsIfShort<C extends Calls<C>, P = unknown>(
  path: string,
  handlers: Handlers<C, P>,
  who: ServerName,
  log: Logger,
): Promise<() => Promise<void>> {
  try {
    const server = await serveCalls(path, handlers, who);
    return () => server.close();
  } catch (error) {
    if (!hasCode(error, 'USAGE')) throw error;
    log.warn({ err: error }, `${who.name} cannot be asked on this machine`);
    return () => Promise.resolve();
  }
}

/**
 * Makes one call and gives its result; rejects with the handler's code. `who.absentCode` when nobody
 * answers on the socket, TIMEOUT, or ABORTED.
 */
export async function callSocket<C extends Calls<C>, M extends keyof C & string, P = unknown>(
  path: string,
  method: M,
  params: C[M]['params'],
  who: ServerName,
  options: CallOptions<P> = {},
): Promise<C[M]['result']> {
  const socket = await connect(path, who);
  const timeoutMs = options.timeoutMs ?? CALL_TIMEOUT_MS;
  try {
    return await new Promise<C[M]['result']>((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const restart = (): void => {
        clearTimeout(timer);
        if (!Number.isFinite(timeoutMs)) return;
        timer = setTimeout(
          () => reject(new XcoreError('TIMEOUT', `${who.name} did not answer ${method} in ${timeoutMs / 1000} s`)),
          timeoutMs,
        );
      };
      const onAbort = (): void => reject(new XcoreError('ABORTED', `${method} was cancelled`));
      options.signal?.addEventListener('abort', onAbort, { once: true });
      if (options.signal?.aborted) onAbort();
      socket.on('close', () => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', onAbort);
        reject(new XcoreError('CLOSED', `${who.name} ended before it answered ${method}; its log tells why`));
      });
      socket.on('error', () => socket.destroy());
      readLines(socket, MAX_ANSWER_BYTES, (line) => {
        const answer = parseAnswer(line);
        if (answer === null) reject(new XcoreError('PROTOCOL', `${who.name} sent something that is not an answer`));
        else if (answer.error) reject(answer.error);
        else if (answer.progress !== undefined) {
          restart();
          options.onProgress?.(answer.progress as P);
        } else resolve(answer.result as C[M]['result']);
      });
      restart();
      socket.write(`${JSON.stringify({ id: 1, method, params })}\n`);
    });
  } finally {
    socket.destroy();
  }
}

type AnyHandlers = Readonly<Record<string, (params: object, context: CallContext) => Promise<object>>>;

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Connects, or fails with `who.absentCode` for an absent or dead socket. */
async function connect(path: string, who: ServerName): Promise<Socket> {
  if (Buffer.byteLength(path) > SOCKET_PATH_MAX_BYTES) {
    throw new XcoreError('USAGE', `${path} is too long for a unix socket: ${who.name} there cannot be asked`);
  }
  const socket = createConnection(path);
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new XcoreError('TIMEOUT', `${who.name} does not take calls`));
    }, CONNECT_TIMEOUT_MS);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (cause) => {
      clearTimeout(timer);
      reject(connectError(cause, path, who));
    });
  });
}

function connectError(cause: NodeJS.ErrnoException, path: string, who: ServerName): Error {
  const { code = '' } = cause;
  if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR'].includes(code))
    return new XcoreError(who.absentCode, who.absent, { cause });
  if (code !== 'EACCES') return cause;
  return new XcoreError('EACCES', `${path}: permission denied; only who runs ${who.name}, or root, may ask it`, {
    cause,
  });
}

async function answers(path: string, who: ServerName): Promise<boolean> {
  try {
    (await connect(path, who)).destroy();
    return true;
  } catch (error) {
    if (error instanceof XcoreError && error.code === who.absentCode) return false;
    throw error;
  }
}

function serveClient(socket: Socket, handlers: AnyHandlers, calls: Set<Promise<void>>, signal: AbortSignal): void {
  let active = 0;
  const send = (answer: object): void => {
    if (!socket.writable) return;
    // Progress may be dropped for a caller that does not read; the end of a call never is.
    if ('progress' in answer && socket.writableNeedDrain) return;
    socket.write(`${JSON.stringify(answer)}\n`);
  };
  const fail = (id: unknown, error: unknown): void => {
    const code = error instanceof XcoreError ? error.code : 'INTERNAL';
    send({ id, error: { code, message: asError(error).message } });
  };
  socket.on('error', () => socket.destroy());
  readLines(
    socket,
    MAX_REQUEST_BYTES,
    (line) => {
      const request = parseRequest(line, handlers);
      if (request === null || active >= MAX_CALLS_PER_CLIENT) {
        fail(request?.id ?? null, new XcoreError('PROTOCOL', request ? 'too many calls at once' : 'not a known call'));
        return;
      }
      active += 1;
      const call = answer(request, handlers, signal, send, fail).finally(() => {
        active -= 1;
        calls.delete(call);
      });
      calls.add(call);
    },
    () => {
      fail(null, new XcoreError('TOO_LARGE', `a request is at most ${MAX_REQUEST_BYTES} bytes`));
      socket.destroySoon();
    },
  );
}

async function answer(
  request: ControlRequest,
  handlers: AnyHandlers,
  signal: AbortSignal,
  send: (answer: object) => void,
  fail: (id: unknown, error: unknown) => void,
): Promise<void> {
  const { id, method, params } = request;
  const handler = handlers[method]!;
  try {
    const result = await handler(params, { signal, progress: (progress) => send({ id, progress }) });
    send({ id, result: result ?? {} });
  } catch (error) {
    fail(id, error);
  }
}

interface ControlRequest {
  readonly id: number;
  readonly method: string;
  readonly params: object;
}

function parseRequest(line: string, handlers: AnyHandlers): ControlRequest | null {
  const value = parseObject(line);
  if (value === null) return null;
  const { id, method, params } = value;
  if (typeof id !== 'number' || typeof method !== 'string' || !Object.hasOwn(handlers, method)) return null;
  if (typeof params !== 'object' || params === null) return null;
  return { id, method, params };
}

interface ControlAnswer {
  readonly progress?: unknown;
  readonly result?: unknown;
  readonly error?: XcoreError;
}

function parseAnswer(line: string): ControlAnswer | null {
  const value = parseObject(line);
  if (value === null) return null;
  if (typeof value['error'] !== 'object' || value['error'] === null) {
    return 'progress' in value || 'result' in value ? value : null;
  }
  const { code, message } = value['error'] as Record<string, unknown>;
  const known = typeof code === 'string' && Object.hasOwn(ERRNO, code) ? (code as ErrorCode) : 'INTERNAL';
  return { error: new XcoreError(known, typeof message === 'string' ? message : known) };
}

function parseObject(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

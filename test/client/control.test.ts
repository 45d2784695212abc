// The control socket: calls, progress and errors cross it; bad callers and dead sockets do no harm.

import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as readAll } from 'node:stream/consumers';
import t from 'tap';
import type { ControlCalls, MountStatus } from '../../src/client/control-api.ts';
import { callControl, serveControl, type ControlHandlers } from '../../src/client/control.ts';
import { XcoreError } from '../../src/lib/errors.ts';

const STATUS = { mountPoint: '/mnt', stagedBytes: 5 } as MountStatus;

const HANDLERS: ControlHandlers = {
  status: async () => STATUS,
  flush: async (_params, { progress }) => {
    for (let left = 3; left > 0; left--) progress({ remainingBytes: left, remainingShards: left, totalBytes: 3 });
    return {};
  },
  unmount: async ({ wait }: ControlCalls['unmount']['params']) => {
    throw new XcoreError('EBUSY', `files are open, wait is ${wait}`);
  },
  takeOver: async (_params, { signal }) => {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return {};
  },
};

// A short path: testdir can be too long for a socket.
const dir = mkdtempSync(join(tmpdir(), 'xc-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
let sockets = 0;
const newPath = (): string => join(dir, `${++sockets}.sock`);

/** What the server answers to raw text, until it or we close. */
async function raw(path: string, send: string | Buffer, half = true): Promise<string> {
  const socket = createConnection({ path, allowHalfOpen: true });
  socket.on('error', () => undefined);
  if (half) socket.end(send);
  else socket.write(send);
  return await readAll(socket);
}

await t.test('calls answer, tell progress and fail with their code', async (t) => {
  const path = newPath();
  const server = await serveControl(path, HANDLERS);
  t.teardown(() => server.close());
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.strictSame(await callControl(path, 'status', {}), STATUS);
  const seen: number[] = [];
  await callControl(path, 'flush', {}, { onProgress: (progress) => seen.push(progress.remainingBytes) });
  t.strictSame(seen, [3, 2, 1]);
  await t.rejects(callControl(path, 'unmount', { wait: true }), {
    code: 'EBUSY',
    message: 'files are open, wait is true',
  });
  const many = await Promise.all(Array.from({ length: 20 }, () => callControl(path, 'status', {})));
  t.equal(many.length, 20);
});

await t.test('a caller may give up or run out of time', async (t) => {
  const path = newPath();
  const server = await serveControl(path, HANDLERS);
  await t.rejects(callControl(path, 'takeOver', {}, { timeoutMs: 20 }), { code: 'TIMEOUT' });
  const controller = new AbortController();
  const call = callControl(path, 'takeOver', {}, { signal: controller.signal });
  controller.abort();
  await t.rejects(call, { code: 'ABORTED' });
  await t.rejects(callControl(path, 'status', {}, { signal: controller.signal }), { code: 'ABORTED' });
  const last = callControl(path, 'takeOver', {}, { timeoutMs: Infinity });
  await callControl(path, 'status', {});
  await server.close();
  t.strictSame(await last, {}, 'a call under way is aborted and its outcome told');
  await t.rejects(callControl(path, 'status', {}), { code: 'NOT_MOUNTED' });
});

await t.test('a dead socket is NOT_MOUNTED and is replaced; a live one is HOME_LOCKED', async (t) => {
  const path = newPath();
  await t.rejects(callControl(path, 'status', {}), { code: 'NOT_MOUNTED' });
  writeFileSync(path, '');
  await t.rejects(callControl(path, 'status', {}), { code: 'NOT_MOUNTED' });
  const server = await serveControl(path, HANDLERS);
  await t.rejects(serveControl(path, HANDLERS), { code: 'HOME_LOCKED' });
  t.strictSame(await callControl(path, 'status', {}), STATUS, 'the first goes on');
  await server.close();
  await t.rejects(serveControl(`/${'x'.repeat(107)}`, HANDLERS), { code: 'USAGE' });
});

await t.test('malformed and oversized requests get an error, and the server goes on', async (t) => {
  const path = newPath();
  const server = await serveControl(path, HANDLERS);
  t.teardown(() => server.close());
  for (const line of ['nonsense', '7', 'null', '{}', '{"id":1}', '{"id":1,"method":"toString","params":{}}']) {
    t.match(await raw(path, `${line}\n`), /"code":"PROTOCOL"/, line);
  }
  t.match(await raw(path, '{"id":1,"method":"status","params":{}}\n'.repeat(3)), /(.*"result".*\n){3}/);
  t.match(await raw(path, Buffer.alloc(70_000, 'x'), false), /"code":"TOO_LARGE"/);
  t.match(await raw(path, '{"id":1,"method":"takeOver","params":{}}\n'.repeat(9)), /too many calls/);
  t.strictSame(await callControl(path, 'status', {}), STATUS);
});

await t.test('a daemon that ends in the middle of a call is CLOSED', async (t) => {
  const path = newPath();
  const server = createServer((socket) => socket.on('error', () => undefined).once('data', () => socket.destroy()));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => server.close());
  await t.rejects(callControl(path, 'status', {}), { code: 'CLOSED' });
});

await t.test('an answer that is none is PROTOCOL', async (t) => {
  const path = newPath();
  const server = createServer((socket) => socket.on('error', () => undefined).end('hello\n'));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => server.close());
  await t.rejects(callControl(path, 'status', {}), { code: 'PROTOCOL' });
});

// The process around the fuse-native package. It knows no volume: every request goes to the daemon.
// It takes its mount away when the daemon is gone, and ends when its mount has.

import { readdirSync, readlinkSync } from 'node:fs';
import { setInterval as every } from 'node:timers/promises';
import { callbacksFor, xattrCallbacksFor } from './callbacks.ts';
import type { Ask } from './callbacks.ts';
import { createMount, loadPackage } from './package.ts';
import { ErrnoError, MAX_WAITING } from './protocol.ts';
import type { ChildSettings, FromChild, FromDaemon } from './protocol.ts';
import { mountAt } from '../mount-table.ts';
import { detachMount } from '../unmount.ts';
import { asError, ERRNO } from '../../lib/errors.ts';

const DEVICE = '/dev/fuse';
/** fuse-native does not tell when its mount has ended: libfuse then closes the device. */
const LOOK_INTERVAL_MS = 200;

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
  readonly deadline: NodeJS.Timeout;
}

const settings = JSON.parse(process.argv[2] ?? '') as ChildSettings;
const waiting = new Map<number, Waiting>();
let nextId = 1;
/** Of our mount, as in /proc/self/mountinfo. */
let device: string | undefined;

function send(message: FromChild): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

function settle(id: number): Waiting | undefined {
  const request = waiting.get(id);
  waiting.delete(id);
  clearTimeout(request?.deadline);
  return request;
}

const ask: Ask = (name, ...args) => {
  if (waiting.size >= MAX_WAITING) return Promise.reject(new ErrnoError(ERRNO.EAGAIN));
  if (!process.connected) return Promise.reject(new ErrnoError(ERRNO.EIO));
  const id = nextId++;
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => {
      settle(id)?.reject(new ErrnoError(ERRNO.EIO));
      send({ type: 'cancel', id });
    }, settings.deadlineMs);
    waiting.set(id, { resolve, reject, deadline });
    send({ type: 'call', id, name, args });
  });
};

process.on('message', ({ id, errno, value }: FromDaemon) => {
  const request = settle(id);
  if (errno === 0) request?.resolve(value as never);
  else request?.reject(new ErrnoError(errno));
});

/** No program may be left hanging on a mount that nobody serves. */
async function giveUp(exitCode: number): Promise<never> {
  for (const id of [...waiting.keys()]) settle(id)?.reject(new ErrnoError(ERRNO.EIO));
  // another mount may be at the place by now
  if (device !== undefined && mountAt(settings.mountPoint)?.device === device) {
    await detachMount(settings.mountPoint, true).catch(() => undefined);
  }
  process.exit(exitCode);
}

// the daemon decides when to end, not the terminal
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('uncaughtException', (error) => {
  process.stderr.write(`${error.stack ?? error.message}\n`);
  void giveUp(1);
});

function isServing(): boolean {
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === DEVICE;
    } catch {
      return false;
    }
  });
}

async function serve(): Promise<void> {
  let constructor;
  try {
    constructor = loadPackage();
  } catch (error) {
    send({ type: 'failed', missing: true, message: asError(error).message.split('\n')[0] ?? '' });
    return;
  }
  const { mountPoint, words } = settings;
  const mount = createMount(constructor, mountPoint, callbacksFor(ask), xattrCallbacksFor(ask), words);
  const failure = await new Promise<Error | null>((resolve) => mount.mount(resolve));
  if (failure !== null) {
    send({ type: 'failed', missing: false, message: failure.message });
    return;
  }
  device = mountAt(mountPoint)?.device;
  process.once('disconnect', () => void giveUp(0));
  if (!process.connected) await giveUp(0);
  send({ type: 'mounted' });
  for await (const _ of every(LOOK_INTERVAL_MS)) if (!isServing()) break;
}

await serve();
// libfuse's threads do not end by themselves
process.exit(0);

// Serves a MemoryFilesystem from a process of its own; the test speaks to it over IPC.

import { MemoryFilesystem } from './memory-filesystem.ts';
import { mountFuseNative } from '../../src/fuse/fuse-native/driver.ts';
import { mountKernel } from '../../src/fuse/kernel-driver.ts';
import type { MountOptions } from '../../src/fuse/driver.ts';
import { XcoreError, asError } from '../../src/lib/errors.ts';
import type { Logger } from '../../src/lib/log.ts';

/** What the child is started with, as JSON in its only argument. */
export interface ChildOptions extends Partial<MountOptions> {
  mountPoint: string;
  slow?: boolean;
  directIo?: boolean;
  driver?: 'kernel' | 'fuse-native';
  /** Of the fuse-native driver. */
  deadlineMs?: number;
}

/** What the child answers and reports. */
export type ChildMessage =
  | { type: 'mounted' }
  | { type: 'failed'; code: string; message: string }
  | { type: 'ended' }
  | { type: 'log'; level: string; message: string; facts: string }
  | { type: 'done'; id: number; error?: string };

/** What the test may ask of the child. */
export type ParentMessage =
  | { type: 'unmount'; id: number; lazy: boolean }
  | { type: 'replace'; id: number; name: string; content: string }
  | { type: 'invalidate'; id: number; name: string }
  | { type: 'add'; id: number; name: string }
  | { type: 'remove'; id: number; name: string };

function send(message: ChildMessage): void {
  if (process.send === undefined) process.stderr.write(`${JSON.stringify(message)}\n`);
  else process.send(message);
}

function logAt(level: string): Logger['info'] {
  return (facts, message = '') => {
    if (level === 'debug') return;
    const text = JSON.stringify(facts, (_key, value: unknown) => (value instanceof Error ? value.stack : value));

    send({ type: 'log', level, message, facts: text });
  };
}

const { slow, directIo, driver, deadlineMs, ...given } = JSON.parse(process.argv[2] ?? '{}') as ChildOptions;
const memory = new MemoryFilesystem({ slow, directIo });
const log: Logger = {
  debug: logAt('debug'),
  info: logAt('info'),
  warn: logAt('warn'),
  error: logAt('error'),
  child: () => log,
};

try {
  const mount: typeof mountFuseNative = driver === 'fuse-native' ? mountFuseNative : mountKernel;
  const session = await mount(
    memory.asFilesystem(),
    {
      readOnly: false,
      allowOther: false,
      writebackCache: true,
      entryTimeoutMs: 60_000,
      attributeTimeoutMs: 60_000,
      negativeTimeoutMs: 60_000,
      fsName: 'xcore-test',
      ...given,
    },
    { log },
    { deadlineMs },
  );
  const answers = new Set<Promise<void>>();
  process.on('message', (message: ParentMessage) => {
    const answer = (async () => {
      if (message.type === 'unmount') await session.unmount({ lazy: message.lazy });
      if (message.type === 'invalidate') session.invalidateEntry(1, message.name);
      if (message.type === 'add') {
        memory.addBehind(message.name);
        session.invalidateEntry(1, message.name);
      }
      if (message.type === 'remove') {
        memory.removeBehind(message.name);
        session.invalidateEntry(1, message.name);
      }
      if (message.type === 'replace') {
        const { ino } = memory.replaceContent(message.name, Buffer.from(message.content));
        session.invalidateInode(ino);
      }
      await session.invalidated();
    })().then(
      () => send({ type: 'done', id: message.id }),
      (error: unknown) =>
        send({ type: 'done', id: message.id, error: error instanceof XcoreError ? error.code : String(error) }),
    );
    answers.add(answer);
    void answer.finally(() => answers.delete(answer));
  });
  send({ type: 'mounted' });
  await session.ended;
  await Promise.all(answers);
  send({ type: 'ended' });
} catch (error) {
  const failure = asError(error);
  send({ type: 'failed', code: error instanceof XcoreError ? error.code : '?', message: failure.message });
}
if (process.connected) process.disconnect();

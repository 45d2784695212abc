// The network's worker thread: a ClientNetwork that is called by messages.

import { parentPort, workerData } from 'node:worker_threads';
import type { Transferable } from 'node:worker_threads';
import { ClientNetwork } from './client-network.ts';
import type { NetworkEvents } from './network.ts';
import { packError, SIGNAL_PLACE, unpackError } from './worker-messages.ts';
import type { RemoteMethod, WorkerInput, WorkerRequest, WorkerResponse } from './worker-messages.ts';

const port = parentPort;
if (!port) throw new TypeError('worker.ts runs as a worker thread');
const network = new ClientNetwork((workerData as WorkerInput).options);
const callable = network as unknown as Record<RemoteMethod, (...args: unknown[]) => Promise<unknown>>;
const cancels = new Map<number, AbortController>();

function answer(message: WorkerResponse, transfer: Transferable[] = []): void {
  port?.postMessage(message, transfer);
}

async function call({ id, method, args }: Extract<WorkerRequest, { type: 'call' }>): Promise<void> {
  const place = SIGNAL_PLACE[method];
  const full = [...args];
  if (place !== undefined) {
    const controller = new AbortController();
    cancels.set(id, controller);
    full[place] = controller.signal;
  }
  try {
    const value = await callable[method](...full);
    const owned = method === 'fetchLeaves' && value instanceof Uint8Array ? ownBuffer(value) : [];
    answer({ type: 'result', id, value }, owned);
  } catch (error) {
    answer({ type: 'failure', id, error: packError(error) });
  } finally {
    cancels.delete(id);
  }
}

/** The memory behind a value, if nothing else lives in it: it is handed over instead of copied. */
function ownBuffer({ buffer, byteLength }: Uint8Array): Transferable[] {
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? [buffer] : [];
}

function forward<E extends keyof NetworkEvents>(event: E): void {
  const listener = (value: unknown): void => answer({ type: 'event', event, value });
  network.on(event, listener);
}

forward('connection');
forward('head');
forward('lease');

port.on('message', (message: WorkerRequest) => {
  if (message.type === 'call') void call(message);
  else if (message.type === 'abort') cancels.get(message.id)?.abort(unpackError(message.reason));
  else {
    network.stop().then(
      () => answer({ type: 'stopped' }),
      (error: unknown) => answer({ type: 'stopped', error: packError(error) }),
    );
  }
});

await network.start();
answer({ type: 'started' });

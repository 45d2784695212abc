// The network's worker thread: a ClientNetwork that is called by messages.

import { parentPort, workerData } from 'node:worker_threads';
import type { MessagePort, Transferable } from 'node:worker_threads';
import { ClientNetwork } from './client-network.ts';
import type { NetworkEvents } from './network.ts';
import { packError, SIGNAL_PLACE, unpackError } from './worker-messages.ts';
import type { RemoteMethod, WorkerInput, WorkerRequest, WorkerResponse } from './worker-messages.ts';

type Callable = Record<RemoteMethod, (...args: unknown[]) => Promise<unknown>>;

/** Serves one ClientNetwork to the thread at the other end of the port. */
async function serve(port: MessagePort, { options }: WorkerInput): Promise<void> {
  const answer = (message: WorkerResponse, transfer: Transferable[] = []): void => port.postMessage(message, transfer);
  let network: ClientNetwork;
  try {
    network = new ClientNetwork(options);
    await network.start();
  } catch (error) {
    answer({ type: 'unusable', error: packError(error) });
    return;
  }
  const forward = <E extends keyof NetworkEvents>(event: E): void => {
    const listener = (value: unknown): void => answer({ type: 'event', event, value });
    network.on(event, listener);
  };
  forward('connection');
  forward('head');
  forward('lease');

  const callable = network as unknown as Callable;
  const cancels = new Map<number, AbortController>();
  const call = async ({ id, method, args }: Extract<WorkerRequest, { type: 'call' }>): Promise<void> => {
    const full = [...args];
    const place = SIGNAL_PLACE[method];
    if (place !== undefined) {
      const controller = new AbortController();
      cancels.set(id, controller);
      full[place] = controller.signal;
    }
    try {
      const value = await callable[method](...full);
      answer({ type: 'result', id, value }, method === 'fetchLeaves' ? ownMemory(value) : []);
    } catch (error) {
      answer({ type: 'failure', id, error: packError(error) });
    } finally {
      cancels.delete(id);
    }
  };

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
  answer({ type: 'started' });
}

/** The memory behind bytes, if nothing else lives in it: it is handed over instead of copied. */
function ownMemory(value: unknown): Transferable[] {
  if (!(value instanceof Uint8Array) || !(value.buffer instanceof ArrayBuffer)) return [];
  return value.buffer.byteLength === value.byteLength ? [value.buffer] : [];
}

if (!parentPort) throw new TypeError('worker.ts runs as a worker thread');
await serve(parentPort, workerData as WorkerInput);

// A host's control socket: its calls, and how it is reached. Knows no network and no files.

import { join } from 'node:path';
import { callSocket, serveCallsIfShort } from '../lib/control-socket.ts';
import type { CallOptions, Handlers, ServerName } from '../lib/control-socket.ts';
import type { Logger } from '../lib/log.ts';
import type { HostCalls, HostProgress } from './control-api.ts';

/** One function a call. */
export type HostHandlers = Handlers<HostCalls, HostProgress>;

function hostIn(dir: string): ServerName {
  return {
    name: 'the host',
    busy: `another host answers for ${dir} already; stop it, or choose another folder`,
    absent: `no host runs on ${dir}; start it with xcore serve, or name its folder with --dir`,
    absentCode: 'UNREACHABLE',
  };
}

/** The socket of the host in a folder. */
export function hostSocket(dir: string): string {
  return join(dir, 'control.sock');
}

/** Listens for calls, as serveCallsIfShort() does. */
export function serveHostControl(dir: string, handlers: HostHandlers, log: Logger): Promise<() => Promise<void>> {
  return serveCallsIfShort<HostCalls, HostProgress>(hostSocket(dir), handlers, hostIn(dir), log);
}

/** Makes one call to the host in a folder, as callSocket() does; UNREACHABLE when none runs. */
export function callHost<M extends keyof HostCalls>(
  dir: string,
  method: M,
  params: HostCalls[M]['params'],
  options: CallOptions<HostProgress> = {},
): Promise<HostCalls[M]['result']> {
  return callSocket<HostCalls, M, HostProgress>(hostSocket(dir), method, params, hostIn(dir), options);
}

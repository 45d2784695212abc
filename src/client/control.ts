// The control socket of the daemon behind a mount: its calls on src/lib/control-socket.ts.

import { callSocket, serveCalls } from '../lib/control-socket.ts';
import type { CallOptions, ControlServer, Handlers, ServerName } from '../lib/control-socket.ts';
import type { ControlCalls, FlushProgress } from './control-api.ts';

export type { CallOptions, ControlServer };

/** A call's name. */
export type ControlMethod = keyof ControlCalls;

/** One function a call. */
export type ControlHandlers = Handlers<ControlCalls, FlushProgress>;

const DAEMON: ServerName = {
  name: 'the daemon',
  busy: 'another xcore serves a mount of this home already; see xcore status',
  absent: 'nothing is mounted; start with xcore mount DIR',
  absentCode: 'NOT_MOUNTED',
};

/** Listens as serveCalls() does; HOME_LOCKED when another daemon answers there. */
export function serveControl(path: string, handlers: ControlHandlers): Promise<ControlServer> {
  return serveCalls<ControlCalls, FlushProgress>(path, handlers, DAEMON);
}

/** Makes one call as callSocket() does; NOT_MOUNTED when no daemon answers. */
export function callControl<M extends ControlMethod>(
  path: string,
  method: M,
  params: ControlCalls[M]['params'],
  options: CallOptions<FlushProgress> = {},
): Promise<ControlCalls[M]['result']> {
  return callSocket<ControlCalls, M, FlushProgress>(path, method, params, DAEMON, options);
}

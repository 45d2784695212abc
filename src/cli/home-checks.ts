// Whether this home is sound: room on its disk, closed to others, an identity that opens, a bridge that answers.

import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { dirname, join } from 'node:path';
import { multiaddr } from '@multiformats/multiaddr';
import { identityState, loadConfig } from '../client/identity.ts';
import { callHost } from '../host/control.ts';
import { clockAdvice, reachabilityAdvice } from '../host/host-control.ts';
import { asError, hasCode } from '../lib/errors.ts';
import { checkPrivateFolder, type Paths } from '../lib/paths.ts';
import { formatBytes } from '../lib/units.ts';
import { missing, ok, warning, type Check } from './check.ts';
import { findMount } from './find-mount.ts';

const LEAST_FREE_BYTES = 64 * 2 ** 20;
const COMFORTABLE_FREE_BYTES = 2 ** 30;
const DIAL_TIMEOUT_MS = 5_000;

/** Free room on the disk that a folder is or will be on. */
export async function freeBytes(path: string): Promise<number> {
  for (let folder = path; ; folder = dirname(folder)) {
    const info = await statfs(folder).catch(() => null);
    if (info !== null) return info.bavail * info.bsize;
    if (folder === dirname(folder)) return 0;
  }
}

/** Room for staged data and the cache. */
export async function checkDisk(paths: Paths): Promise<Check> {
  const free = await freeBytes(paths.volume);
  const detail = `${formatBytes(free)} free for ${paths.volume}`;
  const fix = 'make room, or set XCORE_HOME to a larger disk';
  if (free < LEAST_FREE_BYTES) return missing('disk', detail, fix);
  return free < COMFORTABLE_FREE_BYTES ? warning('disk', detail, fix) : ok('disk', detail);
}

/** Owner and modes of the home's folders. */
export async function checkHome(paths: Paths): Promise<Check> {
  const name = 'home';
  try {
    const folders = new Set([paths.config, dirname(paths.volume), dirname(paths.log), dirname(paths.controlSocket)]);
    for (const folder of folders) checkPrivateFolder(folder);
    return ok(name, paths.home ?? [...folders].join(', '));
  } catch (error) {
    return missing(name, asError(error).message, 'see there');
  }
}

/** The identity file. */
export async function checkIdentity(paths: Paths): Promise<Check> {
  const name = 'identity';
  try {
    const state = await identityState(paths);
    if (state === 'absent') return warning(name, `none in ${paths.config} yet`, 'xcore mount or xcore init makes one');
    return ok(name, `${paths.identityFile}${state === 'locked' ? ', locked with a passphrase' : ''}`);
  } catch (error) {
    return missing(name, asError(error).message, 'see there');
  }
}

/** Whether something takes connections where the configured bridge should be. */
export async function checkBridge(paths: Paths): Promise<Check> {
  const name = 'bridge';
  try {
    const { bridge } = await loadConfig(paths);
    if (bridge === null) return ok(name, 'none configured: the network is on this machine only');
    const values = new Map(
      multiaddr(bridge)
        .getComponents()
        .map((component) => [component.name, component.value ?? '']),
    );
    const host = ['ip4', 'ip6', 'dns', 'dns4', 'dns6'].map((kind) => values.get(kind)).find(Boolean);
    const port = Number(values.get('tcp') ?? 0);
    if (host === undefined || port === 0) return warning(name, `${bridge} is not dialled over TCP`, 'see there');
    if (await answers(host, port)) return ok(name, `${bridge} answers`);
    const effect = existsSync(join(paths.volume, 'current'))
      ? 'a mount works from local state and catches up'
      : 'the first mount of this home cannot do without';
    return warning(name, `${bridge} does not answer`, `${effect}; start the bridge or check the network`);
  } catch (error) {
    return missing(name, asError(error).message, `correct ${paths.configFile}`);
  }
}

/** Whether others can connect to the host that runs in this home, if one does. */
export async function checkHost(paths: Paths): Promise<Check> {
  const name = 'host';
  try {
    const { reachability, bridge, space, clockAheadMs } = await callHost(paths.host, 'status', {});
    const [advice] = [...clockAdvice(clockAheadMs), ...reachabilityAdvice(reachability)];
    if (advice !== undefined) return warning(name, advice, 'xcore host status tells whether it has helped');
    if (!bridge.connected) return warning(name, 'it is not connected to its bridge', 'xcore host status tells more');
    if (space.freeBytes === 0) return warning(name, 'it can store nothing more', 'xcore host status tells why');
    return ok(name, reachability.state === 'direct' ? 'it runs, and others can connect to it' : 'it runs');
  } catch (error) {
    if (hasCode(error, 'UNREACHABLE')) return ok(name, 'none runs in this home');
    return warning(name, asError(error).message, 'see there');
  }
}

/** What the mount of this home says is wrong, if there is one. */
export async function checkMount(paths: Paths): Promise<Check> {
  const name = 'mount';
  try {
    const mount = await findMount(paths);
    if (mount === null) return ok(name, 'none of this home');
    // the newest comes last
    const problem = mount.problems.at(-1);
    if (problem === undefined) return ok(name, mount.mountPoint);
    return warning(
      name,
      `${mount.mountPoint}: ${problem.message}`,
      'xcore status tells all that is wrong, and what to do',
    );
  } catch (error) {
    return warning(name, asError(error).message, 'xcore status tells more');
  }
}

async function answers(host: string, port: number): Promise<boolean> {
  const socket = createConnection({ host, port, timeout: DIAL_TIMEOUT_MS });
  try {
    return await new Promise((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('timeout', () => resolve(false));
      socket.once('error', () => resolve(false));
    });
  } finally {
    socket.destroy();
  }
}

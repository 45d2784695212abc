// Where everything of one xcore home lies, and that nobody else may look in.

import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, rmdirSync, statSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { XcoreError } from './errors.ts';

/** Folders and files of one home; absolute. */
export interface Paths {
  /** $XCORE_HOME or null where the XDG folders are used. */
  readonly home: string | null;
  /** Folder of identity file and config. */
  readonly config: string;
  readonly identityFile: string;
  readonly configFile: string;
  /** Index, segments, cache and set-aside work of the volume. */
  readonly volume: string;
  readonly run: string;
  /** Unix socket of the daemon, at most SOCKET_PATH_MAX_BYTES long; its folder is 0700. */
  readonly controlSocket: string;
  readonly log: string;
  readonly daemonLog: string;
  /** Compiled code, so that a start is quick and takes little memory. */
  readonly codeCache: string;
  readonly localNetwork: string;
  readonly bridge: string;
  readonly host: string;
}

/** sun_path of unix(7) is 108 bytes with its closing NUL. */
export const SOCKET_PATH_MAX_BYTES = 107;

/** Lays out a home for an environment; makes nothing. USAGE when XCORE_HOME is not an absolute path. */
export function homePaths(env: NodeJS.ProcessEnv, uid: number = process.getuid?.() ?? 0): Paths {
  const home = env['XCORE_HOME'];
  if (home !== undefined && home !== '') {
    const root = resolve(home);
    return layout(root, root, root, join(root, 'run'), root, env, uid);
  }
  const user = env['HOME'] !== undefined && env['HOME'] !== '' ? env['HOME'] : homedir();
  const xdg = (name: string, fallback: string): string => {
    const value = env[name];
    // The XDG specification says to ignore relative paths.
    return join(value !== undefined && isAbsolute(value) ? value : join(user, fallback), 'xcore');
  };
  const state = xdg('XDG_STATE_HOME', '.local/state');
  const runtime = env['XDG_RUNTIME_DIR'];
  const run = runtime !== undefined && isAbsolute(runtime) ? join(runtime, 'xcore') : join(state, 'run');
  return layout(null, xdg('XDG_CONFIG_HOME', '.config'), xdg('XDG_DATA_HOME', '.local/share'), run, state, env, uid);
}

function layout(
  home: string | null,
  config: string,
  data: string,
  run: string,
  state: string,
  env: NodeJS.ProcessEnv,
  uid: number,
): Paths {
  return {
    home,
    config,
    identityFile: join(config, 'identity.json'),
    configFile: join(config, 'config.json'),
    volume: join(data, 'volume'),
    run,
    controlSocket: socketPath(join(run, 'control.sock'), env, uid),
    log: join(state, 'log'),
    daemonLog: join(state, 'log', 'daemon.log'),
    codeCache: join(state, 'code-cache'),
    localNetwork: join(data, 'local-network'),
    bridge: join(data, 'bridge'),
    host: join(data, 'host'),
  };
}

/** The path itself if a socket can have it, else one made of its hash in a short folder of this user's. */
function socketPath(wanted: string, env: NodeJS.ProcessEnv, uid: number): string {
  if (Buffer.byteLength(wanted) <= SOCKET_PATH_MAX_BYTES) return wanted;
  const name = `${createHash('sha256').update(wanted).digest('hex').slice(0, 32)}.sock`;
  const runtime = env['XDG_RUNTIME_DIR'];
  if (runtime !== undefined && isAbsolute(runtime)) {
    const path = join(runtime, 'xcore', name);
    if (Buffer.byteLength(path) <= SOCKET_PATH_MAX_BYTES) return path;
  }
  const folder = `xcore-${uid}`;
  const path = join(tmpdir(), folder, name);
  return Buffer.byteLength(path) <= SOCKET_PATH_MAX_BYTES ? path : join('/tmp', folder, name);
}

/** Makes or checks the folders of a home that hold secrets or state, and returns those that it made; errors as ensurePrivateFolder. */
export function ensureHome(paths: Paths): string[] {
  const folders = new Set([
    ...(paths.home === null ? [] : [paths.home]),
    ...[paths.config, dirname(paths.volume), dirname(paths.log), dirname(paths.controlSocket)],
  ]);
  const made: string[] = [];
  try {
    for (const path of folders) made.push(...ensurePrivateFolder(path));
  } catch (error) {
    removeEmptyFolders(made);
    throw error;
  }
  return made;
}

/** Removes folders that were made, as far as nothing is in them. */
export function removeEmptyFolders(made: readonly string[]): void {
  for (const path of made.toReversed()) {
    try {
      rmdirSync(path);
    } catch {
      // it is in use
    }
  }
}

/**
 * Makes a private folder (0700, parents too), closes one that is ours and still empty, or checks
 * one that is in use: FOREIGN_HOME when it belongs to another user or is not a folder, UNSAFE_MODE
 * when others may look in or write. Returns the folders that it made, parents first.
 */
export function ensurePrivateFolder(path: string, uid: number = process.getuid?.() ?? 0): string[] {
  let made: string[];
  try {
    made = makeFolders(path);
  } catch (cause) {
    if (codeOf(cause) === 'EEXIST' || codeOf(cause) === 'ENOTDIR') {
      throw new XcoreError('FOREIGN_HOME', `${path} is not a folder; move it away or set XCORE_HOME`, { cause });
    }
    if (['EACCES', 'EROFS', 'EPERM', 'ENOENT'].includes(codeOf(cause) ?? '')) {
      throw new XcoreError('FOREIGN_HOME', `${path} cannot be made here; set XCORE_HOME to a folder of your own`, {
        cause,
      });
    }
    throw cause;
  }
  const stat = statSync(path);
  if (stat.isDirectory() && stat.uid === uid && (stat.mode & 0o077) !== 0 && readdirSync(path).length === 0) {
    chmodSync(path, 0o700);
  }
  checkPrivateFolder(path, uid);
  return made;
}

/** mkdir -p with mode 0700, which returns what it made; Node's own never ends where the kernel refuses with ENOENT, as below /proc. */
export function makeFolders(path: string): string[] {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [];
  const parent = dirname(path);
  const made = parent === path ? [] : makeFolders(parent);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another process may have been quicker.
    if (codeOf(error) !== 'EEXIST' || !statSync(path).isDirectory()) throw error;
    return made;
  }
  return [...made, path];
}

/** The checks of ensurePrivateFolder on a folder that may be absent, which is fine. */
export function checkPrivateFolder(path: string, uid: number = process.getuid?.() ?? 0): void {
  let stat;
  try {
    // Follows a link: one that the user made is theirs to point, what it points at is checked.
    stat = statSync(path);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return;
    throw new XcoreError('FOREIGN_HOME', `${path} cannot be looked at; set XCORE_HOME to a folder of your own`, {
      cause,
    });
  }
  judge(path, stat, uid);
}

function judge(path: string, stat: { uid: number; mode: number; isDirectory(): boolean }, uid: number): void {
  if (!stat.isDirectory()) throw new XcoreError('FOREIGN_HOME', `${path} is not a folder; move it away`);
  if (stat.uid !== uid) {
    throw new XcoreError(
      'FOREIGN_HOME',
      `${path} belongs to another user (uid ${stat.uid}); set XCORE_HOME to a folder of your own`,
    );
  }
  if ((stat.mode & 0o077) !== 0) {
    const mode = (stat.mode & 0o777).toString(8);
    throw new XcoreError('UNSAFE_MODE', `${path} is open to other users (mode ${mode}); type: chmod 700 '${path}'`);
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

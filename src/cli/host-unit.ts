// The systemd unit of a host: its name, its place and its text. Writes nothing.

import { userInfo } from 'node:os';
import { join } from 'node:path';

/** First line of every unit that xcore writes; a unit without it is somebody else's. */
export const UNIT_MARK =
  '# Written by xcore serve --install, which replaces it, and removed by xcore serve --uninstall.';

/** Whose systemd a unit is for. */
export type UnitScope = 'system' | 'user';

/** Where a unit goes. */
export interface UnitPlace {
  readonly scope: UnitScope;
  /** As in xcore-host.service. */
  readonly name: string;
  readonly path: string;
}

/** What a unit says. */
export interface UnitContent {
  readonly scope: UnitScope;
  /** Folder of the shards, absolute; the only one that a system unit may write to. */
  readonly dir: string;
  /** Program and arguments, the program absolute. */
  readonly command: readonly string[];
}

/** The place of the unit for a folder, null standing for the usual one: the system's for root, else the user's. */
export function unitPlace(
  dir: string | null,
  env: NodeJS.ProcessEnv,
  uid: number = process.getuid?.() ?? 0,
): UnitPlace {
  const scope = uid === 0 ? 'system' : 'user';
  const name = `xcore-host${dir === null ? '' : `-${dir.replace(/^\/+/, '').replaceAll(/[^\w.]+/g, '-')}`}.service`;
  return { scope, name, path: join(unitFolder(scope, env), name) };
}

/** The unit's text. */
export function unitText({ scope, dir, command }: UnitContent): string {
  const system = scope === 'system';
  return [
    UNIT_MARK,
    '',
    '[Unit]',
    `Description=xcore host, lends room in ${literal(dir)}`,
    ...(system ? ['Wants=network-online.target', 'After=network-online.target'] : []),
    '',
    '[Service]',
    'Type=exec',
    `ExecStart=${command.map(quoted).join(' ')}`,
    'Restart=on-failure',
    'RestartSec=10',
    'TimeoutStopSec=60',
    'UMask=0077',
    'Nice=10',
    'IOSchedulingClass=best-effort',
    'IOSchedulingPriority=7',
    // A user's systemd may not be allowed to build such walls, and then starts nothing.
    ...(system
      ? [
          'NoNewPrivileges=yes',
          'PrivateTmp=yes',
          'ProtectSystem=strict',
          'ProtectHome=read-only',
          `ReadWritePaths=${quoted(dir)}`,
          'CapabilityBoundingSet=CAP_NET_BIND_SERVICE',
        ]
      : []),
    '',
    '[Install]',
    `WantedBy=${system ? 'multi-user.target' : 'default.target'}`,
    '',
  ].join('\n');
}

/** What to type for a unit to run now and at each start; for a user's, also while that user is not logged in. */
export function unitCommands({ scope, name }: UnitPlace): string[] {
  const systemctl = scope === 'user' ? 'systemctl --user' : 'systemctl';
  return [`${systemctl} daemon-reload`, `${systemctl} enable ${name}`, `${systemctl} restart ${name}`];
}

/** What lets a user's units run while that user is not logged in. */
export function lingerCommand(): string {
  return `loginctl enable-linger ${userInfo().username}`;
}

/** Where systemd looks, systemd.unit(5); SYSTEMD_UNIT_PATH goes before, as it does there. */
function unitFolder(scope: UnitScope, env: NodeJS.ProcessEnv): string {
  const [told] = (env['SYSTEMD_UNIT_PATH'] ?? '').split(':');
  if (told !== undefined && told.startsWith('/')) return told;
  if (scope === 'system') return '/etc/systemd/system';
  const config = env['XDG_CONFIG_HOME'];
  const home = env['HOME'] ?? userInfo().homedir;
  return join(config !== undefined && config.startsWith('/') ? config : join(home, '.config'), 'systemd', 'user');
}

/** systemd.syntax(7), systemd.service(5) "Command lines": C escapes inside double quotes, % and $ doubled. */
function quoted(text: string): string {
  const escaped = text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n').replaceAll('$', '$$$$');
  return /^[\w@%+=:,./-]+$/.test(text) ? literal(text) : `"${literal(escaped)}"`;
}

function literal(text: string): string {
  return text.replaceAll('%', '%%').replaceAll('\n', ' ');
}

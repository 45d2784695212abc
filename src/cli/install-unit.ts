// Installs a host's systemd unit, and removes it. Does what systemd lets it do, and says what is left to type.

import { execFile } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import { XcoreError } from '../lib/errors.ts';
import { UNIT_MARK, unitCommands } from './host-unit.ts';
import type { UnitPlace } from './host-unit.ts';

const SYSTEMCTL_TIMEOUT_MS = 60_000;
const UNIT_MODE = 0o644;

/** How an installation ended. */
export interface Installed {
  /** Whether the file was written or removed; false when it was as it should be. */
  readonly changed: boolean;
  /** Whether systemd has taken notice. */
  readonly done: boolean;
  /** What is left to type when it has not. */
  readonly commands: readonly string[];
}

/** Writes the unit and has systemd run it, now and at each start. EBUSY for a unit of that name that is not ours. */
export async function installUnit(place: UnitPlace, text: string): Promise<Installed> {
  const before = await readOurs(place);
  if (before !== text) {
    await mkdir(dirname(place.path), { recursive: true, mode: 0o755 });
    await writeFileAtomic(place.path, text, { mode: UNIT_MODE });
  }
  return { changed: before !== text, ...(await typed(unitCommands(place))) };
}

/** Stops the unit and removes it; one that is not there is fine. EBUSY for one that is not ours. */
export async function uninstallUnit(place: UnitPlace): Promise<Installed> {
  if ((await readOurs(place)) === null) return { changed: false, done: true, commands: [] };
  const [reload = ''] = unitCommands(place);
  const stopped = await typed([reload.replace('daemon-reload', `disable --now ${place.name}`)]);
  await rm(place.path, { force: true });
  const reloaded = await typed([reload]);
  return { changed: true, done: reloaded.done, commands: [...stopped.commands, ...reloaded.commands] };
}

async function readOurs({ path, name }: UnitPlace): Promise<string | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  if (text.startsWith(UNIT_MARK)) return text;
  throw new XcoreError('EBUSY', `${path} was not written by xcore and was left alone; move it away, or rename ${name}`);
}

/** Runs commands one after another; those from the first that fails on are left to be typed. */
async function typed(commands: readonly string[]): Promise<{ done: boolean; commands: readonly string[] }> {
  for (const [index, command] of commands.entries()) {
    if (!(await succeeds(command.split(' ')))) return { done: false, commands: commands.slice(index) };
  }
  return { done: true, commands: [] };
}

function succeeds([program = '', ...args]: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: SYSTEMCTL_TIMEOUT_MS }, (error) => resolve(error === null));
  });
}

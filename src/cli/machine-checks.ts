// Whether Node and the native parts work on this machine.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { asError } from '../lib/errors.ts';
import { missing, ok, type Check } from './check.ts';

const REINSTALL = 'install the package anew, with its install scripts allowed: npm ci';

/** The version of Node that runs this. */
export async function checkNode(): Promise<Check> {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  return major > 22 || (major === 22 && minor >= 18)
    ? ok('node', process.versions.node)
    : missing('node', `${process.versions.node} is too old`, 'use Node 22.18 or newer');
}

/** The library that calls the C library for mounts. */
export async function checkKoffi(): Promise<Check> {
  try {
    const { default: koffi } = await import('koffi');
    return ok('koffi', koffi.version);
  } catch (error) {
    return missing('koffi', asError(error).message, REINSTALL);
  }
}

/** The library of the portable driver, which nobody needs on Linux: fine without. */
export async function checkLibfuse(): Promise<Check> {
  const name = 'libfuse 2 (optional)';
  const { default: koffi } = await import('koffi');
  try {
    koffi.load('libfuse.so.2');
    return ok(name, 'there, for --driver fuse-native');
  } catch {
    return ok(name, 'not installed; only --driver fuse-native wants it (apt install libfuse2)');
  }
}

/** The database of index and bridge, opened, written and read once. */
export async function checkLevel(): Promise<Check> {
  let dir: string | undefined;
  try {
    dir = await mkdtemp(join(tmpdir(), 'xcore-doctor-'));
    const level = new Level(dir);
    await level.put('key', 'value');
    const value = await level.get('key');
    await level.close();
    if (value !== 'value') throw new Error('it did not give back what was put into it');
    return ok('LevelDB', 'opens, writes and reads');
  } catch (error) {
    return missing('LevelDB', asError(error).message, REINSTALL);
  } finally {
    if (dir !== undefined) await rm(dir, { recursive: true, force: true });
  }
}

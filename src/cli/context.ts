// What every command shares: the home it works in, where the program lies, and how talkative it is.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createLogger, logLevel, type Logger, type LogLevel } from '../lib/log.ts';
import { homePaths, type Paths } from '../lib/paths.ts';

/** The package's folder, both in a checkout and when built. */
export const PACKAGE_DIR = findPackage(import.meta.dirname);

/** The program that starts this command line, for children. */
export const BIN = join(PACKAGE_DIR, 'bin', 'xcore.js');

/** The package's version. */
export function version(): string {
  const content = JSON.parse(readFileSync(join(PACKAGE_DIR, 'package.json'), 'utf8')) as { version: string };
  return content.version;
}

/** Folders of the home that the environment names. */
export function currentPaths(): Paths {
  return homePaths(process.env);
}

/** A log on standard error for a command that stays in the foreground. */
export function foregroundLog(name: string, fallback: LogLevel = 'warn'): Logger {
  return createLogger({ level: logLevel(process.env, fallback), name });
}

/** Whether stack traces are wanted. */
export function isDebug(): boolean {
  return ['debug', 'trace'].includes(logLevel(process.env, 'warn'));
}

function findPackage(from: string): string {
  for (let folder = from; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'bin', 'xcore.js'))) return folder;
  }
  throw new Error('the package of xcore is not whole: no package.json above its code');
}

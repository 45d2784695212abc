// What a person or a program reads: lines on stdout, errors on stderr, JSON where it is asked for.

import { asError, exitCodeOf, XcoreError } from '../lib/errors.ts';

/** Prints one line on standard output. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints one line on standard error, after the program's name. */
export function note(line: string): void {
  process.stderr.write(`xcore: ${line}\n`);
}

/** Prints a value as JSON on standard output. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Tells an error (with `json` on standard output too) and gives its exit code. */
export function reportError(thrown: unknown, options: { json: boolean; debug: boolean }): number {
  const error = clearError(thrown);
  note(error.message);
  if (options.debug) process.stderr.write(`${asError(thrown).stack ?? ''}\n`);
  if (options.json) printJson({ error: { code: error.code, message: error.message } });
  return exitCodeOf(error);
}

/** Errors of the system as sentences; whatever else is unexpected says where to find more. */
function clearError(thrown: unknown): XcoreError {
  if (thrown instanceof XcoreError) {
    return new XcoreError(thrown.code, oneLine(thrown.message === thrown.code ? describe(thrown) : thrown.message));
  }
  const error = asError(thrown);
  const at = (error as NodeJS.ErrnoException).path;
  const path = at === undefined ? '' : `${at}: `;
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOSPC' || code === 'EDQUOT') return new XcoreError('ENOSPC', `${path}the disk is full; make room`);
  if (code === 'EACCES' || code === 'EPERM') return new XcoreError('EACCES', `${path}permission denied`);
  if (code === 'EROFS') return new XcoreError('EROFS', `${path}the file system is read-only`);
  if (code === 'ENOENT') return new XcoreError('ENOENT', `${path}no such file or folder`);
  if (code === 'ENOTDIR') return new XcoreError('ENOTDIR', `${path}not a folder`);
  if (code === 'EADDRINUSE') {
    return new XcoreError('EBUSY', `${oneLine(error.message)}; another program listens there, use another --listen`);
  }
  return new XcoreError('INTERNAL', `${oneLine(error.message)} (XCORE_LOG=debug shows more)`);
}

function describe(error: XcoreError): string {
  return error.code === 'ABORTED' ? 'cancelled' : `failed with ${error.code}`;
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim();
}

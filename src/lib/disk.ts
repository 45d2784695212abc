// The files of the local disk as the client's stores use them, so that a test can count what is done
// to them, let it fail, and see what is left when it stops anywhere.

import { readdirSync, statfsSync, statSync, writeSync } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { DirectFile } from './direct-file.ts';

/** An open file. */
export type DiskFile = Pick<
  FileHandle,
  'read' | 'write' | 'writeFile' | 'truncate' | 'chmod' | 'datasync' | 'sync' | 'stat' | 'close'
> & {
  /** As write(), at once: for a few bytes that somebody waits for, where a thread costs more than the system call. */
  readonly writeSync: (bytes: Uint8Array, from: number, length: number, position: number) => number;
  /** As DirectFile.write(); one at a time. Absent where there is none. */
  readonly writeDirect?: (bytes: Uint8Array, from: number, length: number, position: number) => Promise<number>;
  /** Absent where it is none of this system. */
  readonly fd?: number;
};

/** What is asked about a file. */
export interface FileFacts {
  readonly size: number;
  readonly mtimeMs: number;
  isDirectory(): boolean;
}

/** What is done to files by name; everything as in node:fs/promises, or node:fs where it is done at once. */
export interface Disk {
  readonly open: (path: string, flags: string | number, mode?: number) => Promise<DiskFile>;
  readonly mkdir: (path: string, options: { recursive: true; mode: number }) => Promise<unknown>;
  readonly link: (from: string, to: string) => Promise<void>;
  readonly readFile: (path: string) => Promise<Buffer>;
  readonly rename: (from: string, to: string) => Promise<void>;
  readonly rm: (path: string, options: { force?: boolean; recursive?: boolean }) => Promise<void>;
  readonly unlink: (path: string) => Promise<void>;
  readonly readdir: (path: string) => Promise<string[]>;
  readonly stat: (path: string) => Promise<FileFacts>;
  readonly readdirSync: (path: string) => string[];
  readonly statSync: (path: string) => FileFacts;
  readonly statfsSync: (path: string) => { readonly bavail: number; readonly bsize: number };
}

async function openFile(path: string, flags: string | number, mode?: number): Promise<DiskFile> {
  const file = await open(path, flags, mode);
  const closeFile = file.close.bind(file);
  const writeNow: DiskFile['writeSync'] = (bytes, from, length, position) =>
    writeSync(file.fd, bytes, from, length, position);
  const direct = new DirectFile(file.fd);
  const close = async (): Promise<void> => {
    await direct.close();
    await closeFile();
  };
  const writeDirect: DiskFile['writeDirect'] = (...write) => direct.write(...write);
  return Object.assign(file, { writeSync: writeNow, writeDirect, close });
}

/** The disk of this machine. */
export const systemDisk: Disk = {
  ...{ open: openFile, mkdir, link, readFile, rename, rm, unlink, stat },
  readdir: (path) => readdir(path),
  ...{ readdirSync: (path) => readdirSync(path), statSync, statfsSync },
};

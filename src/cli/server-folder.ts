// The folder of a host or a bridge, before the first file is written there: that it is this one's, or free, and writable.

import { constants } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { XcoreError } from '../lib/errors.ts';
import { makeFolders } from '../lib/paths.ts';

/** Whose folder it is to be. */
export type Server = 'bridge' | 'host';

const IDENTITY = 'identity.seed';
const STATE = 'state';
/** What both write, and what a disk of its own has in its first folder. */
const COMMON = [IDENTITY, STATE, 'control.sock', 'lost+found'];
const HOST_ONLY = ['shards', 'incoming', 'intent.json', 'traffic.json'];
const TEMPORARY = /^(identity\.seed|intent\.json|traffic\.json)\..*tmp$/;
const MAX_NAMED = 3;

/**
 * Makes the folder or checks one that is there: FOREIGN_HOME when it is no folder, holds files of others, or is another
 * server's or another user's; BAD_FORMAT when a bridge's state is gone; EACCES and EROFS when nothing can be written there.
 */
export async function claimServerFolder(dir: string, server: Server): Promise<void> {
  try {
    makeFolders(dir);
    await access(dir, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw folderError(dir, server, error as NodeJS.ErrnoException);
  }
  const names = await readdir(dir);
  if (server === 'bridge' && names.some((name) => HOST_ONLY.includes(name))) {
    throw foreign(`${dir} is the folder of a host; give the bridge one of its own with --dir`);
  }
  if (names.includes(IDENTITY)) {
    if (server === 'bridge' && !names.includes(STATE)) throw stateless(dir);
    return checkUser(dir);
  }
  const others = names.filter((name) => ![...COMMON, ...HOST_ONLY].includes(name) && !TEMPORARY.test(name));
  if (others.length === 0) return;
  const some = `${others.slice(0, MAX_NAMED).join(', ')}${others.length > MAX_NAMED ? ' …' : ''}`;
  throw foreign(
    `${dir} holds other files (${some}); give the ${server} a folder of its own, say --dir ${join(dir, server)}`,
  );
}

/** It would begin with no volume, no host and no shard, and those who know it would take its word. */
function stateless(dir: string): XcoreError {
  const state = join(dir, STATE);
  return new XcoreError(
    'BAD_FORMAT',
    `${state}, where this bridge keeps all it knows, is gone: restore it from a backup; to begin with nothing all the same: mkdir '${state}'`,
  );
}

/** Files of two users in one folder lock each other out. */
async function checkUser(dir: string): Promise<void> {
  const { uid } = await stat(join(dir, IDENTITY));
  if (uid === process.getuid?.()) return;
  throw foreign(`${dir} belongs to another user (uid ${uid}); run this as that user, or choose another --dir`);
}

function folderError(dir: string, server: Server, cause: NodeJS.ErrnoException): Error {
  switch (cause.code) {
    case 'EEXIST':
    case 'ENOTDIR':
      return foreign(`${dir} is not a folder; choose another --dir`);
    case 'EACCES':
    case 'EPERM':
    case 'ENOENT':
      return new XcoreError(
        'EACCES',
        `${dir} is closed to this user; give the ${server} a folder of your own with --dir`,
        {
          cause,
        },
      );
    case 'EROFS':
      return new XcoreError('EROFS', `${dir} lies on a disk that is mounted read-only; choose another --dir`, {
        cause,
      });
    default:
      return cause;
  }
}

function foreign(message: string): XcoreError {
  return new XcoreError('FOREIGN_HOME', message);
}

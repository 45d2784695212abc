// The identity of a home: the owner's recovery phrase and this device's libp2p seed, in one file
// that only its user may read; and the small config beside it. Never logs what it holds.

import { randomBytes } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { unwrapSecret, wrapSecret } from '../crypto/passphrase.ts';
import { generatePhrase, normalizePhrase } from '../crypto/phrase.ts';
import { writeFileAtomic } from '../lib/atomic-file.ts';
import { XcoreError } from '../lib/errors.ts';
import { checkPrivateFolder, ensurePrivateFolder, type Paths } from '../lib/paths.ts';

const VERSION = 1;
const FILE_MODE = 0o600;
const SEED_SIZE_BYTES = 32;
/** An identity file is some 300 bytes; whatever is much larger is not one. */
const MAX_FILE_SIZE_BYTES = 65_536;

/** Who writes a volume, and from which device. */
export interface Identity {
  /** 24 words with single spaces. */
  readonly phrase: string;
  /** Ed25519 seed of this device's libp2p identity, 32 bytes. */
  readonly deviceSeed: Buffer;
}

/** What the config file holds; absent fields have their defaults. */
export interface Config {
  /** Multiaddr of the bridge, or null for the embedded network. */
  readonly bridge: string | null;
  /** Mirrors wanted of each shard; absent: as the bridge has it. */
  readonly mirrors?: number;
}

/** How an identity is kept: not at all, readable by its user, or locked with a passphrase. */
export type IdentityState = 'absent' | 'plain' | 'locked';

/**
 * Makes the identity of a home, with a new phrase unless one is given (BAD_PHRASE), and a new device
 * seed. IDENTITY_EXISTS when there is one; UNSAFE_MODE or FOREIGN_HOME as ensurePrivateFolder.
 */
export async function createIdentity(
  paths: Paths,
  options: { phrase?: string; passphrase?: string } = {},
): Promise<Identity> {
  const phrase = options.phrase === undefined ? generatePhrase() : normalizePhrase(options.phrase);
  const deviceSeed = randomBytes(SEED_SIZE_BYTES);
  ensurePrivateFolder(paths.config);
  const secret = { phrase, deviceSeed: deviceSeed.toString('hex') };
  const content =
    options.passphrase === undefined
      ? { version: VERSION, ...secret }
      : {
          version: VERSION,
          locked: (await wrapSecret(Buffer.from(JSON.stringify(secret)), options.passphrase)).toString('base64'),
        };
  try {
    await writeFileAtomic(paths.identityFile, `${JSON.stringify(content, null, 2)}\n`, {
      mode: FILE_MODE,
      exclusive: true,
    });
  } catch (cause) {
    if (!isSystemError(cause, 'EEXIST')) throw cause;
    throw new XcoreError(
      'IDENTITY_EXISTS',
      `${paths.identityFile} holds an identity already; nothing was changed. Use another XCORE_HOME, or write its words down (xcore phrase) and move the file away`,
      { cause },
    );
  }
  return { phrase, deviceSeed };
}

/**
 * Reads the identity of a home; `passphrase` is called only if it is locked. NO_IDENTITY,
 * UNSAFE_MODE, FOREIGN_HOME, BAD_FORMAT or BAD_PASSPHRASE.
 */
export async function loadIdentity(paths: Paths, passphrase?: () => Promise<string>): Promise<Identity> {
  const content = await readIdentityFile(paths);
  if (content === null) {
    throw new XcoreError(
      'NO_IDENTITY',
      `there is no identity in ${paths.config}; make one with xcore init, or bring yours back with xcore init --recover`,
    );
  }
  if (typeof content['locked'] !== 'string') return parseSecret(paths, content);
  if (passphrase === undefined) {
    throw new XcoreError('BAD_PASSPHRASE', 'the identity is locked with a passphrase, and none was given');
  }
  const opened = await unwrapSecret(Buffer.from(content['locked'], 'base64'), await passphrase());
  return parseSecret(paths, parseJson(paths.identityFile, opened.toString('utf8')));
}

/** Tells how the identity of a home is kept, without opening it; errors as loadIdentity. */
export async function identityState(paths: Paths): Promise<IdentityState> {
  const content = await readIdentityFile(paths);
  if (content === null) return 'absent';
  return typeof content['locked'] === 'string' ? 'locked' : 'plain';
}

/** Reads the config of a home; defaults when there is none. BAD_FORMAT when it cannot be understood. */
export async function loadConfig(paths: Paths): Promise<Config> {
  let text: string;
  try {
    text = await readFile(paths.configFile, 'utf8');
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return { bridge: null };
    throw error;
  }
  const content = parseJson(paths.configFile, text);
  checkVersion(paths.configFile, content);
  const bridge = content['bridge'] ?? null;
  if (bridge !== null && typeof bridge !== 'string') throw badFormat(paths.configFile, 'bridge is not a multiaddr');
  const mirrors = content['mirrors'];
  if (mirrors === undefined) return { bridge };
  if (!Number.isInteger(mirrors)) throw badFormat(paths.configFile, 'mirrors is not a number');
  return { bridge, mirrors: Number(mirrors) };
}

/** Writes the config of a home. */
export async function saveConfig(paths: Paths, config: Config): Promise<void> {
  ensurePrivateFolder(paths.config);
  const content = { version: VERSION, ...config };
  await writeFileAtomic(paths.configFile, `${JSON.stringify(content, null, 2)}\n`, { mode: FILE_MODE });
}

/** The identity file as an object after the checks of its owner, mode and version; null when absent. */
async function readIdentityFile(paths: Paths): Promise<Record<string, unknown> | null> {
  checkPrivateFolder(paths.config);
  const path = paths.identityFile;
  let text: string;
  try {
    const file = await open(path, 'r');
    try {
      const stat = await file.stat();
      const uid = process.getuid?.() ?? stat.uid;
      if (stat.uid !== uid) {
        throw new XcoreError('FOREIGN_HOME', `${path} belongs to another user (uid ${stat.uid})`);
      }
      if ((stat.mode & 0o077) !== 0) {
        const mode = (stat.mode & 0o777).toString(8);
        throw new XcoreError('UNSAFE_MODE', `${path} is open to other users (mode ${mode}); type: chmod 600 '${path}'`);
      }
      if (!stat.isFile() || stat.size > MAX_FILE_SIZE_BYTES) throw badFormat(path, 'not an identity file');
      text = await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return null;
    if (isSystemError(error, 'EACCES')) {
      throw new XcoreError('FOREIGN_HOME', `${path} cannot be read by this user`, { cause: error });
    }
    throw error;
  }
  const content = parseJson(path, text);
  checkVersion(path, content);
  return content;
}

function parseSecret(paths: Paths, content: Record<string, unknown>): Identity {
  const { phrase, deviceSeed } = content;
  if (typeof phrase !== 'string' || typeof deviceSeed !== 'string' || !/^[0-9a-f]{64}$/.test(deviceSeed)) {
    throw badFormat(paths.identityFile, 'phrase or device seed is missing');
  }
  return { phrase: normalizePhrase(phrase), deviceSeed: Buffer.from(deviceSeed, 'hex') };
}

/** Without the parser's message as cause: it quotes the text. */
function parseJson(path: string, text: string): Record<string, unknown> {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw badFormat(path, 'not JSON');
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) throw badFormat(path, 'not an object');
  return content as Record<string, unknown>;
}

function checkVersion(path: string, content: Record<string, unknown>): void {
  if (content['version'] !== VERSION) {
    throw badFormat(path, `version ${JSON.stringify(content['version'])} is unknown to this xcore; is it older?`);
  }
}

function badFormat(path: string, what: string): XcoreError {
  return new XcoreError('BAD_FORMAT', `${path} cannot be understood: ${what}`);
}

function isSystemError(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

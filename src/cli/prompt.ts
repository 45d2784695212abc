// Asks for secrets: on the terminal without echo, from a file, or from standard input. Never from
// arguments or the environment, which other users can read.

import { open, stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { text as readAll } from 'node:stream/consumers';
import { XcoreError } from '../lib/errors.ts';

const MAX_PASSPHRASE_FILE_BYTES = 4096;
const WORDS = 24;

/** Reads the passphrase from the file that XCORE_PASSPHRASE_FILE names, else from the terminal; BAD_PASSPHRASE when neither can be. */
export async function askPassphrase(question = 'Passphrase: '): Promise<string> {
  const file = process.env['XCORE_PASSPHRASE_FILE'];
  if (file !== undefined && file !== '') return await passphraseFromFile(file);
  if (!process.stdin.isTTY) {
    throw new XcoreError(
      'BAD_PASSPHRASE',
      'the identity is locked and there is no terminal to ask on; put the passphrase into a file and name it in XCORE_PASSPHRASE_FILE',
    );
  }
  return await askHidden(question);
}

/** Asks for a new passphrase, twice on a terminal. */
export async function askNewPassphrase(): Promise<string> {
  const first = await askPassphrase('New passphrase: ');
  if (first === '') throw new XcoreError('BAD_PASSPHRASE', 'an empty passphrase locks nothing');
  if (process.stdin.isTTY && !process.env['XCORE_PASSPHRASE_FILE'] && (await askHidden('Again: ')) !== first) {
    throw new XcoreError('BAD_PASSPHRASE', 'the two passphrases differ');
  }
  return first;
}

/** Reads a recovery phrase: on a terminal line by line until there are 24 words, else all of standard input. */
export async function readPhrase(): Promise<string> {
  if (!process.stdin.isTTY) return await readAll(process.stdin);
  process.stderr.write('The 24 words of the recovery phrase, on one line or several: ');
  const lines = createInterface({ input: process.stdin });
  let words: string[] = [];
  try {
    for await (const line of lines) {
      const more = line.split(/\s+/).filter(Boolean);
      words = [...words, ...more];
      if (more.length === 0 || words.length >= WORDS) break;
      process.stderr.write(`${words.length} of ${WORDS}, go on: `);
    }
  } finally {
    lines.close();
  }
  return words.join(' ');
}

async function passphraseFromFile(path: string): Promise<string> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new XcoreError('BAD_PASSPHRASE', `${path}, named by XCORE_PASSPHRASE_FILE, cannot be read`, { cause });
  });
  if (info.isFile() && (info.mode & 0o077) !== 0) {
    throw new XcoreError('UNSAFE_MODE', `${path} is open to other users; type: chmod 600 '${path}'`);
  }
  const file = await open(path, 'r');
  try {
    const content = await file.readFile('utf8');
    if (content.length > MAX_PASSPHRASE_FILE_BYTES) {
      throw new XcoreError('BAD_PASSPHRASE', `${path} is too long for a passphrase`);
    }
    return content.replace(/\r?\n$/, '');
  } finally {
    await file.close();
  }
}

async function askHidden(question: string): Promise<string> {
  process.stderr.write(question);
  const nowhere = new Writable({ write: (_data, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await new Promise<string>((resolve, reject) => {
      terminal.once('line', resolve);
      terminal.once('SIGINT', () => reject(new XcoreError('ABORTED', 'cancelled')));
      terminal.once('close', () => reject(new XcoreError('ABORTED', 'cancelled')));
    });
  } finally {
    terminal.close();
    process.stderr.write('\n');
  }
}

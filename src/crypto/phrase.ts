// The recovery phrase: 24 BIP39 English words for 256 bits. Its text never appears in an error or a log.

import { entropyToMnemonic, generateMnemonic, mnemonicToEntropy } from '@scure/bip39';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { XcoreError } from '../lib/errors.ts';

const WORD_COUNT = 24;
const ENTROPY_BITS = 256;
const WORDS: ReadonlySet<string> = new Set(wordlist);

/** Makes a new recovery phrase: 24 lower-case words with one space between them. */
export function generatePhrase(): string {
  return generateMnemonic(wordlist, ENTROPY_BITS);
}

/**
 * Brings a typed phrase (any case, any white space) into the form that generatePhrase returns.
 * Throws BAD_PHRASE that tells the count, the positions of unknown words (1 is the first), or that
 * the checksum is wrong, and never a word.
 */
export function normalizePhrase(text: string): string {
  const words = text.normalize('NFKD').toLowerCase().split(/\s+/u).filter(Boolean);
  const unknown = words.flatMap((word, index) => (WORDS.has(word) ? [] : [index + 1]));
  const complaints: string[] = [];
  if (words.length !== WORD_COUNT) {
    complaints.push(`a recovery phrase has ${WORD_COUNT} words, this has ${words.length}`);
  }
  // A wrong paste can be a whole document: a few positions say enough.
  if (unknown.length > 0 && unknown.length <= WORD_COUNT) {
    complaints.push(
      unknown.length === 1
        ? `word ${unknown[0]} is not in the BIP39 English list`
        : `words ${unknown.join(', ')} are not in the BIP39 English list`,
    );
  }
  if (complaints.length > 0) throw new XcoreError('BAD_PHRASE', complaints.join('; '));
  try {
    return entropyToMnemonic(mnemonicToEntropy(words.join(' '), wordlist), wordlist);
  } catch {
    // Without the cause: a library's message may quote the words.
    throw new XcoreError('BAD_PHRASE', 'the checksum is wrong: a word was changed or two stand in the wrong order');
  }
}

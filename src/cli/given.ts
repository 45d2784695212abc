// The arguments as they were typed: what yargs passes over in silence, and nobody means.

import { XcoreError } from '../lib/errors.ts';

/** What the shell's completion asks with; its last word may well be empty. */
const COMPLETION = '--get-yargs-completions';

/** Refuses empty arguments: a folder without a name would be this one. USAGE. */
export function refuseEmpty(args: readonly string[]): void {
  if (args.includes(COMPLETION)) return;
  for (const [index, argument] of args.entries()) {
    const before = args[index - 1] ?? '';
    const option = argument.endsWith('=') ? optionOf(argument) : argument === '' ? optionOf(before) : null;
    if (option !== null) throw new XcoreError('USAGE', `--${option} needs a value, and what is given is empty`);
    if (argument === '') throw new XcoreError('USAGE', 'an argument is empty; is it a variable that is not set?');
  }
}

/** Refuses values of options that are either given or not, `understood` being what yargs made of them. USAGE. */
export function refuseFlagValues(args: readonly string[], understood: Readonly<Record<string, unknown>>): void {
  for (const argument of args) {
    const option = optionOf(argument);
    const value = argument.split('=', 2)[1];
    if (option === null || value === undefined || typeof understood[option] !== 'boolean') continue;
    if (value !== 'true' && value !== 'false')
      throw new XcoreError('USAGE', `--${option} takes no value; give it or not`);
  }
}

/** Refuses options that are given twice, of which only the last value would count; a flag may be said again. USAGE. */
export function refuseRepeated(args: readonly string[], understood: Readonly<Record<string, unknown>>): void {
  const seen = new Set<string>();
  for (const argument of args) {
    const option = argument.startsWith('-o') ? 'options' : optionOf(argument);
    if (option === null || typeof understood[option] === 'boolean') continue;
    if (seen.has(option)) throw new XcoreError('USAGE', `--${option} is given twice, and one of them would do nothing`);
    seen.add(option);
  }
}

/**
 * Refuses options that what is asked for does not have, `allowed` being those that it has; USAGE says who has them, as in
 * "an option of xcore serve".
 */
export function refuseOptions(
  what: string,
  allowed: readonly string[],
  owner: string,
  args = process.argv.slice(2),
): void {
  const others = args.map(optionOf).filter((option) => option !== null && !allowed.includes(option));
  const named = [...new Set(others)].map((option) => `--${option ?? ''}`);
  if (named.length === 0) return;
  throw new XcoreError(
    'USAGE',
    `${named.join(' and ')} ${named.length === 1 ? 'does' : 'do'} nothing with ${what}; ${owner}`,
  );
}

/** Name of the long option that an argument is, as it is documented; null when it is none. */
function optionOf(argument: string): string | null {
  const name = /^--([a-z][\w-]*)(?:=|$)/i.exec(argument)?.[1];
  return name?.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) ?? null;
}

// Values of options: what they are, and whose fault it is when they are not.

import { hasCode, XcoreError } from '../lib/errors.ts';
import { parseBytes, parseDuration, parseRate } from '../lib/units.ts';

/** Bytes that an option gives; USAGE names the option. */
export function bytesOf(option: string, text: string): number {
  return valueOf(option, text, parseBytes);
}

/** Bytes a second that an option gives; USAGE names the option. */
export function rateOf(option: string, text: string): number {
  return valueOf(option, text, parseRate);
}

/** Milliseconds that an option gives; USAGE names the option. */
export function durationOf(option: string, text: string): number {
  return valueOf(option, text, parseDuration);
}

function valueOf(option: string, text: string, parse: (text: string) => number): number {
  try {
    return parse(text);
  } catch (error) {
    if (!hasCode(error, 'USAGE')) throw error;
    throw new XcoreError('USAGE', `${option} ${error.message}`, { cause: error });
  }
}

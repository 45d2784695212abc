// Byte counts and durations as people write them: 100GB is decimal, 10GiB is binary, 4h is four hours.

import { XcoreError } from './errors.ts';

const FACTORS: Record<string, number> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  kib: 2 ** 10,
  m: 1e6,
  mb: 1e6,
  mib: 2 ** 20,
  g: 1e9,
  gb: 1e9,
  gib: 2 ** 30,
  t: 1e12,
  tb: 1e12,
  tib: 2 ** 40,
  p: 1e15,
  pb: 1e15,
  pib: 2 ** 50,
};

/** Parses '100GB', '10 GiB', '1.5TB' or '4096' to whole bytes; USAGE for anything else, zero and 2^53 or more. */
export function parseBytes(text: string): number {
  return bytesIn(text, 'a size', 'less than one byte', '100GB, 10GiB or 500MB');
}

function bytesIn(text: string, what: string, tooLittle: string, examples: string): number {
  const match = /^\s*(\d{1,16}(?:\.\d{1,6})?)\s*([a-z]{0,3})\s*$/i.exec(text);
  const factor = match ? FACTORS[match[2]!.toLowerCase()] : undefined;
  if (!match || factor === undefined) {
    throw new XcoreError('USAGE', `'${text}' is not ${what}; write it as in ${examples}`);
  }
  const bytes = Math.floor(Number(match[1]) * factor);
  if (bytes < 1) throw new XcoreError('USAGE', `'${text}' is ${tooLittle}; write it as in ${examples}`);
  if (!Number.isSafeInteger(bytes)) throw new XcoreError('USAGE', `'${text}' is more than any disk holds`);
  return bytes;
}

/** Parses '2MB/s', '500 KiB/s' or '2MB' to whole bytes a second; USAGE as parseBytes(). */
export function parseRate(text: string): number {
  const size = text.replace(/\s*\/\s*s\s*$/i, '');
  return bytesIn(size, 'a rate', 'less than one byte a second', '2MB/s or 500KB/s');
}

const STEPS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** Formats a byte count for people: '0 B', '1.5 KiB', '10 GiB'. */
export function formatBytes(bytes: number): string {
  let value = Math.max(0, bytes);
  let step = 0;
  // 1023.95 would print as 1024.
  while (step < STEPS.length - 1 && value >= (step === 0 ? 1024 : 1023.95)) {
    value /= 1024;
    step += 1;
  }
  const digits = step === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits).replace(/\.0$/, '')} ${STEPS[step]!}`;
}

const DURATIONS: Record<string, number> = { ms: 1, s: 1e3, m: 60e3, h: 3_600e3, d: 86_400e3 };

/** Parses '15s', '4h', '30m', '7d' or '500ms' to whole milliseconds; USAGE for anything else, zero and more than ten years. */
export function parseDuration(text: string): number {
  const match = /^\s*(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)\s*$/i.exec(text);
  const durationMs = match ? Math.round(Number(match[1]) * DURATIONS[match[2]!.toLowerCase()]!) : 0;
  if (durationMs < 1 || durationMs > 3_650 * DURATIONS['d']!) {
    throw new XcoreError('USAGE', `'${text}' is not a duration; write it as in 15s, 30m, 4h or 7d`);
  }
  return durationMs;
}

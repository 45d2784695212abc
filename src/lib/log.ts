// Structured logging. Callers pass ids, counts and codes; secrets, names and contents never.

import { mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { pino } from 'pino';
import type { DestinationStream } from 'pino';

/** What any part of xcore logs to; pino's loggers are of this shape. */
export interface Logger {
  debug(details: object, message?: string): void;
  info(details: object, message?: string): void;
  warn(details: object, message?: string): void;
  error(details: object, message?: string): void;
  child(bindings: Record<string, unknown>): Logger;
}

/** Levels from most to least talkative, as in XCORE_LOG. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** One of LOG_LEVELS. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The level named by XCORE_LOG, or `fallback` where it names none. */
export function logLevel(env: NodeJS.ProcessEnv, fallback: LogLevel): LogLevel {
  const wanted = env['XCORE_LOG']?.toLowerCase();
  return LOG_LEVELS.find((level) => level === wanted) ?? fallback;
}

/** Fields that are dropped wherever they turn up, should a caller slip. */
const SECRET_FIELDS = ['phrase', 'passphrase', 'seed', 'deviceSeed', 'ownerSeed', 'key', 'secret', 'privateKey'];

/**
 * Opens a log of JSON lines: to stderr, or appended to `file` (mode 0600, its folder made where
 * absent). Lines are written at once, so that the last ones before a crash are there. Those that
 * cannot be written, as on a full disk or after the terminal is gone, are lost, and nothing else.
 */
export function createLogger(options: { level: LogLevel; file?: string; name?: string }): Logger {
  if (options.file !== undefined) mkdirSync(dirname(options.file), { recursive: true, mode: 0o700 });
  const destination = new Lines(options.file === undefined ? 2 : openSync(options.file, 'a', 0o600));
  return pino(
    {
      level: options.level,
      base: options.name === undefined ? null : { name: options.name },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: pino.stdSerializers.err, error: pino.stdSerializers.err, cause: pino.stdSerializers.err },
      redact: { paths: [...SECRET_FIELDS, ...SECRET_FIELDS.map((field) => `*.${field}`)], remove: true },
    },
    destination,
  );
}

/** Writes lines to a file descriptor, as far as it takes them. */
class Lines {
  readonly #fd: number;
  #destination: DestinationStream;
  #isTorn = false;

  constructor(fd: number) {
    this.#fd = fd;
    this.#destination = this.#open();
  }

  write(line: string): void {
    const whole = this.#isTorn ? `\n${line}` : line;
    this.#isTorn = false;
    this.#destination.write(whole);
  }

  #open(): DestinationStream {
    const destination = pino.destination({ dest: this.#fd, sync: true });
    // pino's own throws at whoever logs, and what was not written would be kept without a bound
    destination.removeAllListeners('error');
    destination.on('error', () => {
      this.#isTorn = true;
      this.#destination = this.#open();
    });
    return destination;
  }
}

/** A log that goes nowhere. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};

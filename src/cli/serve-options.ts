// The options of xcore serve: their descriptions, what they mean to a host, and how they are written again.

import type { Argv } from 'yargs';
import { MIN_BYTES_PER_SECOND } from '../host/allowance.ts';
import type { HostOptions } from '../host/options.ts';
import { parseSchedule } from '../host/schedule.ts';
import { XcoreError } from '../lib/errors.ts';
import { METRICS_OPTION } from './metrics.ts';
import { checkListenAddress } from './multiaddr.ts';
import { bytesOf, rateOf } from './option-values.ts';

/** Options as they are given. */
export interface ServeOptions {
  space: string;
  floor: string;
  listen: string;
  up?: string;
  down?: string;
  monthly?: string;
  hours?: string;
  days?: string;
  operator?: string;
  region?: string;
  'no-upnp': boolean;
  metrics?: string;
}

/** What they mean. */
export interface ServeSettings {
  readonly spaceBytes: number;
  readonly listen: string;
  readonly options: Partial<HostOptions>;
}

/** With less, a host takes no shard at all, or few and then none. */
const MIN_SPACE_BYTES = 10_000_000;
const MIN_MONTHLY_BYTES = 100_000_000;

/** Labels are short and printable, so that they can be shown and compared. */
const LABEL = /^[\w.:@+-]{1,64}$/;

/** Adds the options to a command. */
export function serveOptions(yargs: Argv): Argv<ServeOptions> {
  const text = (describe: string): { type: 'string'; requiresArg: true; describe: string } => ({
    type: 'string',
    requiresArg: true,
    describe,
  });
  return yargs
    .option('space', { ...text('never store more than this'), default: '100GB' })
    .option('floor', { ...text('always leave so much of the disk free'), default: '256MiB' })
    .option('listen', { ...text('multiaddr to listen on; others must reach it'), default: '/ip4/0.0.0.0/tcp/0' })
    .option('up', text('most bytes a second to others, as in 2MB/s'))
    .option('down', text('most bytes a second from others'))
    .option('monthly', text('most bytes a calendar month, both ways together, as in 500GB'))
    .option('hours', text('when it moves shards, as in 22:00-08:00; always unless told'))
    .option('days', text('on which days, as in mon-fri'))
    .option('no-upnp', { type: 'boolean', default: false, describe: 'do not ask the router to open the port' })
    .option('operator', text('who runs it; give the same name to all your hosts, so that mirrors go to others too'))
    .option('metrics', METRICS_OPTION)
    .option('region', text('where it is, as in eu-west; mirrors go to different regions'));
}

/** Reads the options; USAGE. */
export function serveSettings(args: ServeOptions): ServeSettings {
  return {
    spaceBytes: atLeast(MIN_SPACE_BYTES, '--space', args.space),
    listen: checkListenAddress(args.listen),
    options: {
      floorBytes: bytesOf('--floor', args.floor),
      upBytesPerSecond: rate('--up', args.up),
      downBytesPerSecond: rate('--down', args.down),
      monthlyBytes: args.monthly === undefined ? 0 : atLeast(MIN_MONTHLY_BYTES, '--monthly', args.monthly),
      schedule: parseSchedule(args.hours, args.days),
      mapsPorts: !args['no-upnp'],
      operator: label('--operator', args.operator),
      region: label('--region', args.region),
    },
  };
}

/** The options as arguments again, all that were given and those with defaults. */
export function serveArguments(args: ServeOptions): string[] {
  const names = [
    'space',
    'floor',
    'listen',
    'up',
    'down',
    'monthly',
    'hours',
    'days',
    'operator',
    'region',
    'metrics',
  ] as const;
  const given = names.flatMap((name) => {
    const value = args[name];
    return value === undefined ? [] : [`--${name}`, value];
  });
  return args['no-upnp'] ? [...given, '--no-upnp'] : given;
}

function atLeast(leastBytes: number, option: string, text: string): number {
  const bytes = bytesOf(option, text);
  if (bytes >= leastBytes) return bytes;
  throw new XcoreError('USAGE', `${option} ${text} is too little to be of use; ${leastBytes / 1e6}MB is the least`);
}

function rate(option: string, text: string | undefined): number {
  if (text === undefined) return 0;
  const bytes = rateOf(option, text);
  if (bytes >= MIN_BYTES_PER_SECOND) return bytes;
  throw new XcoreError('USAGE', `${option} ${text} is too slow for a shard to arrive in time; 64KB/s is the least`);
}

function label(option: string, text: string | undefined): string {
  if (text === undefined || LABEL.test(text)) return text ?? '';
  throw new XcoreError('USAGE', `${option} takes up to 64 letters, digits and . : @ + - _`);
}

// The hours and days in which a host moves shards, in the machine's own time. Knows no clock and no host.

import { XcoreError } from '../lib/errors.ts';

const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
const DAY_MINUTES = 24 * 60;
/** A schedule repeats itself after so many days. */
const DAYS_AHEAD = 8;

/** Open from one minute of a day to another one, on the next day if that is not later; a day is that of the opening. */
export interface Schedule {
  /** 0 to 1,439. */
  readonly fromMinute: number;
  readonly toMinute: number;
  /** 0 is Sunday. */
  readonly days: ReadonlySet<number>;
  /** As it was given, for people. */
  readonly text: string;
}

/** Parses '22:00-08:00' and 'mon-fri,sun'; undefined where both are absent. USAGE for anything else. */
export function parseSchedule(hours: string | undefined, days: string | undefined): Schedule | undefined {
  if (hours === undefined && days === undefined) return undefined;
  const [fromMinute, toMinute] = hours === undefined ? [0, 0] : parseHours(hours);
  const text = [hours, days].filter((part) => part !== undefined).join(' ');
  return { fromMinute, toMinute, days: parseDays(days ?? 'sun-sat'), text };
}

/** Whether it is open at a time in milliseconds since 1970. */
export function isOpen(schedule: Schedule, timeMs: number): boolean {
  return [-1, 0].some((day) => {
    const [from, to] = opening(schedule, timeMs, day) ?? [0, 0];
    return timeMs >= from && timeMs < to;
  });
}

/** When it opens or closes next; Infinity for a schedule that never does. */
export function nextChange(schedule: Schedule, timeMs: number): number {
  const before = isOpen(schedule, timeMs);
  const times: number[] = [];
  for (let day = -1; day <= DAYS_AHEAD; day += 1) times.push(...(opening(schedule, timeMs, day) ?? []));
  return times.sort((a, b) => a - b).find((time) => time > timeMs && isOpen(schedule, time) !== before) ?? Infinity;
}

/** From and to of the opening that begins so many days after `timeMs`, if one does. */
function opening(schedule: Schedule, timeMs: number, days: number): [number, number] | undefined {
  const base = new Date(timeMs);
  // The Date of a local time knows how long that day is.
  const at = (minute: number): Date =>
    new Date(base.getFullYear(), base.getMonth(), base.getDate() + days, 0, minute, 0, 0);
  const { fromMinute, toMinute } = schedule;
  const from = at(fromMinute);
  if (!schedule.days.has(at(0).getDay())) return undefined;
  return [from.getTime(), at(toMinute > fromMinute ? toMinute : toMinute + DAY_MINUTES).getTime()];
}

function parseHours(text: string): [number, number] {
  const match = /^\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*$/.exec(text);
  const [fromHour = NaN, fromMinute = NaN, toHour = NaN, toMinute = NaN] = match?.slice(1).map(Number) ?? [];
  const from = fromHour * 60 + fromMinute;
  const to = toHour * 60 + toMinute;
  if (!(fromMinute < 60 && toMinute < 60 && from < DAY_MINUTES && to <= DAY_MINUTES)) {
    throw new XcoreError('USAGE', `--hours '${text}' is no time of the day; write it as in 22:00-08:00`);
  }
  return [from, to % DAY_MINUTES];
}

function parseDays(text: string): Set<number> {
  const days = new Set<number>();
  for (const part of text.toLowerCase().split(',')) {
    const [first, last = first, ...rest] = part.split('-').map((name) => DAYS.findIndex((day) => day === name.trim()));
    if (first === undefined || last === undefined || first < 0 || last < 0 || rest.length > 0) {
      throw new XcoreError('USAGE', `--days '${text}' are no days; write them as in mon-fri or sat,sun`);
    }
    for (let day = first; ; day = (day + 1) % DAYS.length) {
      days.add(day);
      if (day === last) break;
    }
  }
  return days;
}

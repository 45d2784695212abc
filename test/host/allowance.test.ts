// What a host's owner allows: hours and days, a month's traffic, bytes a second. A real host's parts on a clock that
// the test moves.

// A place where the clocks change, so that it shows.
process.env['TZ'] = 'Europe/Berlin';

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { HOST_DEFAULTS } from '../../src/host/options.ts';
import { isOpen, nextChange, parseSchedule } from '../../src/host/schedule.ts';
import { parseRate } from '../../src/lib/units.ts';
import { Harness, randomShard } from './harness.ts';

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

/** A local time in 2026, as in '11-20 22:00'. */
function at(text: string): number {
  return new Date(`2026-${text.replace(' ', 'T')}:00`).getTime();
}

t.test('a schedule opens and closes in local time', async (t) => {
  const nights = parseSchedule('22:00-08:00', 'mon-fri')!;
  // 20 November 2026 is a Friday.
  const rows: [string, boolean, string][] = [
    ['11-20 21:59', false, '11-20 22:00'],
    ['11-20 22:00', true, '11-21 08:00'],
    ['11-21 07:59', true, '11-21 08:00'],
    ['11-21 08:00', false, '11-23 22:00'],
    ['11-22 23:00', false, '11-23 22:00'],
  ];
  for (const [time, open, next] of rows) {
    t.equal(isOpen(nights, at(time)), open, time);
    t.equal(nextChange(nights, at(time)), at(next), time);
  }
  const days = parseSchedule(undefined, 'sat,sun')!;
  t.equal(nextChange(days, at('11-21 12:00')), at('11-23 00:00'));
  const office = parseSchedule('09:00-17:30', undefined)!;
  t.notOk(isOpen(office, at('11-20 17:30')));
  t.equal(nextChange(office, at('11-20 18:00')), at('11-21 09:00'));
  const always = parseSchedule(undefined, 'sun-sat')!;
  t.ok(isOpen(always, at('11-20 18:00')));
  t.equal(nextChange(always, at('11-20 18:00')), Infinity);
  // On 25 October 2026 the hour after two o'clock comes twice.
  const dawn = parseSchedule('01:00-05:00', 'sun')!;
  t.equal(nextChange(dawn, at('10-25 01:00')) - at('10-25 01:00'), 5 * HOUR_MS);
  t.equal(parseSchedule(undefined, undefined), undefined);
  for (const hours of ['', '22-08', '25:00-08:00', '22:60-08:00', 'x']) {
    t.throws(() => parseSchedule(hours, undefined), { code: 'USAGE' }, hours);
  }
  for (const names of ['', 'monday', 'mon-', 'mon-tue-wed']) {
    t.throws(() => parseSchedule(undefined, names), { code: 'USAGE' }, names);
  }
  t.equal(parseRate('2MB/s'), 2_000_000);
  t.equal(parseRate('500 KiB / s'), 512_000);
});

t.test('outside its hours a host moves nothing but audits', async (t) => {
  const host = await Harness.start(t, {
    schedule: parseSchedule('22:00-08:00', undefined),
    startMs: at('11-20 23:00'),
  });
  const shard = randomShard(3 * 16_384);
  await host.store1(shard);
  t.equal(host.allowance.resting(), undefined);
  t.match(host.allowance.nextRest(), { fromMs: at('11-21 08:00'), untilMs: at('11-21 22:00') }, 'known beforehand');

  host.clock.advance(12 * HOUR_MS);
  t.match(host.allowance.resting(), { reason: 'hours', untilMs: at('11-21 22:00') });
  const order = host.order(randomShard(10));
  await t.rejects(host.put(order, Buffer.alloc(10)), { code: 'EAGAIN' });
  await t.rejects(host.get(host.order(shard, { operation: 'retrieve' })), { code: 'EAGAIN' });
  const audit = host.order(shard, { operation: 'retrieve', client: host.bridge });
  t.equal((await host.get(audit, 1, 1, host.bridge)).data.length, 16_384);
  host.clock.advance(12 * HOUR_MS);
  t.equal((await host.get(host.order(shard, { operation: 'retrieve' }))).data.length, shard.data.length);
});

t.test('a month’s cap is never passed, survives restarts, and is given anew with the month', async (t) => {
  const host = await Harness.start(t, { monthlyBytes: 20 * MIB, startMs: at('11-20 12:00') });
  const shard = randomShard(2 * MIB);
  await host.store1(shard);
  const read = (): Promise<unknown> => host.get(host.order(shard, { operation: 'retrieve' }));
  for (let count = 0; count < 3; count += 1) await read();
  t.same(host.allowance.month, { month: '2026-11', inBytes: 2 * MIB, outBytes: 6 * MIB });
  t.ok(host.allowance.partTime);

  await host.reopen();
  t.same(host.allowance.month, { month: '2026-11', inBytes: 2 * MIB, outBytes: 6 * MIB }, 'restarts forget nothing');
  for (let count = 0; count < 5; count += 1) await read();
  await t.rejects(read(), { code: 'EAGAIN' }, 'a part is left for audits');
  await t.rejects(host.store1(randomShard(10)), { code: 'EAGAIN' });
  const untilMs = Date.UTC(2026, 11);
  t.match(host.allowance.resting(), { reason: 'monthly', untilMs });
  await host.get(host.order(shard, { operation: 'retrieve', client: host.bridge }), 0, 1, host.bridge);
  t.equal(host.allowance.month.outBytes, 16 * MIB + 16_384, 'audits count');

  host.clock.advance(untilMs - host.clock.now() - 1);
  await t.rejects(read(), { code: 'EAGAIN' });
  host.clock.advance(1);
  await read();
  t.same(host.allowance.month, { month: '2026-12', inBytes: 0, outBytes: 2 * MIB });

  await host.close();
  const file = join(host.dir, 'traffic.json');
  t.match(JSON.parse(readFileSync(file, 'utf8')), { version: 1, month: '2026-12' });
  writeFileSync(file, '{"version":1,"month":"2026-12","inBytes":-1,"outBytes":0}');
  await t.rejects(host.reopen(), { code: 'BAD_FORMAT' });
});

t.test('bytes leave and come no faster than allowed, after a burst of a second', async (t) => {
  const rate = 200_000;
  const host = await Harness.start(t, { upBytesPerSecond: rate, downBytesPerSecond: rate });
  const shard = randomShard(MIB);
  // A wait passes at once; the deadline of a transfer is none.
  const { clock } = host;
  const sleep = clock.sleep.bind(clock);
  clock.sleep = async (ms, signal) => {
    if (ms >= HOST_DEFAULTS.storeDeadlineMs) return sleep(ms, signal);
    clock.advance(ms);
  };
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const startMs = clock.monotonicMs();
    await work();
    return (clock.monotonicMs() - startMs) / 1_000;
  };
  const least = (MIB - rate) / rate;
  const storing = await timed(() => host.store1(shard));
  t.ok(storing >= least && storing < least + 0.1, `stored in ${storing} s`);
  const reading = await timed(() => host.get(host.order(shard, { operation: 'retrieve' })));
  t.ok(reading >= least && reading < least + 1.1, `read in ${reading} s`);
  const order = host.order(shard, { operation: 'retrieve', client: host.bridge });
  t.equal(await timed(() => host.get(order, 0, 1, host.bridge)), 0, 'audits do not wait');
  t.equal(host.allowance.maxAtOnce('out'), 5, 'so many that each shard is through in a minute');
});

// Sizes as people write them, and the time.

import t from 'tap';
import { systemClock } from '../../src/lib/clock.ts';
import { createMetrics } from '../../src/lib/metrics.ts';
import { formatBytes, parseBytes, parseDuration } from '../../src/lib/units.ts';

await t.test('sizes are parsed as decimal or binary', async (t) => {
  const cases: Record<string, number> = {
    '1': 1,
    '4096': 4096,
    '100GB': 100e9,
    '100 gb': 100e9,
    '10GiB': 10 * 2 ** 30,
    '1.5kB': 1500,
    '0.5KiB': 512,
    '2T': 2e12,
    ' 3 MiB ': 3 * 2 ** 20,
    '7b': 7,
    '9007199254740991': Number.MAX_SAFE_INTEGER,
  };
  for (const [text, bytes] of Object.entries(cases)) t.equal(parseBytes(text), bytes, text);
});

await t.test('what is no size is USAGE', async (t) => {
  for (const text of [
    '',
    '0',
    '0.1',
    '-1',
    '1e9',
    'many',
    '10XB',
    '1,5GB',
    'GB',
    '9007199254740992',
    '99999PB',
    '1 0',
  ]) {
    t.throws(() => parseBytes(text), { code: 'USAGE' }, JSON.stringify(text));
  }
});

await t.test('sizes are printed with three digits at most', async (t) => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [-5, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [2 ** 20 - 1, '1 MiB'],
    [10 * 2 ** 30, '10 GiB'],
    [123 * 2 ** 40, '123 TiB'],
    [5000 * 2 ** 50, '5000 PiB'],
  ];
  for (const [bytes, text] of cases) t.equal(formatBytes(bytes), text);
});

await t.test('nanoseconds agree with the wall clock and never go back', async (t) => {
  let before = systemClock.nowNs();
  for (let n = 0; n < 1000; n++) {
    // any time may pass between two looks at a clock
    const earliest = BigInt(systemClock.now()) - 3n;
    const ns = systemClock.nowNs();
    const latest = BigInt(systemClock.now()) + 3n;
    const ms = ns / 1_000_000n;
    if (ns < before || ms < earliest || ms > latest) t.fail(`${before} ${ns} ${earliest} ${latest}`);
    before = ns;
  }
  t.ok(true);
});

await t.test('a sleep ends with its signal', async (t) => {
  await systemClock.sleep(1);
  const controller = new AbortController();
  const sleep = systemClock.sleep(1e6, controller.signal);
  controller.abort(new Error('enough'));
  await t.rejects(sleep, { message: 'enough' });
  await t.rejects(systemClock.sleep(1e6, controller.signal), { message: 'enough' });
});

await t.test('a metric is made once however often it is asked for', async (t) => {
  const metrics = createMetrics();
  metrics.counter('reads_total', 'Reads').inc();
  metrics.counter('reads_total', 'Reads').inc(2);
  metrics.gauge('depth', 'Depth', ['queue']).set({ queue: 'a' }, 4);
  metrics.histogram('wait_seconds', 'Waits', [0.1, 1]).observe(0.5);
  const text = await metrics.text();
  t.match(text, /^xcore_reads_total 3$/m);
  t.match(text, /^xcore_depth\{queue="a"\} 4$/m);
  t.match(text, /^xcore_wait_seconds_bucket\{le="1"\} 1$/m);
  t.notMatch(await createMetrics().text(), /xcore_reads_total/, 'registries are apart');
});

t.test('durations are read with their unit', async (t) => {
  t.same(['500ms', '15s', '1.5m', '4h', ' 7 D '].map(parseDuration), [500, 15_000, 90_000, 14_400_000, 604_800_000]);
  for (const text of ['', '4', 'h', '-1s', '0s', '1y', '99999d']) {
    t.throws(() => parseDuration(text), { code: 'USAGE' }, text);
  }
});

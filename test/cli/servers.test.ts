// The commands that stay in the foreground: one line when ready, a clean end on a signal, and an
// embedded network that never outlives its parent.

import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import t from 'tap';
import { whileWaiting } from '../../src/cli/while-waiting.ts';
import { serveControl } from '../../src/client/control.ts';
import type { ControlHandlers } from '../../src/client/control.ts';
import { EXIT } from '../../src/lib/errors.ts';
import { isAlive } from '../support/client.ts';
import { Run, until, XCORE } from '../support/run.ts';

t.setTimeout(300_000);

const LISTEN = ['--listen', '/ip4/127.0.0.1/tcp/0'];
const LINE = /^\/ip4\/127\.0\.0\.1\/tcp\/\d+\/p2p\/12D3\w+\n$/;

const run = new Run(t);

/** Starts a server and gives its process, its output so far and its first line. */
async function start(
  name: string,
  args: string[],
): Promise<{ child: ChildProcess; output: () => string; line: string }> {
  const child = run.spawn(name, [XCORE, ...args], { env: { XCORE_HOME: join(run.dir, `home-${name}`) } });
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
  await until(`${name} to be ready`, () => {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
    return output.includes('\n');
  });
  return { child, output: () => output, line: output.trim() };
}

/** Sends a signal and gives the exit code. */
async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const exit = once(child, 'exit');
  child.kill(signal);
  return (await exit)[0] as number | null;
}

await t.test('bridge and serve print one line and end cleanly on SIGTERM and SIGINT', async (t) => {
  const bridge = await start('bridge', ['bridge', ...LISTEN]);
  t.match(bridge.output(), LINE);
  t.ok(existsSync(join(run.dir, 'home-bridge/bridge')), 'its state is below the home');

  const host = await start('host', ['serve', '--bridge', bridge.line, '--space', '1GB', ...LISTEN]);
  t.match(host.output(), LINE);
  t.ok(existsSync(join(run.dir, 'home-host/host')));

  if (existsSync('/proc/self/task')) {
    const nice = readdirSync(`/proc/${host.child.pid}/task`).flatMap((thread) => {
      const path = `/proc/${host.child.pid}/task/${thread}/stat`;
      // a thread may have ended since
      if (!existsSync(path)) return [];
      const stat = readFileSync(path, 'utf8');
      return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
    });
    t.ok(Math.min(...nice) >= 10, `a host stands back behind other programs: ${nice.join()}`);
  }
  const disk = await run.exec('ionice', ['-p', String(host.child.pid)]);
  if (disk.code === 0) t.equal(disk.stdout, 'best-effort: prio 7\n');

  const again = await run.exec(process.execPath, [XCORE, 'bridge', ...LISTEN], {
    env: { XCORE_HOME: join(run.dir, 'home-bridge') },
  });
  t.equal(again.code, EXIT.busy, `the folder is in use: ${again.stderr}`);
  t.match(again.stderr, /^xcore: .+\n$/);

  const port = /tcp\/(\d+)/.exec(bridge.line)?.[1] ?? '';
  const taken = await run.exec(process.execPath, [XCORE, 'bridge', '--listen', `/ip4/127.0.0.1/tcp/${port}`]);
  t.equal(taken.code, EXIT.busy, 'the port is taken');
  t.match(taken.stderr, new RegExp(`^xcore: another program listens on /ip4/127.0.0.1/tcp/${port} already; .+\n$`));
  const elsewhere = await run.exec(process.execPath, [XCORE, 'bridge', '--listen', '/ip4/192.0.2.99/tcp/4001']);
  t.equal(elsewhere.code, EXIT.usage);
  t.match(elsewhere.stderr, /^xcore: .+ is no address of this machine; .+\n$/);

  t.equal(await end(host.child, 'SIGINT'), 0);
  t.equal(await end(bridge.child, 'SIGTERM'), 0);
  t.match(bridge.output(), LINE, 'and nothing more was printed');
  t.match(host.output(), LINE);
  t.equal(readFileSync(join(run.dir, 'bridge.log'), 'utf8'), '', 'nor complained about');
});

await t.test('an operator sees hosts, room and figures', async (t) => {
  const bridge = await start('watched', ['bridge', '--metrics', '0', '--json', ...LISTEN]);
  const ask = (what: string, ...args: string[]): ReturnType<Run['exec']> =>
    run.exec(process.execPath, [XCORE, 'bridge', what, ...args], {
      env: { XCORE_HOME: join(run.dir, 'home-watched') },
    });
  await until('the whole answer', () => bridge.output().endsWith('}\n'));
  const told = JSON.parse(bridge.output()) as { bridge: string; metrics: string };
  t.match((await ask('status')).stdout, /hosts +0 of 0 online[^]*advice +no host has joined/);
  const host = await start('seen', ['serve', '--bridge', told.bridge, '--space', '1GB', '--operator', 'me', ...LISTEN]);
  // a host says where it is even if the bridge does not answer it yet
  const status = await until('the host to be known', async () => {
    const now = JSON.parse((await ask('status', '--json')).stdout) as { hosts: { online: number } };
    return now.hosts.online === 1 && now;
  });
  t.match(status, {
    hosts: { known: 1, online: 1, standings: { vetting: 1 } },
    space: { capacityBytes: 1e9 },
    toRepair: 0,
  });
  t.match((await ask('hosts')).stdout, /^12D3\w+ {2}online {2}vetting \(.+\) {2}0 shards.+ me\n$/);
  t.match(JSON.parse((await ask('hosts', '--json')).stdout), [{ operator: 'me', online: true, shards: 0 }]);
  const figures = await (await fetch(told.metrics)).text();
  t.match(figures, /^xcore_bridge_hosts_online 1$/m);
  t.match(figures, /^xcore_process_resident_memory_bytes \d+$/m);
  t.equal((await fetch(new URL('/', told.metrics))).status, 404);
  const port = new URL(told.metrics).port;
  const taken = await run.exec(process.execPath, [XCORE, 'bridge', '--metrics', port, ...LISTEN], {
    env: { XCORE_HOME: join(run.dir, 'home-taken') },
  });
  t.equal(taken.code, EXIT.busy);
  t.match(taken.stderr, /--metrics \d+; give another port/);
  t.equal(await end(host.child, 'SIGTERM'), 0);
  t.equal(await end(bridge.child, 'SIGTERM'), 0);
  t.equal((await ask('status')).code, EXIT.network, 'nobody runs there any more');
});

await t.test('a host starts while its bridge is away', async (t) => {
  const gone = '/ip4/127.0.0.1/tcp/9/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';
  const host = await start('lonely', ['serve', '--bridge', gone, '--space', '1GB', ...LISTEN]);
  t.match(host.output(), LINE);
  t.equal(await end(host.child, 'SIGTERM'), 0);
  const said = readFileSync(join(run.dir, 'lonely.log'), 'utf8');
  t.match(said, /does not answer yet/);
  t.equal(said.match(/the bridge cannot be used/g)?.length, 1, 'which is told once');
});

await t.test('the embedded network ends with its parent, and starts again right after', async (t) => {
  const startNetwork = async (): Promise<{ child: ChildProcess; line: string }> => {
    const child = spawn(process.execPath, [XCORE, 'local-network', '--dir', join(run.dir, 'local')], {
      env: run.env(),
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const [line] = (await once(child.stdout.setEncoding('utf8'), 'data')) as [string];
    return { child, line };
  };
  const first = await startNetwork();
  t.match(first.line, LINE);
  first.child.stdin?.destroy();
  const second = await startNetwork();
  t.equal(second.line.split('/p2p/')[1], first.line.split('/p2p/')[1], 'it is the same network');
  await until('the first to end', () => !isAlive(first.child.pid ?? 0));
  const exit = once(second.child, 'exit');
  second.child.stdin?.end();
  t.equal((await exit)[0], 0);
});

await t.test('who waits for a bridge that is away is told so', async (t) => {
  const controlSocket = join(run.dir, 'waiting.sock');
  let connected = false;
  const status = (): Promise<object> => Promise.resolve({ network: { connected } });
  const server = await serveControl(controlSocket, { status } as unknown as ControlHandlers);
  t.teardown(() => server.close());
  const stderr = t.capture(process.stderr, 'write', () => true);
  const options = { controlSocket, hint: 'or do so', quiet: false, patienceMs: 0 };
  let done: () => void = () => undefined;
  const work = new Promise<void>((resolve) => (done = resolve));
  const waiting = whileWaiting(work, options);
  const said: string[] = [];
  await until('a word', () => {
    said.push(...stderr().map(({ args }) => String(args[0])));
    return said.length > 0;
  });
  done();
  await waiting;
  t.match(said.join(''), /^xcore: the bridge cannot be reached, and .+; or do so\n$/);
  connected = true;
  t.equal(await whileWaiting(Promise.resolve(1), options), 1);
  t.same(stderr(), []);
});

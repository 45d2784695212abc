// The life of a kernel mount: failing handlers, interrupts, invalidation, every way to end, every way not to begin.

import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { MISCHIEF } from './memory-filesystem.ts';
import { isInMountTable, isRoot, newDirectory, startMount, umountLazily } from './mounted.ts';
import { detachStale, isMounted, isOurMount } from '../../src/fuse/stale.ts';

t.setTimeout(240_000);

/** Reads a file in a process of its own, which may have to be ended. */
function reader(path: string): { child: ChildProcess; exit: Promise<NodeJS.Signals | number | null> } {
  const child = spawn('cat', [path], { stdio: ['ignore', 'ignore', 'ignore'] });
  return { child, exit: new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code))) };
}

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await delay(10);
}

void t.test('a handler that fails is EIO for that request only, and loud', async (t) => {
  const mounted = await startMount();
  t.teardown(() => mounted.stop());
  const at = (name: string): string => join(mounted.directory, name);
  t.throws(() => fs.statSync(at(MISCHIEF.throws)), { code: 'EIO' });
  t.throws(() => fs.statSync(at(MISCHIEF.rejects)), { code: 'EIO' });
  fs.writeFileSync(at(MISCHIEF.generous), '');
  t.throws(() => fs.readFileSync(at(MISCHIEF.generous)), { code: 'EIO' });
  fs.writeFileSync(at('fine'), 'fine');
  t.equal(fs.readFileSync(at('fine'), 'utf8'), 'fine', 'the mount lives on');
  await eventually(() => mounted.logs.length >= 3);
  t.same(
    mounted.logs.map(({ level }) => level),
    ['error', 'error', 'error'],
  );
  t.match(mounted.logs[0]?.facts, /"opcode":"LOOKUP","ino":1,.*TypeError: thrown on purpose.*memory-filesystem/);
  t.match(mounted.logs[1]?.facts, /rejected on purpose/);
  t.match(mounted.logs[2]?.facts, /"opcode":"READ"/);
});

void t.test('a signal that ends its reader ends a hanging read, another signal does not', async (t) => {
  const mounted = await startMount();
  t.teardown(() => mounted.stop());
  for (const name of [MISCHIEF.hangs, MISCHIEF.deaf]) {
    const path = join(mounted.directory, name);
    fs.writeFileSync(path, 'x');
    const { child, exit } = reader(path);
    t.teardown(() => child.kill('SIGKILL'));
    await delay(200);
    child.kill('SIGCHLD');
    child.kill('SIGWINCH');
    t.equal(await Promise.race([exit, delay(400, 'waiting')]), 'waiting', `${name}: still reading`);
    child.kill('SIGINT');
    t.equal(await exit, 'SIGINT', name);
  }
  // a caught signal interrupts only if it is one that asks to end
  const script = `import os, signal, sys
count = 0
def alarm(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, alarm)
signal.signal(signal.SIGTERM, lambda *_: (print('ticks', count > 0, flush=True), os._exit(7)))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
print('begin', flush=True)
os.read(os.open(sys.argv[1], os.O_RDONLY), 10)
print('read came back', flush=True)`;
  const child = spawn('python3', ['-c', script, join(mounted.directory, MISCHIEF.hangs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const exit = new Promise((resolve) => child.once('exit', resolve));
  await eventually(() => output.includes('begin'));
  await delay(500);
  child.kill('SIGTERM');
  t.equal(await exit, 7);
  t.notMatch(output, /read came back/);
  t.match(output, /ticks/);
  t.equal(fs.readdirSync(mounted.directory).length, 2, 'the mount lives on');
  t.same(mounted.logs, []);
});

void t.test('a signal that ends its writer ends a write that waits for room', async (t) => {
  const mounted = await startMount({ writebackCache: false });
  t.teardown(() => mounted.stop());
  const path = join(mounted.directory, MISCHIEF.full);
  fs.writeFileSync(path, '');
  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    const child = spawn('dd', ['if=/dev/zero', `of=${path}`, 'bs=1000', 'count=1'], { stdio: 'ignore' });
    t.teardown(() => child.kill('SIGKILL'));
    const exit = new Promise((resolve) => child.once('exit', (_code, by) => resolve(by)));
    await delay(300);
    child.kill(signal);
    t.equal(await exit, signal);
  }
  t.equal(fs.readdirSync(mounted.directory).length, 1, 'the mount lives on');
});

void t.test('more requests than may wait at once are all answered', async (t) => {
  const mounted = await startMount({ slow: true, directIo: true, entryTimeoutMs: 0, attributeTimeoutMs: 0 });
  t.teardown(() => mounted.stop());
  fs.writeFileSync(join(mounted.directory, 'file'), 'content');
  const script = `import os, sys, threading
def work():
    for _ in range(20):
        assert open(sys.argv[1]).read() == 'content'
threads = [threading.Thread(target=work) for _ in range(700)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print('done')`;
  const { stdout } = spawnSync('python3', ['-c', script, join(mounted.directory, 'file')], { encoding: 'utf8' });
  t.equal(stdout, 'done\n');
});

void t.test('the kernel forgets what the session invalidates', async (t) => {
  const mounted = await startMount({ writebackCache: false });
  t.teardown(() => mounted.stop());
  const at = (name: string): string => join(mounted.directory, name);
  fs.writeFileSync(at('file'), 'old');
  t.equal(fs.readFileSync(at('file'), 'utf8'), 'old');
  await mounted.ask({ type: 'replace', name: 'file', content: 'newer content' });
  t.equal(fs.statSync(at('file')).size, 13);
  t.equal(fs.readFileSync(at('file'), 'utf8'), 'newer content');
  await mounted.ask({ type: 'replace', name: 'file', content: 'NEWER CONTENT' });
  t.equal(fs.readFileSync(at('file'), 'utf8'), 'NEWER CONTENT', 'same size');

  t.notOk(fs.existsSync(at('remote')));
  t.same(fs.readdirSync(mounted.directory), ['file']);
  t.same(fs.readdirSync(mounted.directory), ['file']);
  await mounted.ask({ type: 'add', name: 'remote' });
  t.ok(fs.existsSync(at('remote')), 'a name remembered as absent appears');
  await mounted.ask({ type: 'add', name: 'unheard-of' });
  t.same(fs.readdirSync(mounted.directory).sort(), ['file', 'remote', 'unheard-of'], 'a kept listing is renewed');
  await mounted.ask({ type: 'remove', name: 'remote' });
  t.notOk(fs.existsSync(at('remote')), 'a remembered name goes');
});

void t.test('invalidating what a pending request holds locked does not stop the mount', async (t) => {
  const mounted = await startMount({ slow: true, writebackCache: true });
  t.teardown(() => mounted.stop());
  const at = (name: string): string => join(mounted.directory, name);
  fs.writeFileSync(at('busy'), 'x'.repeat(100_000));
  const script = `i=0; while [ $i -lt 300 ]; do echo $i > '${at('other')}'; cat '${at('busy')}' >/dev/null; echo y >> '${at('busy')}'; mv '${at('other')}' '${at('third')}'; i=$((i+1)); done`;
  const child = spawn('sh', ['-c', script], { stdio: ['ignore', 'ignore', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  let isRunning = true;
  const exit = new Promise((resolve) => child.once('exit', resolve)).finally(() => (isRunning = false));
  let rounds = 0;
  while (isRunning) {
    await Promise.all([
      mounted.ask({ type: 'replace', name: 'busy', content: 'z'.repeat(50_000) }),
      mounted.ask({ type: 'invalidate', name: 'other' }),
      mounted.ask({ type: 'invalidate', name: 'third' }),
    ]);
    rounds++;
  }
  t.equal(await exit, 0);
  t.ok(rounds > 0);
  t.same(mounted.logs, []);
});

void t.test('unmount is refused while in use, unless lazy', async (t) => {
  const mounted = await startMount();
  t.teardown(() => mounted.stop());
  const fd = fs.openSync(join(mounted.directory, 'open'), 'w+');
  t.equal(await mounted.ask({ type: 'unmount', lazy: false }), 'EBUSY');
  fs.writeSync(fd, 'still works');
  t.equal(await mounted.ask({ type: 'unmount', lazy: true }), undefined);
  t.notOk(isInMountTable(mounted.directory));
  t.equal(fs.fstatSync(fd).size, 11, 'what is open goes on');
  fs.closeSync(fd);
  await mounted.ended;
});

void t.test('unmount ends the session, with dirty pages written', async (t) => {
  const mounted = await startMount({ writebackCache: true });
  t.teardown(() => mounted.stop());
  fs.writeFileSync(join(mounted.directory, 'dirty'), Buffer.alloc(8 << 20, 1));
  t.equal(await mounted.ask({ type: 'unmount', lazy: false }), undefined);
  await mounted.ended;
  t.notOk(isInMountTable(mounted.directory));
});

void t.test('umount from outside ends the session', async (t) => {
  const mounted = await startMount();
  t.teardown(() => mounted.stop());
  if (isRoot) spawnSync('umount', [mounted.directory]);
  else spawnSync('fusermount3', ['-u', mounted.directory]);
  await mounted.ended;
  t.notOk(isInMountTable(mounted.directory));
});

void t.test(
  'an abort from outside ends the session and its waiting reads',
  { skip: !isRoot && 'needs root' },
  async (t) => {
    const mounted = await startMount();
    t.teardown(() => mounted.stop());
    const path = join(mounted.directory, MISCHIEF.hangs);
    fs.writeFileSync(path, 'x');
    const { child, exit } = reader(path);
    t.teardown(() => child.kill('SIGKILL'));
    await delay(200);
    spawnSync('umount', ['-f', mounted.directory]);
    await mounted.ended;
    t.equal(await exit, 1);
  },
);

void t.test('a killed server leaves a dead mount, which is detached, also by the next mount', async (t) => {
  const first = await startMount();
  t.teardown(() => first.stop());
  t.equal(await isMounted(first.directory), true);
  t.equal(await isOurMount(first.directory), true);
  t.equal(await detachStale(first.directory), false, 'a live mount stays');
  const killed = new Promise((resolve) => first.child.once('exit', resolve));
  first.child.kill('SIGKILL');
  await killed;
  t.equal(await isMounted(first.directory), true, 'found without touching it');
  t.throws(() => fs.readdirSync(first.directory), { code: 'ENOTCONN' });
  t.equal(await detachStale(first.directory), true);
  t.equal(await isMounted(first.directory), false);
  t.equal(await detachStale(first.directory), false);
  t.same(fs.readdirSync(first.directory), []);

  const second = await startMount({ mountPoint: first.directory });
  t.teardown(() => second.stop());
  const alsoKilled = new Promise((resolve) => second.child.once('exit', resolve));
  second.child.kill('SIGKILL');
  await alsoKilled;
  const third = await startMount({ mountPoint: first.directory });
  t.teardown(() => third.stop());
  fs.writeFileSync(join(first.directory, 'alive'), '');
  await third.stop();
});

void t.test('a read-only mount refuses changes', async (t) => {
  const mounted = await startMount({ readOnly: true });
  t.teardown(() => mounted.stop());
  t.throws(() => fs.writeFileSync(join(mounted.directory, 'x'), ''), { code: 'EROFS' });
  t.same(fs.readdirSync(mounted.directory), []);
});

void t.test('mount points that cannot be used are refused with their reason', async (t) => {
  const directory = newDirectory();
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
  const at = (name: string): string => join(directory, name);
  fs.writeFileSync(at('file'), '');
  fs.mkdirSync(at('full'));
  fs.writeFileSync(at('full/entry'), '');
  fs.mkdirSync(at('with blank'));
  fs.symlinkSync('with blank', at('link'));
  await t.rejects(startMount({ mountPoint: at('missing') }), { code: 'ENOENT' });
  await t.rejects(startMount({ mountPoint: at('file') }), { code: 'ENOTDIR' });
  await t.rejects(startMount({ mountPoint: at('full') }), { code: 'MOUNT_BUSY' });
  const mounted = await startMount({ mountPoint: at('link') });
  t.teardown(() => {
    umountLazily(at('with blank'));
    return mounted.stop();
  });
  fs.writeFileSync(at('with blank/inside'), '');
  t.equal(await isOurMount(at('with blank')), true, 'a blank in the path');
  t.equal(await isOurMount(at('link')), true, 'through a symbolic link');
  await t.rejects(startMount({ mountPoint: at('with blank') }), { code: 'MOUNT_BUSY' });
  t.equal(fs.existsSync(at('with blank/inside')), true, 'the mount that was there is unharmed');
  spawnSync(isRoot ? 'umount' : 'fusermount3', [...(isRoot ? [] : ['-u']), at('with blank')]);
  await mounted.ended;
  await mounted.stop();
});

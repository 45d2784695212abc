// The units under a real systemd: a user's, started in namespaces of its own, so that the machine's is not touched.
// Needs root, systemd and unshare; passes without a check where they are not.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ROOT, Run } from '../support/run.ts';

t.setTimeout(300_000);

const SCRIPT = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p -m 700 /run/systemd/system "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user >"$1/systemd.log" 2>&1 &
for try in $(seq 100); do systemctl --user is-system-running >/dev/null 2>&1 && break; sleep 0.1; done
systemctl --user is-system-running >/dev/null || exit 77
exec "$2" "$3" "$1"
`;

await t.test('a host and a mount run as units, start anew with other options, and end cleanly', async (t) => {
  const run = new Run(t);
  const home = join(run.dir, 'user');
  mkdirSync(home, { mode: 0o700 });
  const child = join(ROOT, 'test/support/systemd-child.ts');
  const namespaces = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const result = await run.exec(
    'unshare',
    [...namespaces, 'sh', '-c', SCRIPT, 'sh', run.dir, process.execPath, child],
    {
      env: { HOME: home, XDG_CONFIG_HOME: join(home, '.config'), XDG_RUNTIME_DIR: '/run/user/0', XCORE_HOME: '' },
      timeoutMs: 240_000,
    },
  );
  if (process.getuid?.() !== 0 || result.code === 77 || result.code === 127) {
    t.comment(`no systemd can be run here: ${result.stderr}`);
    return;
  }
  t.equal(result.code, 0, result.stderr);
  const installed = { changed: true, done: true, commands: [] };
  t.strictSame(JSON.parse(result.stdout), {
    'installed 1GB': installed,
    enabled: 'enabled',
    nice: '10',
    'installed 2GB': installed,
    restarted: true,
    result: 'success',
    uninstalled: installed,
    active: 'inactive',
    content: 'hello',
    'mount result': 'success',
    'still mounted': false,
  });
});

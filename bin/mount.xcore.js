#!/usr/bin/env node
// What mount(8) runs for a line of type xcore in /etc/fstab, through a link /sbin/mount.xcore to this file:
// mount.xcore SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]. As root, the option setuid=USER mounts as that user.

import { execFileSync, spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// mount(8) hands no PATH on, and fusermount3 is looked for in it.
process.env.PATH ??= '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const places = [];
const options = [];
let isFake = false;
const words = process.argv.slice(2);
while (words.length > 0) {
  const word = words.shift();
  if (word === '-o') options.push(...(words.shift() ?? '').split(','));
  else if (word === '-N' || word === '-t') words.shift();
  else if (word.startsWith('-')) isFake ||= word.includes('f');
  else places.push(word);
}
const user = options.find((option) => option.startsWith('setuid='))?.slice('setuid='.length);
const rest = options.filter((option) => option !== '' && !option.startsWith('setuid='));

if (places.length !== 2) {
  process.stderr.write('usage: mount.xcore SPEC DIR [-o OPTIONS]\n');
  process.exitCode = 1;
} else if (!isFake) {
  try {
    if (user !== undefined && process.getuid() === 0) become(user);
    const xcore = join(dirname(fileURLToPath(import.meta.url)), 'xcore.js');
    const list = rest.length > 0 ? ['-o', rest.join(',')] : [];
    const { status } = spawnSync(process.execPath, [xcore, 'mount', places[1], ...list], { stdio: 'inherit' });
    // mount(8): 1 wrong call, 32 mount failure
    process.exitCode = status === 0 ? 0 : status === 2 ? 1 : 32;
  } catch (error) {
    process.stderr.write(`mount.xcore: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 32;
  }
}

/** Goes on as another user, with that user's groups and home. */
function become(name) {
  const id = (flag) => {
    const { status, stdout } = spawnSync('id', [flag, '--', name], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`setuid=${name}: there is no such user`);
    return Number(stdout);
  };
  const [uid, gid] = [id('-u'), id('-g')];
  const home = execFileSync('getent', ['passwd', String(uid)], { encoding: 'utf8' }).split(':')[5];
  process.initgroups(uid, gid);
  process.setgid(gid);
  process.setuid(uid);
  Object.assign(process.env, { HOME: home, USER: name, LOGNAME: name });
  for (const variable of ['XDG_CONFIG_HOME', 'XDG_DATA_HOME', 'XDG_STATE_HOME', 'XDG_RUNTIME_DIR']) {
    delete process.env[variable];
  }
}

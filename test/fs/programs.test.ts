// Programs that people use, on a mount: what they do must come out as on any disk. One whose program is not
// installed is skipped. XCORE_TEST_LONG=1 adds PostgreSQL, npm and LibreOffice.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { acl } from '../support/acl.ts';
import { differences, fingerprint } from '../support/fingerprint.ts';
import { setxattr } from '../support/libc.ts';
import { withMount } from '../support/mounted.ts';
import { Random } from '../support/random.ts';
import { makeOdd } from '../support/tree.ts';
import { ROOT } from '../support/run.ts';

t.setTimeout(600_000);

const IS_LONG = process.env['XCORE_TEST_LONG'] === '1';
const isRoot = process.geteuid?.() === 0;

/** False when all of these programs are there, else the reason to skip. */
function missing(...programs: string[]): string | false {
  const absent = programs.filter((program) => spawnSync('/bin/sh', ['-c', `command -v ${program}`]).status !== 0);
  return absent.length === 0 ? false : `not installed: ${absent.join(', ')}`;
}

const volume = await withMount(t);
const { run } = volume.net;
const at = (...parts: string[]): string => join(volume.dir, ...parts);

async function sh(cwd: string, script: string, timeoutMs = 120_000): Promise<string> {
  const env = { HOME: run.dir, LC_ALL: 'C', GIT_CONFIG_NOSYSTEM: '1' };
  return run.must('/bin/sh', ['-ec', script], { cwd, env, timeoutMs });
}

await t.test('git: commit, gc, clone, fsck, status after touch', { skip: missing('git') }, async (t) => {
  const repository = at('repository');
  fs.mkdirSync(repository);
  const random = new Random('git');
  for (let n = 0; n < 150; n++) {
    const path = join(repository, `folder-${n % 12}`, `file-${n}.txt`);
    fs.mkdirSync(dirname(path), { recursive: true });
    fs.writeFileSync(path, random.bytes(random.below(20_000)).toString('base64'));
  }
  const config = `git config user.name test; git config user.email test@localhost; git config gc.auto 0`;
  await sh(repository, `git init -q -b main .; ${config}; git add .; git commit -qm first`);
  await sh(
    repository,
    `git checkout -qb side; git mv folder-1 moved; echo more >> moved/file-1.txt; git commit -qam side
     git checkout -q main; echo other > other; git add other; git commit -qm other; git merge -q side -m merge
     git gc -q --prune=now; git fsck --full --strict`,
  );
  await sh(volume.dir, `git clone -q repository clone; git clone -q --no-local repository clone-2`);
  t.equal(await sh(at('clone'), 'git fsck --full; git status --porcelain'), '');
  await sh(at('clone'), `find . -name .git -prune -o -type f -exec touch {} +`);
  t.equal(await sh(at('clone'), 'git status --porcelain'), '', 'touched, but not changed');
  await volume.remount();
  t.equal(await sh(at('clone'), 'git status --porcelain; git fsck --full'), '', 'after a remount');
  t.equal(await sh(at('clone-2'), 'git rev-parse HEAD'), await sh(repository, 'git rev-parse HEAD'));
});

await t.test('SQLite: rollback journal and WAL, several processes, integrity', async (t) => {
  const script = `
    import { DatabaseSync } from 'node:sqlite';
    const [path, who, count] = process.argv.slice(1);
    const db = new DatabaseSync(path);
    db.exec('PRAGMA busy_timeout = 60000');
    const insert = db.prepare('INSERT INTO work (who, n, data) VALUES (?, ?, randomblob(500))');
    for (let n = 0; n < Number(count); n++) {
      db.exec('BEGIN IMMEDIATE');
      insert.run(who, n);
      db.exec(n % 5 === 4 ? 'ROLLBACK' : 'COMMIT');
    }
    db.close();`;
  for (const mode of ['DELETE', 'WAL']) {
    const path = at(`${mode}.sqlite`);
    const query = async (statement: string): Promise<string> =>
      run.must(process.execPath, [
        ...['--no-warnings', '--input-type=module', '-e'],
        `import { DatabaseSync } from 'node:sqlite';
         const db = new DatabaseSync(process.argv[1]);
         console.log(JSON.stringify(db.prepare(process.argv[2]).all()));`,
        ...[path, statement],
      ]);
    t.match(await query(`PRAGMA journal_mode = ${mode}`), mode.toLowerCase());
    await query('CREATE TABLE work (who TEXT, n INTEGER, data BLOB)');
    const arguments_ = ['--no-warnings', '--input-type=module', '-e', script, path];
    await Promise.all(
      ['a', 'b', 'c'].map((who) => run.must(process.execPath, [...arguments_, who, '50'], { timeoutMs: 120_000 })),
    );
    t.match(await query('SELECT count(*) AS rows FROM work'), '"rows":120', mode);
    t.match(await query('PRAGMA integrity_check'), '"ok"', mode);
    await volume.remount();
    t.match(await query('PRAGMA integrity_check'), '"ok"', `${mode} after a remount`);
  }
});

await t.test('rsync -aHAX: the second run finds nothing to do', { skip: missing('rsync') }, async (t) => {
  const source = join(run.dir, 'rsync');
  makeOdd(source, new Random('rsync'));
  fs.linkSync(
    join(
      source,
      fs.readdirSync(source).find((name) => fs.lstatSync(join(source, name)).isFile())!,
    ),
    join(source, 'another name'),
  );
  fs.writeFileSync(join(source, 'listed'), 'x');
  setxattr(join(source, 'listed'), 'user.note', Buffer.from('value'));
  setxattr(
    join(source, 'listed'),
    'system.posix_acl_access',
    acl('u::rw-', 'u:1201:r--', 'g::r--', 'm::r--', 'o::---'),
  );
  // which of the times survive a copy is the same on all disks
  const options = '-aHAX --itemize-changes';
  await sh(run.dir, `rsync ${options} rsync/ ${at('rsynced')}/`);
  t.equal(await sh(run.dir, `rsync ${options} rsync/ ${at('rsynced')}/`), '');
  t.equal(await sh(run.dir, `rsync ${options} --checksum ${at('rsynced')}/ rsync/`), '', 'nor does the way back');
  await volume.remount();
  t.equal(await sh(run.dir, `rsync ${options} --checksum rsync/ ${at('rsynced')}/`), '', 'nor after a remount');
});

await t.test('tar: attributes, links and holes go in and come out', { skip: missing('tar') }, async (t) => {
  const source = at('tarred');
  makeOdd(source, new Random('tar'));
  const fd = fs.openSync(join(source, 'sparse'), 'w');
  fs.writeSync(fd, 'middle', 30_000_000);
  fs.ftruncateSync(fd, 60_000_000);
  fs.closeSync(fd);
  setxattr(join(source, 'sparse'), 'user.note', Buffer.from('value'));
  await sh(volume.dir, `tar --xattrs -S -cf archive.tar tarred; mkdir out; tar --xattrs -S -C out -xpf archive.tar`);
  t.strictSame(differences(await fingerprint(run, source), await fingerprint(run, at('out', 'tarred'))), []);
  t.ok(fs.statSync(at('archive.tar')).size < 20_000_000, 'tar has found the holes');
  t.ok(fs.statSync(at('out/tarred/sparse')).blocks * 512 < 1_000_000, 'and made them again');
});

await t.test('make and gcc: a build, nothing to do, one file changed', { skip: missing('make', 'gcc') }, async (t) => {
  const project = at('project');
  fs.mkdirSync(project);
  const units = Array.from({ length: 20 }, (_, n) => `unit${n}`);
  units.forEach((unit, n) => {
    fs.writeFileSync(join(project, `${unit}.c`), `#include "all.h"\nint ${unit}(int x) { return x + ${n}; }\n`);
  });
  fs.writeFileSync(join(project, 'all.h'), units.map((unit) => `int ${unit}(int);\n`).join(''));
  const calls = units.map((unit) => `x = ${unit}(x);`).join(' ');
  const main = `#include <stdio.h>\n#include "all.h"\nint main(void) { int x = 0; ${calls} printf("%d\\n", x); return 0; }\n`;
  fs.writeFileSync(join(project, 'main.c'), main);
  fs.writeFileSync(
    join(project, 'Makefile'),
    `OBJECTS = main.o ${units.map((unit) => `${unit}.o`).join(' ')}\nprogram: $(OBJECTS)\n\t$(CC) -o $@ $^\n%.o: %.c all.h\n\t$(CC) -O1 -c $<\n`,
  );
  await sh(project, 'make -j4');
  t.equal((await sh(project, './program')).trim(), '190');
  t.match(await sh(project, 'make'), 'up to date');
  await volume.remount();
  t.match(await sh(project, 'make'), 'up to date', 'also after a remount');
  fs.appendFileSync(join(project, 'unit3.c'), '/* changed */\n');
  const output = await sh(project, 'make');
  t.match(output, /-c unit3\.c/);
  t.notMatch(output, /-c unit4\.c/);
});

await t.test('editors: vim, sed -i, and saving by rename', async (t) => {
  const path = at('edited.txt');
  fs.writeFileSync(path, 'first line\nsecond line\n', { mode: 0o640 });
  if (missing('vim') === false) {
    await sh(
      volume.dir,
      `vim -u NONE -N -es -c 'set backup writebackup backupskip=' -c '%s/first/edited/' -c wq edited.txt`,
    );
    t.equal(fs.readFileSync(path, 'utf8'), 'edited line\nsecond line\n');
    t.equal(fs.readFileSync(`${path}~`, 'utf8'), 'first line\nsecond line\n', 'the backup');
    t.notOk(fs.existsSync(at('.edited.txt.swp')));
  }
  await sh(volume.dir, `sed -i 's/second/2nd/' edited.txt`);
  t.match(fs.readFileSync(path, 'utf8'), '2nd line');
  for (let n = 0; n < 20; n++) {
    const temporary = at(`.edited.${n}.tmp`);
    const fd = fs.openSync(temporary, 'wx', 0o640);
    fs.writeSync(fd, `version ${n}\n`);
    fs.fsyncSync(fd);
    fs.closeSync(fd);
    fs.renameSync(temporary, path);
    const folder = fs.openSync(volume.dir, 'r');
    fs.fsyncSync(folder);
    fs.closeSync(folder);
    if (fs.readFileSync(path, 'utf8') !== `version ${n}\n`) t.fail(`version ${n}`);
  }
  t.equal(fs.statSync(path).mode & 0o777, 0o640);
});

await t.test('cp and mv: copies share, moves keep', async (t) => {
  const data = new Random('cp').bytes(30_000_000);
  fs.writeFileSync(at('large'), data);
  await sh(
    volume.dir,
    `cp -a large large-copy; cp -a tarred copied-tree; mv copied-tree moved-tree; mv large large-moved`,
  );
  t.ok(fs.readFileSync(at('large-copy')).equals(data));
  t.ok(fs.readFileSync(at('large-moved')).equals(data));
  await volume.client.flush();
  const { stagedBytes } = await volume.client.status();
  t.equal(stagedBytes, 0, 'all of it can be uploaded');
});

await t.test(
  'PostgreSQL: initdb and pgbench',
  {
    skip: !IS_LONG
      ? 'XCORE_TEST_LONG=1 only'
      : isRoot
        ? 'PostgreSQL refuses root'
        : missing('initdb', 'pgbench', 'pg_ctl'),
  },
  async (t) => {
    await sh(volume.dir, `initdb -D data -A trust -U test > /dev/null`);
    const options = `-c listen_addresses= -c unix_socket_directories=${run.dir}`;
    await sh(volume.dir, `pg_ctl -D data -w -l ${run.dir}/postgres.log -o "${options}" start > /dev/null`);
    try {
      await sh(volume.dir, `createdb -h ${run.dir} -U test test; pgbench -h ${run.dir} -U test -i -s 2 -q test 2>&1`);
      t.match(
        await sh(volume.dir, `pgbench -h ${run.dir} -U test -c 4 -T 20 test 2>&1`),
        /number of failed transactions: 0/,
      );
    } finally {
      await sh(volume.dir, `pg_ctl -D data -w -m fast stop > /dev/null`);
    }
  },
);

await t.test('npm install', { skip: !IS_LONG ? 'XCORE_TEST_LONG=1 only' : missing('npm') }, async (t) => {
  fs.mkdirSync(at('npm'));
  fs.copyFileSync(join(ROOT, 'package.json'), at('npm/package.json'));
  fs.copyFileSync(join(ROOT, 'package-lock.json'), at('npm/package-lock.json'));
  // with its user's settings, which say where packages come from
  const home = process.env['HOME'] ?? '/';
  await sh(at('npm'), `HOME=${home} npm ci --ignore-scripts --no-audit --no-fund`, 500_000);
  t.ok(fs.existsSync(at('npm/node_modules/yargs/package.json')));
});

await t.test(
  'LibreOffice: a document there and back, its profile on the mount, no lock left',
  { skip: !IS_LONG ? 'XCORE_TEST_LONG=1 only' : missing('soffice') },
  async (t) => {
    fs.mkdirSync(at('office'));
    fs.writeFileSync(at('office/table.csv'), 'name,number\nalpha,1\nbeta,2\n');
    const office = `soffice --headless -env:UserInstallation=file://${at('office/profile')}`;
    await sh(at('office'), `${office} --convert-to ods table.csv`, 300_000);
    await volume.remount();
    await sh(at('office'), `${office} --convert-to csv --outdir back table.ods`, 300_000);
    t.equal(fs.readFileSync(at('office/back/table.csv'), 'utf8'), 'name,number\nalpha,1\nbeta,2\n');
    t.strictSame(
      fs.readdirSync(at('office'), { recursive: true, encoding: 'utf8' }).filter((name) => /\.~lock/.test(name)),
      [],
    );
  },
);

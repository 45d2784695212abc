// Two jobs of fifty processes each that create, append, rename and remove in one directory: no error that
// a local filesystem would not give, no line lost, and an index that is whole.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mountVolume } from '../support/volume-mount.ts';

const PROCESSES = 50;
const SECONDS = process.env['XCORE_TEST_LONG'] === '1' ? 60 : 6;

t.setTimeout(SECONDS * 1_000 + 120_000);

/**
 * A job, its number and seconds as arguments: processes that print an error when it is none of those that the
 * race explains, and append what they did to a log of the job, line by line.
 */
const JOB = String.raw`
use strict; use Fcntl; use Errno qw(EEXIST ENOENT EINTR);
my ($job, $seconds, $processes, $dir) = @ARGV;
my $end = time + $seconds;
for my $n (1 .. $processes) {
  my $pid = fork() // die "fork: $!";
  next if $pid;
  srand($job * 1000 + $n);
  sysopen(my $log, "$dir/log-$job", O_WRONLY | O_APPEND | O_CREAT) or die "log: $!";
  my ($done, $failed) = (0, 0);
  my $name = sub { "$dir/n" . int(rand(40)) };
  my $check = sub { my ($ok, $what, @allowed) = @_;
    return if $ok; my $errno = $! + 0; return if grep { $_ == $errno } @allowed;
    print "$what: $!\n"; $failed++; };
  # on a starved machine some begin when the time is over
  while (time < $end || $done < 20) {
    my $what = int(rand(5));
    if ($what == 0) { my $ok = sysopen(my $f, $name->(), O_WRONLY | O_CREAT | O_EXCL); $check->($ok, "create", EEXIST);
      if ($ok) { $check->(defined syswrite($f, "x" x 100), "write"); $check->(close($f), "close"); } }
    elsif ($what == 1) { my $ok = sysopen(my $f, $name->(), O_WRONLY | O_APPEND); $check->($ok, "append", ENOENT);
      if ($ok) { $check->(defined syswrite($f, "appended"), "append"); $check->(close($f), "close"); } }
    elsif ($what == 2) { $check->(rename($name->(), $name->()), "rename", ENOENT); }
    elsif ($what == 3) { $check->(unlink($name->()), "unlink", ENOENT); }
    else { my $ok = opendir(my $d, $dir); $check->($ok, "opendir"); if ($ok) { readdir $d; closedir $d; } }
    $done++;
    $check->(defined syswrite($log, sprintf("%02d %05d\n", $n, $done)), "log") if $done % 10 == 0;
  }
  $check->(close($log), "close log");
  exit($failed ? 1 : 0);
}
my $bad = 0;
while (wait() != -1) { $bad++ if $?; }
exit($bad ? 1 : 0);
`;

const skip = spawnSync('perl', ['-e', '1']).status === 0 ? false : 'perl is not installed';

void t.test('a hundred processes in one directory meet no error of ours', { skip }, async (t) => {
  const volume = await mountVolume(t);
  const { run } = volume;
  const dir = join(volume.dir, 'shared');
  mkdirSync(dir);
  // perl complains of a locale that is not installed
  const options = { timeoutMs: SECONDS * 1_000 + 60_000, env: { LC_ALL: 'C' } };
  const jobs = [1, 2].map((job) => run.exec('perl', ['-e', JOB, `${job}`, `${SECONDS}`, `${PROCESSES}`, dir], options));
  for (const { code, stdout, stderr } of await Promise.all(jobs)) {
    t.equal(stdout + stderr, '');
    t.equal(code, 0);
  }
  for (const job of [1, 2]) {
    const lines = readFileSync(join(dir, `log-${job}`), 'latin1')
      .split('\n')
      .slice(0, -1);
    const last = new Map<string, number>();
    let wrong = 0;
    for (const line of lines) {
      const [process = '', count = ''] = line.split(' ');
      if (!/^\d\d \d{5}$/.test(line) || Number(count) !== (last.get(process) ?? 0) + 10) wrong++;
      last.set(process, Number(count));
    }
    t.equal(wrong, 0, 'every appended line is there, whole and in order');
    t.equal(last.size, PROCESSES);
    t.comment(`job ${job}: ${lines.length * 10} operations`);
  }
  t.equal(new Set(readdirSync(dir)).size, readdirSync(dir).length);
  t.strictSame(await volume.finish(), [], 'the index is whole');
});

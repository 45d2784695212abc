// A mount without a network: a volume on local disk, served by a process of its own. Up within a second.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { TreeCheck } from '../../src/tree/check-tree.ts';
import { Findings } from '../../src/tree/findings.ts';
import { DRIVER } from './driver.ts';
import { Run, ROOT, until } from './run.ts';
import type { Scope } from './run.ts';
import { NAME_KEY, openVolume } from './volume.ts';

const READY_MS = 60_000;

/** One mounted volume. */
export interface VolumeMount {
  readonly run: Run;
  /** The mount point. */
  readonly dir: string;
  /** Id of the process that serves it. */
  readonly pid: number;
  /** Unmounts and mounts again: what comes back was kept on disk, not in a cache. */
  remount(): Promise<void>;
  /** Unmounts; what a check of the index that is left finds. */
  finish(): Promise<string[]>;
}

/** Mounts an empty volume; ends with the test `t`. */
export async function mountVolume(t: Scope, options: { allowOther?: boolean } = {}): Promise<VolumeMount> {
  const run = new Run(t);
  const dir = join(run.dir, 'mnt');
  mkdirSync(dir);
  const args = [join(ROOT, 'test/support/volume-server.ts'), join(run.dir, 'volume'), dir, DRIVER];
  if (options.allowOther === true && DRIVER !== 'fuse-native') args.push('allow-other');
  const start = async (): Promise<{ pid: number; ended: Promise<void> }> => {
    const child = run.spawn('server', args);
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    await until(
      'the volume to be mounted',
      () => {
        if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
        return output.includes('ready');
      },
      READY_MS,
    );
    return { pid: child.pid ?? 0, ended };
  };
  let server = await start();
  const unmount = async (): Promise<void> => {
    if (process.geteuid?.() === 0) await run.must('umount', [dir]);
    else await run.must('fusermount3', ['-u', dir]);
    await server.ended;
  };
  return {
    run,
    dir,
    get pid() {
      return server.pid;
    },
    remount: async () => {
      await unmount();
      server = await start();
    },
    finish: async () => {
      await unmount();
      const volume = await openVolume(join(run.dir, 'volume'));
      try {
        await volume.store.commit();
        const findings = new Findings();
        await new TreeCheck(volume.store, NAME_KEY, findings).run();
        return findings.list.map(({ message }) => message);
      } finally {
        await volume.close();
      }
    },
  };
}

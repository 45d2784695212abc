// xcore doctor: looks at everything the other commands need, and says how to get what is missing.

import type { CommandModule } from 'yargs';
import { EXIT } from '../../lib/errors.ts';
import type { Check } from '../check.ts';
import { currentPaths } from '../context.ts';
import { checkAllowOther, checkDevice, checkFusermount } from '../fuse-checks.ts';
import { checkBridge, checkDisk, checkHome, checkHost, checkIdentity, checkMount } from '../home-checks.ts';
import { checkKoffi, checkLevel, checkLibfuse, checkNode } from '../machine-checks.ts';
import { print, printJson } from '../output.ts';

const SIGNS: Record<Check['state'], string> = { ok: 'ok      ', warning: 'warning ', missing: 'MISSING ' };

/** The command's description for yargs. */
export const doctorCommand: CommandModule<object, { json: boolean }> = {
  command: 'doctor',
  describe: 'check this machine for everything that xcore needs',
  builder: (yargs) =>
    yargs
      .option('json', { type: 'boolean', default: false, describe: 'print JSON: { ok, checks }' })
      .example('$0 doctor', 'each missing thing comes with its fix'),
  handler: async (args) => {
    const paths = currentPaths();
    const checks = await Promise.all([
      checkNode(),
      checkDevice(),
      checkFusermount(),
      checkAllowOther(),
      checkKoffi(),
      checkLevel(),
      checkLibfuse(),
      checkDisk(paths),
      checkHome(paths),
      checkIdentity(paths),
      checkBridge(paths),
      checkHost(paths),
      checkMount(paths),
    ]);
    const fine = checks.every((check) => check.state !== 'missing');
    if (args.json) printJson({ ok: fine, checks });
    else {
      for (const check of checks) {
        print(`${SIGNS[check.state]}${check.name}: ${check.detail}`);
        if (check.fix !== '') print(`        ${check.fix}`);
      }
    }
    if (!fine) process.exitCode = EXIT.fuse;
  },
};

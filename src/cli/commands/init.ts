// xcore init: makes the identity of a home, new or from the 24 words.

import type { Argv, CommandModule } from 'yargs';
import { createIdentity, identityState, loadConfig, saveConfig } from '../../client/identity.ts';
import { XcoreError } from '../../lib/errors.ts';
import { ensureHome, removeEmptyFolders, type Paths } from '../../lib/paths.ts';
import { currentPaths } from '../context.ts';
import { checkMirrors } from '../mirrors.ts';
import { checkBridgeAddress } from '../multiaddr.ts';
import { note, print, printJson } from '../output.ts';
import { askNewPassphrase, readPhrase } from '../prompt.ts';

interface InitArguments {
  bridge?: string;
  recover: boolean;
  passphrase: boolean;
  mirrors?: number;
  json: boolean;
}

/** The command's description for yargs. */
export const initCommand: CommandModule<object, InitArguments> = {
  command: 'init',
  describe: 'make the identity of this home, or bring one back from its 24 words',
  builder: (yargs: Argv) =>
    yargs
      .option('bridge', { type: 'string', requiresArg: true, describe: 'multiaddr of the bridge, ending with /p2p/…' })
      .option('recover', { type: 'boolean', default: false, describe: 'read the 24 words from the terminal or stdin' })
      .option('passphrase', { type: 'boolean', default: false, describe: 'lock the identity file with a passphrase' })
      .option('mirrors', { type: 'number', requiresArg: true, describe: 'copies of each shard, on as many hosts' })
      .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
      .example('$0 init --bridge /ip4/192.0.2.1/tcp/4001/p2p/12D3…', 'a new volume on that bridge')
      .example('$0 init --recover < words.txt', 'the volume of these words, on this machine'),
  handler: init,
};

async function init(args: InitArguments): Promise<void> {
  const paths = currentPaths();
  const bridge = args.bridge === undefined ? null : checkBridgeAddress(args.bridge);
  const mirrors = checkMirrors(args.mirrors);
  const made = ensureHome(paths);
  try {
    await makeIdentity(args, paths, { bridge, mirrors });
  } catch (error) {
    removeEmptyFolders(made);
    throw error;
  }
}

async function makeIdentity(
  args: InitArguments,
  paths: Paths,
  { bridge, mirrors }: { bridge: string | null; mirrors: number },
): Promise<void> {
  if ((await identityState(paths)) !== 'absent') {
    throw new XcoreError(
      'IDENTITY_EXISTS',
      `${paths.identityFile} holds an identity already, and nothing was changed; use another XCORE_HOME, or write its words down (xcore phrase) and move the file away`,
    );
  }
  const before = await loadConfig(paths);
  const phrase = args.recover ? await readPhrase() : undefined;
  const passphrase = args.passphrase ? await askNewPassphrase() : undefined;
  await createIdentity(paths, { phrase, passphrase });
  if (bridge !== null || mirrors > 0) {
    await saveConfig(paths, { ...before, bridge: bridge ?? before.bridge, ...(mirrors > 0 ? { mirrors } : {}) });
  }
  const joined = bridge ?? before.bridge;
  if (args.json) {
    printJson({ identity: paths.identityFile, recovered: args.recover, bridge: joined, locked: args.passphrase });
    return;
  }
  print(`${args.recover ? 'recovered' : 'made'} the identity in ${paths.identityFile}`);
  if (!args.recover) note('xcore phrase shows the 24 words that bring everything back; write them down now');
  if (joined === null)
    note('no bridge is set, so everything stays on this machine; xcore init --bridge in a new home joins a network');
}

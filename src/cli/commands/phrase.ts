// xcore phrase: shows the 24 words again, and nothing else.

import type { CommandModule } from 'yargs';
import { loadIdentity } from '../../client/identity.ts';
import { currentPaths } from '../context.ts';
import { print } from '../output.ts';
import { askPassphrase } from '../prompt.ts';

/** The command's description for yargs. */
export const phraseCommand: CommandModule = {
  command: 'phrase',
  describe: 'show the 24 words of this home on one line',
  builder: (yargs) => yargs.example('$0 phrase', 'write them down; whoever has them has your files'),
  handler: async () => {
    const identity = await loadIdentity(currentPaths(), () => askPassphrase());
    print(identity.phrase);
  },
};

// The command line: which commands there are, and how each ends.

import yargs, { type Argv, type CommandModule } from 'yargs';
import { EXIT, XcoreError } from '../lib/errors.ts';
import { isDebug, version } from './context.ts';
import { refuseEmpty, refuseFlagValues, refuseRepeated } from './given.ts';
import { reportError } from './output.ts';

/** Commands by name, loaded when they are asked for: together they pull in most of the program. */
const COMMANDS: Record<string, () => Promise<unknown>> = {
  init: async () => (await import('./commands/init.ts')).initCommand,
  phrase: async () => (await import('./commands/phrase.ts')).phraseCommand,
  mount: async () => (await import('./commands/mount.ts')).mountCommand,
  umount: async () => (await import('./commands/umount.ts')).umountCommand,
  status: async () => (await import('./commands/status.ts')).statusCommand,
  flush: async () => (await import('./commands/flush.ts')).flushCommand,
  fsck: async () => (await import('./commands/fsck.ts')).fsckCommand,
  serve: async () => (await import('./commands/serve.ts')).serveCommand,
  host: async () => (await import('./commands/host.ts')).hostCommand,
  bridge: async () => (await import('./commands/bridge.ts')).bridgeCommand,
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommand,
  'local-network': async () => (await import('./commands/local-network.ts')).localNetworkCommand,
};

const EPILOGUE = [
  'Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 identity (absent, there already, wrong words',
  'or passphrase, unsafe modes), 4 busy or not mounted, 5 FUSE or another part of this machine is',
  'missing, 6 network, 7 no room, 8 damaged data.',
  '',
  'Environment: XCORE_HOME (folder of all state), XCORE_LOG (debug, info, warn, error or silent),',
  'XCORE_PASSPHRASE_FILE (file with the passphrase of a locked identity).',
].join('\n');

const MISSING = 'an argument is missing';

/** Runs one command with its arguments and ends the process with its exit code. */
export async function main(args: readonly string[]): Promise<void> {
  // Whatever a command makes is its user's alone.
  process.umask(0o077);
  try {
    refuseEmpty(args);
    await parser(args, await commandsFor(args)).parseAsync();
  } catch (error) {
    process.exitCode = reportError(error, { json: args.includes('--json'), debug: isDebug() });
  }
  // Whatever is still open has been stopped or does not matter to the outcome.
  process.exit(process.exitCode ?? EXIT.ok);
}

/** The command that the arguments begin with; all of them for help, completion and what is none of them. */
async function commandsFor(args: readonly string[]): Promise<CommandModule[]> {
  const load = Object.hasOwn(COMMANDS, args[0] ?? '') ? COMMANDS[args[0]!] : undefined;
  const loads = load ? [load] : Object.values(COMMANDS);
  return (await Promise.all(loads.map((each) => each()))) as CommandModule[];
}

function parser(args: readonly string[], commands: CommandModule[]): Argv {
  return (
    yargs([...args])
      .scriptName('xcore')
      .locale('en')
      .parserConfiguration({ 'duplicate-arguments-array': false, 'boolean-negation': false })
      .usage('$0 <command>\n\nAn encrypted cloud drive with no data centre.')
      .command(commands)
      .completion('completion', 'print a script for the shell: source <(xcore completion)')
      .example('$0 mount ~/XCloud', 'mount your volume, and make one if there is none')
      .epilogue(EPILOGUE)
      // Known everywhere, so that it may also stand before the command.
      .boolean('json')
      .demandCommand(1, 'which command?')
      .recommendCommands()
      .strict()
      .check((understood) => {
        refuseFlagValues(args, understood);
        refuseRepeated(args, understood);
        return true;
      })
      .help()
      .alias('help', 'h')
      .version(version())
      .updateStrings({
        'Not enough non-option arguments: got %s, need at least %s': {
          one: MISSING,
          other: MISSING,
        } as unknown as string,
      })
      .wrap(Math.min(100, process.stdout.columns ?? 100))
      .exitProcess(false)
      .fail((message, error) => {
        // Errors of a command come as they are; the rest is yargs speaking of the arguments.
        if (error && error.name !== 'YError') throw error;
        throw usageError(message || error.message, args, commands);
      })
  );
}

/** What was wrong with the arguments, and where to read how it is done. */
function usageError(message: string, args: readonly string[], commands: readonly CommandModule[]): XcoreError {
  const given = args.find((argument) => Object.hasOwn(COMMANDS, argument));
  const help = given === undefined ? 'xcore --help' : `xcore ${given} --help`;
  const said = message.startsWith(MISSING) ? `${MISSING}: xcore ${usageOf(args, commands)}` : plain(message, args);
  const what =
    given === undefined
      ? said.replace(/^Unknown argument/, 'unknown command').replace(/^Did/, 'unknown command; did')
      : said.replace(/^[A-Z]/, (letter) => letter.toLowerCase());
  return new XcoreError('USAGE', `${what}${/[.?]$/.test(what) ? '' : ';'}${elsewhere(given, what)} see ${help}`);
}

/** Where what is not known to a command belongs, as far as people mix them up. */
function elsewhere(command: string | undefined, what: string): string {
  const unknown = /^unknown arguments?: (.+)$/.exec(what)?.[1]?.split(', ') ?? [];
  if (command === 'host' && unknown.length > 0) return ' space, speed, hours and the like are options of xcore serve;';
  const [action] = unknown.filter((word) => ['status', 'pause', 'resume', 'exit', 'verify'].includes(word));
  return command === 'serve' && action !== undefined ? ` that is xcore host ${action};` : '';
}

/** The command that was given with the names of its arguments, as in "mount <dir>". */
function usageOf(args: readonly string[], commands: readonly CommandModule[]): string {
  const usages = commands.flatMap(({ command }) => command ?? []);
  return usages.find((usage) => args.includes(usage.split(' ')[0] ?? '')) ?? '<command>';
}

/** What yargs says of options as people write them: without second spellings of its own, choices in a sentence. */
function plain(message: string, args: readonly string[]): string {
  const hungry = /^Not enough arguments following: (.+)$/.exec(message);
  if (hungry) return `${hungry[1]?.length === 1 ? '-' : '--'}${hungry[1]} needs a value`;
  const choice = /^Invalid values:\s+Argument: (\S+), Given: "(.*)", Choices: (.*)$/s.exec(message);
  if (choice) {
    const what = args.some((argument) => argument.startsWith(`--${choice[1]}`)) ? `--${choice[1]}` : `the ${choice[1]}`;
    return `${what} is one of ${choice[3]?.replaceAll('"', '')}, not '${choice[2]}'`;
  }
  const unknown = /^Unknown arguments: (.+)$/.exec(message);
  if (!unknown) return message;
  const names = unknown[1]?.split(', ') ?? [];
  const dashed = names.map((name) => name.replace(/-(\w)/g, (_match, letter: string) => letter.toUpperCase()));
  const first = names.filter((name, index) => !dashed.slice(0, index).includes(name));
  return `Unknown argument${first.length === 1 ? '' : 's'}: ${first.join(', ')}`;
}

// The list behind `xcore mount -o`, as mount(8) and /etc/fstab write it.

import { isDriverName, type DriverName } from '../fuse/choose-driver.ts';
import { XcoreError } from '../lib/errors.ts';
import { bytesOf } from './option-values.ts';

/** What a list of options asks for; an absent field is not mentioned in it. */
export interface ListedOptions {
  readOnly?: boolean;
  allowOther?: boolean;
  takeOver?: boolean;
  accessTimes?: boolean;
  noExec?: boolean;
  cacheSize?: string;
  driver?: DriverName;
  /** In the place of $XCORE_HOME. */
  home?: string;
}

/** Words that are true of every mount here, or meant for mount(8), systemd and people. */
const IGNORED =
  /^(?:rw|defaults|async|auto|noauto|nouser|users?(?:=.*)?|owner|group|nofail|_netdev|nosuid|nodev|exec|lazytime|nodiratime|x-.*|comment=.*)$/i;

/** Understands a list such as `ro,noatime,cache-size=50GB`. USAGE names the word that is not understood. */
export function parseMountOptions(list: string): ListedOptions {
  const found: ListedOptions = {};
  for (const word of list.split(',')) {
    const [name = '', ...rest] = word.split('=');
    const value = rest.join('=');
    if (word === 'ro') found.readOnly = true;
    else if (word === 'allow_other' || word === 'allow-other') found.allowOther = true;
    else if (word === 'take-over') found.takeOver = true;
    else if (word === 'noatime') found.accessTimes = false;
    else if (word === 'relatime') found.accessTimes = true;
    else if (word === 'noexec') found.noExec = true;
    else if (name === 'cache-size') found.cacheSize = size(value);
    else if (name === 'driver' && isDriverName(value)) found.driver = value;
    else if (name === 'home' && value !== '') found.home = value;
    else if (word === 'remount')
      throw new XcoreError('USAGE', 'a mount keeps its options; umount it and mount it again');
    else if (word !== '' && !IGNORED.test(word)) {
      throw new XcoreError('USAGE', `mount option '${word}' is not known; see xcore mount --help`);
    }
  }
  return found;
}

function size(value: string): string {
  bytesOf('cache-size', value);
  return value;
}

// Why a node cannot listen, as a sentence for whoever chose the address. Knows no options and no protocol.

import { asError, XcoreError } from '../lib/errors.ts';

/** What libp2p reports: all addresses that failed, each with its error and a stack in one text. */
const LIBP2P_ERROR = 'UnsupportedListenAddressesError';

/** The error of starting a node: EBUSY for a port in use, EACCES for one that is root's, USAGE for an address that is not this machine's; any other as it is. */
export function toListenError(thrown: unknown): Error {
  const error = asError(thrown);
  if (error.name !== LIBP2P_ERROR) return error;
  const [, address = 'the address', why = error.message] =
    /^\s*(\/\S+):\s*(?:Error: )?(.*)$/m.exec(error.message) ?? [];
  switch (/\bE[A-Z]{4,}\b/.exec(why)?.[0]) {
    case 'EADDRINUSE':
      return new XcoreError('EBUSY', `another program listens on ${address} already; give another port`, {
        cause: error,
      });
    case 'EACCES':
      return new XcoreError('EACCES', `${address} is for root to listen on; give a port from 1024 on`, {
        cause: error,
      });
    case 'EADDRNOTAVAIL':
      return new XcoreError(
        'USAGE',
        `${address} is no address of this machine; listen on /ip4/0.0.0.0/tcp/… for all that it has`,
        { cause: error },
      );
    default:
      return new XcoreError('USAGE', `nobody can listen on ${address}: ${why}`, { cause: error });
  }
}

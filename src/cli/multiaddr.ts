// Addresses as users give them.

import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { XcoreError } from '../lib/errors.ts';

/** Checks the address of a bridge, which names its peer id; USAGE when it is none. */
export function checkBridgeAddress(text: string): string {
  const address = parse(text, '--bridge');
  const components = address.getComponents();
  const peer = components.findLast((component) => component.name === 'p2p');
  if (peer?.value === undefined || components.length < 2 || !isPeerName(peer.value)) {
    throw new XcoreError(
      'USAGE',
      `--bridge ${text} does not name the bridge's peer; give the whole line that xcore bridge prints, which ends with /p2p/…`,
    );
  }
  return address.toString();
}

function isPeerName(text: string): boolean {
  try {
    peerIdFromString(text);
    return true;
  } catch {
    return false;
  }
}

/** Checks an address to listen on; USAGE when it is none over TCP. */
export function checkListenAddress(text: string): string {
  const address = parse(text, '--listen');
  if (!address.getComponents().some((component) => component.name === 'tcp')) {
    throw new XcoreError('USAGE', `--listen ${text} is not a TCP address; write it as in /ip4/0.0.0.0/tcp/4001`);
  }
  return address.toString();
}

function parse(text: string, option: string): ReturnType<typeof multiaddr> {
  try {
    return multiaddr(text);
  } catch (cause) {
    throw new XcoreError('USAGE', `${option} ${text} is not a multiaddr; write it as in /ip4/192.0.2.1/tcp/4001`, {
      cause,
    });
  }
}

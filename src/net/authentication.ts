// How a device proves to a bridge that it speaks for a volume's owner.

import { sign } from '../crypto/sign.ts';
import type { PeerName } from './network.ts';

/** Label of an owner's proof. */
export const AUTHENTICATION_LABEL = 'xcore/authenticate/1';

/** What an owner signs after the label: bridge, client, and expiry in decimal, each but the last followed by a NUL. */
export function authenticationText(bridge: PeerName, client: PeerName, expiresMs: bigint): Uint8Array {
  return Buffer.from(`${bridge}\0${client}\0${expiresMs}`);
}

/** Signs, with the owner's seed (32 bytes), that `client` may act for the volume on `bridge` until then. */
export function signAuthentication(
  ownerSeed: Uint8Array,
  bridge: PeerName,
  client: PeerName,
  expiresMs: bigint,
): Buffer {
  return sign(ownerSeed, AUTHENTICATION_LABEL, authenticationText(bridge, client, expiresMs));
}

// How a device proves to a bridge that it speaks for a volume's owner.

import { sign } from '../crypto/sign.ts';
import type { PeerName } from './network.ts';

const LABEL = 'xcore/authenticate/1';

/** Signs, with the owner's seed (32 bytes), that `client` may act for the volume on `bridge` until then. */
export function signAuthentication(
  ownerSeed: Uint8Array,
  bridge: PeerName,
  client: PeerName,
  expiresMs: bigint,
): Buffer {
  return sign(ownerSeed, LABEL, Buffer.from(`${bridge}\0${client}\0${expiresMs}`));
}

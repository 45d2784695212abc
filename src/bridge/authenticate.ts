// Checks the proof that a connection speaks for a volume's owner.

import { verify } from '../crypto/sign.ts';
import type { Clock } from '../lib/clock.ts';
import { XcoreError } from '../lib/errors.ts';
import { AUTHENTICATION_LABEL, authenticationText } from '../net/authentication.ts';
import type { PeerName } from '../net/network.ts';
import { MAX_CLOCK_SKEW_MS } from '../net/orders.ts';
import type { Authenticate } from '../net/proto/wire_pb.ts';

/** A proof is made for one connection; one that claims to be good for longer is refused. */
const MAX_LIFETIME_MS = 60 * 60 * 1_000;

/** A volume and the device that speaks for it. */
export interface Owner {
  /** Owner public key, 32 bytes. */
  readonly volume: Uint8Array;
  /** The device. */
  readonly peer: PeerName;
}

/** The owner that a peer proves to be, on this bridge and connection only; REFUSED otherwise. */
export function authenticate(
  proof: Authenticate,
  parties: { readonly bridge: PeerName; readonly client: PeerName },
  clock: Clock,
): Owner {
  const left = Number(proof.expiresMs) - clock.now();
  if (left <= -MAX_CLOCK_SKEW_MS) throw new XcoreError('REFUSED', "the proof has expired; check this machine's clock");
  if (left > MAX_LIFETIME_MS + MAX_CLOCK_SKEW_MS)
    throw new XcoreError('REFUSED', "the proof is good for too long; check this machine's clock");
  const text = authenticationText(parties.bridge, parties.client, proof.expiresMs);
  if (!verify(proof.volume, AUTHENTICATION_LABEL, text, proof.signature)) {
    throw new XcoreError('REFUSED', "the proof is not signed by the volume's owner");
  }
  return { volume: proof.volume, peer: parties.client };
}

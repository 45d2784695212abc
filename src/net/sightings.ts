// The bridge's word on the address from which a peer is connected to it: made, signed and checked. A nonce of whoever is to
// believe it makes it good once, and now.

import { isIP } from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { sign, verify } from '../crypto/sign.ts';
import { XcoreError } from '../lib/errors.ts';
import type { PeerName } from './network.ts';
import { publicKeyOfPeer } from './peer-name.ts';
import { SightingSchema, SignedSchema } from './proto/wire_pb.ts';
import type { Signed } from './proto/wire_pb.ts';

const LABEL = 'xcore/sighting/1';
/** Length of a nonce. */
export const NONCE_BYTES = 16;

/** Signs, with the bridge's seed of 32 bytes, that a peer is connected from a multiaddr. PROTOCOL for a nonce of another length, REFUSED for an address that is not one of IP and TCP. */
export function signSighting(seed: Uint8Array, peer: PeerName, from: string, nonce: Uint8Array): Signed {
  if (nonce.length !== NONCE_BYTES) throw new XcoreError('PROTOCOL', `a nonce has ${NONCE_BYTES} bytes`);
  const address = plainAddress(from);
  if (address === null) throw new XcoreError('REFUSED', 'this connection has no address');
  const body = toBinary(SightingSchema, create(SightingSchema, { peer, address, nonce }));
  return create(SignedSchema, { body, signature: sign(seed, LABEL, body) });
}

/** The multiaddr from which `bridge` saw `peer`, without /p2p/; REFUSED for a wrong signature, peer or nonce, PROTOCOL for a malformed sighting. */
export function verifySighting(
  signed: Signed | undefined,
  expected: { readonly bridge: PeerName; readonly peer: PeerName; readonly nonce: Uint8Array },
): string {
  if (!signed || !verify(publicKeyOfPeer(expected.bridge), LABEL, signed.body, signed.signature)) {
    throw new XcoreError('REFUSED', 'the sighting is not signed by the bridge');
  }
  let sighting;
  try {
    sighting = fromBinary(SightingSchema, signed.body);
  } catch (error) {
    throw new XcoreError('PROTOCOL', 'malformed sighting', { cause: error });
  }
  if (sighting.peer !== expected.peer) throw new XcoreError('REFUSED', 'the sighting is of another peer');
  if (Buffer.compare(sighting.nonce, expected.nonce) !== 0)
    throw new XcoreError('REFUSED', 'the sighting is not fresh');
  const address = plainAddress(sighting.address);
  if (address === null) throw new XcoreError('PROTOCOL', 'malformed sighting');
  return address;
}

/** /ip4|ip6/ADDRESS/tcp/PORT out of a multiaddr that begins so, an IPv4 address inside IPv6 as what it is; null for any other. */
function plainAddress(multiaddr: string): string | null {
  const [, , ip = '', port = ''] = /^\/(ip4|ip6)\/([\da-fA-F.:]+)\/tcp\/(\d{1,5})(?:\/|$)/.exec(multiaddr) ?? [];
  const plain = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1] ?? ip;
  const family = isIP(plain);
  return family === 0 || Number(port) === 0 || Number(port) > 65_535
    ? null
    : `/ip${family}/${plain}/tcp/${Number(port)}`;
}

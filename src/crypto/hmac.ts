// HMAC-SHA-256 (RFC 2104) of small byte strings.

import { createHmac } from 'node:crypto';
import { nativeHmac } from './native-hmac.ts';
import type { HmacCall } from './native-hmac.ts';
import { secretKeyOf } from './secret-key.ts';

/** The same by node:crypto. */
const slowHmac: HmacCall = (key, data, length, target) => {
  target.set(createHmac('sha256', secretKeyOf(key)).update(data.subarray(0, length)).digest());
};

/** Writes the HMAC-SHA-256 of the first `length` bytes of data, 32 bytes, to the start of `target`; key 32 bytes. */
export const hmacInto: HmacCall = nativeHmac() ?? slowHmac;

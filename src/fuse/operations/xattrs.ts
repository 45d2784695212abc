// Opcodes that work on extended attributes.

import { GETXATTR_IN, GETXATTR_OUT_BYTES, OP, SETXATTR_ACL_KILL_SGID, SETXATTR_IN } from '../abi.ts';
import { chain, encodeNothing, operation } from '../operation.ts';
import type { AnyOperation } from '../operation.ts';
import type { ReplyWriter } from '../reply.ts';
import type { Request } from '../request.ts';
import { XcoreError } from '../../lib/errors.ts';

/** A size of 0 asks how large the answer is; a smaller size than that is ERANGE. */
function encodeSized(reply: ReplyWriter, value: Buffer, request: Request): void {
  if (request.limit === 0) {
    reply.putStruct(GETXATTR_OUT_BYTES).writeUInt32LE(value.length, 0);
    return;
  }
  if (value.length > request.limit) throw new XcoreError('ERANGE');
  reply.putBytes(value);
}

const getxattr = operation<Buffer>((request, { filesystem }) => {
  request.limit = request.u32(GETXATTR_IN.size);
  return filesystem.getxattr(request.nodeid, request.name(GETXATTR_IN.bytes));
}, encodeSized);

const listxattr = operation<Buffer>((request, { filesystem }) => {
  request.limit = request.u32(GETXATTR_IN.size);
  return chain(filesystem.listxattr(request.nodeid), (names) =>
    Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1'),
  );
}, encodeSized);

const setxattr = operation<void>((request, { filesystem, extendedSetxattr }) => {
  const nameStart = extendedSetxattr ? SETXATTR_IN.bytesExtended : SETXATTR_IN.bytes;
  const name = request.name(nameStart);
  const value = request.copy(nameStart + name.length + 1, request.u32(SETXATTR_IN.size));
  const killSgid = extendedSetxattr && (request.u32(SETXATTR_IN.extendedFlags) & SETXATTR_ACL_KILL_SGID) !== 0;
  return filesystem.setxattr(request.nodeid, name, value, request.u32(SETXATTR_IN.flags), killSgid);
}, encodeNothing);

const removexattr = operation<void>(
  (request, { filesystem }) => filesystem.removexattr(request.nodeid, request.name(0)),
  encodeNothing,
);

/** Opcode → operation, extended attributes. */
export const XATTR_OPERATIONS: [number, AnyOperation][] = [
  [OP.GETXATTR, getxattr],
  [OP.LISTXATTR, listxattr],
  [OP.SETXATTR, setxattr],
  [OP.REMOVEXATTR, removexattr],
];

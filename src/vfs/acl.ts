// POSIX access control lists as Linux stores them in attributes (linux/posix_acl_xattr.h): how one
// goes with a mode, and what a folder hands down. The kernel checks access by them; it does not keep them in step.

import { XcoreError } from '../lib/errors.ts';

/** Attributes that hold lists. */
export const ACL_ACCESS = 'system.posix_acl_access';
export const ACL_DEFAULT = 'system.posix_acl_default';

const VERSION = 2;
const HEADER_BYTES = 4;
const ENTRY_BYTES = 8;

const USER_OBJ = 0x01;
const GROUP_OBJ = 0x04;
const MASK = 0x10;
const OTHER = 0x20;

/** One line of a list. */
interface AclEntry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

/** Decodes a list; EINVAL for anything else. */
function decode(value: Uint8Array): AclEntry[] {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  const isWhole = bytes.length >= HEADER_BYTES && (bytes.length - HEADER_BYTES) % ENTRY_BYTES === 0;
  if (!isWhole || bytes.readUInt32LE(0) !== VERSION) throw new XcoreError('EINVAL', 'not an ACL');
  const entries: AclEntry[] = [];
  for (let at = HEADER_BYTES; at < bytes.length; at += ENTRY_BYTES) {
    entries.push({
      tag: bytes.readUInt16LE(at),
      permissions: bytes.readUInt16LE(at + 2) & 7,
      id: bytes.readUInt32LE(at + 4),
    });
  }
  const has = (tag: number): boolean => entries.some((entry) => entry.tag === tag);
  if (entries.length > 0 && !(has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER))) throw new XcoreError('EINVAL');
  return entries;
}

function encode(entries: readonly AclEntry[]): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + entries.length * ENTRY_BYTES);
  bytes.writeUInt32LE(VERSION, 0);
  entries.forEach(({ tag, permissions, id }, n) => {
    const at = HEADER_BYTES + n * ENTRY_BYTES;
    bytes.writeUInt16LE(tag, at);
    bytes.writeUInt16LE(permissions, at + 2);
    bytes.writeUInt32LE(id, at + 4);
  });
  return bytes;
}

/** The tag whose permissions stand for the group bits of a mode. */
function groupTag(entries: readonly AclEntry[]): number {
  return entries.some(({ tag }) => tag === MASK) ? MASK : GROUP_OBJ;
}

function permissionsOf(entries: readonly AclEntry[], wanted: number): number {
  return entries.find(({ tag }) => tag === wanted)?.permissions ?? 0;
}

/** Whether a list is an empty one, which is the same as none. EINVAL when it is no list. */
export function isEmptyAcl(value: Uint8Array): boolean {
  return decode(value).length === 0;
}

/** What an access list makes of the mode of its file; `value` null when the mode says it all. EINVAL when it is no list. */
export function applyAcl(value: Uint8Array, mode: number): { mode: number; value: Uint8Array | null } {
  const entries = decode(value);
  if (entries.length === 0) return { mode, value: null };
  const bits =
    (permissionsOf(entries, USER_OBJ) << 6) |
    (permissionsOf(entries, groupTag(entries)) << 3) |
    permissionsOf(entries, OTHER);
  return { mode: (mode & ~0o777) | bits, value: entries.length === 3 ? null : value };
}

/** The access list of a file whose mode was set. */
export function chmodAcl(value: Uint8Array, mode: number): Buffer {
  const entries = decode(value);
  const group = groupTag(entries);
  const bits = new Map([
    [USER_OBJ, mode >> 6],
    [group, mode >> 3],
    [OTHER, mode],
  ]);
  return encode(entries.map((entry) => ({ ...entry, permissions: (bits.get(entry.tag) ?? entry.permissions) & 7 })));
}

/** What a file that is made with `mode` below a folder with a default list gets: its mode, and its list if the mode does not say it all. */
export function inheritAcl(parentDefault: Uint8Array, mode: number): { mode: number; value: Uint8Array | null } {
  const entries = decode(parentDefault);
  const group = groupTag(entries);
  const allowed = new Map([
    [USER_OBJ, (mode >> 6) & 7],
    [group, (mode >> 3) & 7],
    [OTHER, mode & 7],
  ]);
  const masked = entries.map((entry) => ({
    ...entry,
    permissions: entry.permissions & (allowed.get(entry.tag) ?? 7),
  }));
  return applyAcl(encode(masked), mode);
}

// Every opcode that has an answer of its own; all others are ENOSYS.

import { DIRECTORY_OPERATIONS } from './directories.ts';
import { FILE_OPERATIONS } from './files.ts';
import { INODE_OPERATIONS } from './inodes.ts';
import { NAME_OPERATIONS } from './names.ts';
import { XATTR_OPERATIONS } from './xattrs.ts';
import type { OperationTable } from '../operation.ts';

/** Opcode → operation. */
export const OPERATIONS: OperationTable = new Map([
  ...NAME_OPERATIONS,
  ...INODE_OPERATIONS,
  ...FILE_OPERATIONS,
  ...DIRECTORY_OPERATIONS,
  ...XATTR_OPERATIONS,
]);

// Reads one request of the kernel out of the buffer that it was received in. Knows no operation.

import { readFileSync } from 'node:fs';
import { IN_HEADER } from './abi.ts';
import { XcoreError } from '../lib/errors.ts';
import type { Caller } from '../vfs/filesystem.ts';

/** The kernel sent something that its own header or operation cannot be. */
export class MalformedRequest extends Error {
  override readonly name = 'MalformedRequest';
}

/**
 * One request. The header stays; the body is a window on the receive buffer and is gone as soon as
 * the handler has returned, so a handler decodes all of it before its first await. Offsets count
 * from the start of the body.
 */
export class Request {
  readonly opcode: number;
  readonly unique: number;
  readonly nodeid: number;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** Most bytes that the answer may carry, kept by handlers for their own encoders. */
  limit = 0;
  readonly #buffer: Buffer;
  readonly #end: number;

  /** Reads the header of the request that fills the first `sizeBytes` of `buffer`. */
  constructor(buffer: Buffer, sizeBytes: number) {
    this.#buffer = buffer;
    this.#end = sizeBytes;
    this.opcode = sizeBytes >= IN_HEADER.size ? buffer.readUInt32LE(IN_HEADER.opcode) : 0;
    this.unique = readU64(buffer, IN_HEADER.unique);
    this.nodeid = readU64(buffer, IN_HEADER.nodeid);
    this.uid = buffer.readUInt32LE(IN_HEADER.uid);
    this.gid = buffer.readUInt32LE(IN_HEADER.gid);
    this.pid = buffer.readUInt32LE(IN_HEADER.pid);
    if (sizeBytes < IN_HEADER.size || buffer.readUInt32LE(IN_HEADER.len) !== sizeBytes) {
      throw new MalformedRequest(`header says ${buffer.readUInt32LE(IN_HEADER.len)} bytes, ${sizeBytes} came`);
    }
  }

  /** The process behind the request; root for pages that the kernel writes back by itself. */
  get caller(): Caller {
    return { uid: this.uid, gid: this.gid, pid: this.pid, groups: () => groupsOf(this.pid) };
  }

  /** The process behind a request that makes something, with its umask where the kernel leaves that to us. */
  creator(umaskOffset: number, unmasked: boolean): Caller {
    return unmasked ? { ...this.caller, umask: this.u32(umaskOffset) & 0o777 } : this.caller;
  }

  /** Bytes of the body. */
  get bodyBytes(): number {
    return this.#end - IN_HEADER.size;
  }

  u32(offset: number): number {
    return this.#buffer.readUInt32LE(this.#at(offset, 4));
  }

  /** A 64-bit number that must be below 2^53: a file offset or size beyond it is EFBIG. */
  u64(offset: number): number {
    const value = readU64(this.#buffer, this.#at(offset, 8));
    if (!Number.isSafeInteger(value)) throw new XcoreError('EFBIG', 'number is beyond 2^53');
    return value;
  }

  /** A 64-bit number in full. */
  big(offset: number): bigint {
    return this.#buffer.readBigUInt64LE(this.#at(offset, 8));
  }

  /** Seconds and nanoseconds as nanoseconds since 1970. */
  timeNs(secondsOffset: number, nanosecondsOffset: number): bigint {
    return (
      this.#buffer.readBigInt64LE(this.#at(secondsOffset, 8)) * 1_000_000_000n + BigInt(this.u32(nanosecondsOffset))
    );
  }

  /** A NUL-terminated byte string as latin1; what follows starts `length + 1` further on. */
  name(offset: number): string {
    const start = IN_HEADER.size + offset;
    const end = this.#buffer.indexOf(0, start);
    if (end < start || end >= this.#end) throw new MalformedRequest('name without an end');
    return this.#buffer.toString('latin1', start, end);
  }

  /** A window of the body, valid until the handler returns. */
  borrow(offset: number, sizeBytes: number): Buffer {
    const start = this.#at(offset, sizeBytes);
    return this.#buffer.subarray(start, start + sizeBytes);
  }

  /** A copy of a part of the body. */
  copy(offset: number, sizeBytes: number): Buffer {
    return Buffer.from(this.borrow(offset, sizeBytes));
  }

  #at(offset: number, sizeBytes: number): number {
    const start = IN_HEADER.size + offset;
    if (start + sizeBytes > this.#end) throw new MalformedRequest(`body of ${this.bodyBytes} bytes is too short`);
    return start;
  }
}

/** Supplementary groups of a thread; none when the kernel does not show them to us. */
function groupsOf(pid: number): number[] {
  try {
    const line = /^Groups:(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? '';
    return line.split(/\s+/).filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function readU64(buffer: Buffer, offset: number): number {
  return buffer.readUInt32LE(offset + 4) * 0x1_0000_0000 + buffer.readUInt32LE(offset);
}

// The system calls that Node lacks, through koffi. Every function returns what libc returns; a failure
// is a negative errno, never an exception. Buffers go by address, so their owners must keep them alive.

import { asError } from '../lib/errors.ts';
import koffi from 'koffi';
import type { KoffiFunc } from 'koffi';

const libc = koffi.load(null);

type Call<Arguments extends unknown[]> = KoffiFunc<(...args: Arguments) => number>;

const readCall: Call<[number, number, number]> = libc.func('intptr_t read(int fd, uintptr_t data, size_t bytes)');
const writeCall: Call<[number, number, number]> = libc.func('intptr_t write(int fd, uintptr_t data, size_t bytes)');
const writevCall: Call<[number, number, number]> = libc.func('intptr_t writev(int fd, uintptr_t iov, int count)');
const mountCall: Call<[string, string, string, number, string]> = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const umountCall: Call<[string, number]> = libc.func('int umount2(const char *target, int flags)');
const socketpairCall: Call<[number, number, number, number]> = libc.func(
  'int socketpair(int domain, int type, int protocol, uintptr_t pair)',
);
const recvmsgCall: Call<[number, number, number]> = libc.func('intptr_t recvmsg(int fd, uintptr_t message, int flags)');

/** Memory outside the JavaScript heap with its address; the address holds while `buffer` is referenced. */
export interface Memory {
  readonly buffer: Buffer;
  readonly address: number;
}

/** Allocates memory that never moves. */
export function allocate(sizeBytes: number): Memory {
  const buffer = Buffer.allocUnsafeSlow(sizeBytes);
  return { buffer, address: addressOf(buffer) };
}

/** Address of a buffer's first byte; user space is below 2^53. */
export function addressOf(buffer: Uint8Array): number {
  return Number(koffi.address(buffer));
}

/** read(2) into an address; a failure is -errno. */
export function readInto(fd: number, address: number, sizeBytes: number): number {
  const result = readCall(fd, address, sizeBytes);
  return result < 0 ? -koffi.errno() : result;
}

/** write(2) from an address; a failure is -errno. */
export function writeFrom(fd: number, address: number, sizeBytes: number): number {
  const result = writeCall(fd, address, sizeBytes);
  return result < 0 ? -koffi.errno() : result;
}

/** write(2) on another thread, for writes that may block; the memory must stay as it is until then. */
export function writeInThread(fd: number, address: number, sizeBytes: number): Promise<number> {
  return inThread(writeCall, fd, address, sizeBytes);
}

/** writev(2) of `count` struct iovec at an address; a failure is -errno. */
export function writevFrom(fd: number, iovAddress: number, count: number): number {
  const result = writevCall(fd, iovAddress, count);
  return result < 0 ? -koffi.errno() : result;
}

/** mount(2) on another thread: path lookup may wait. */
export function mount(source: string, target: string, type: string, flags: number, data: string): Promise<number> {
  return inThread(mountCall, source, target, type, flags, data);
}

/** umount2(2) on another thread: it waits for pages that only the server of the mount can take. */
export function umount(target: string, flags: number): Promise<number> {
  return inThread(umountCall, target, flags);
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;

/** A connected pair of unix sockets, closed on exec; a failure is -errno. */
export function socketPair(): [number, number] | number {
  const pair = allocate(8);
  const result = socketpairCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address);
  if (result < 0) return -koffi.errno();
  return [pair.buffer.readInt32LE(0), pair.buffer.readInt32LE(4)];
}

const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** Takes one descriptor out of a message that waits on a unix socket; a failure is -errno, none is -EBADMSG. */
export function receiveDescriptor(socket: number): number {
  const payload = allocate(16);
  const control = allocate(64);
  const vector = allocate(16);
  vector.buffer.writeBigUInt64LE(BigInt(payload.address), 0);
  vector.buffer.writeBigUInt64LE(BigInt(payload.buffer.length), 8);
  // struct msghdr of 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags
  const message = allocate(56);
  message.buffer.fill(0);
  message.buffer.writeBigUInt64LE(BigInt(vector.address), 16);
  message.buffer.writeBigUInt64LE(1n, 24);
  message.buffer.writeBigUInt64LE(BigInt(control.address), 32);
  message.buffer.writeBigUInt64LE(BigInt(control.buffer.length), 40);
  const result = recvmsgCall(socket, message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (result < 0) return -koffi.errno();
  const controlBytes = Number(message.buffer.readBigUInt64LE(40));
  // struct cmsghdr: length (8), level (4), type (4), then the descriptors
  const carriesOne =
    controlBytes >= 20 && control.buffer.readInt32LE(8) === SOL_SOCKET && control.buffer.readInt32LE(12) === SCM_RIGHTS;
  return carriesOne ? control.buffer.readInt32LE(16) : -koffi.os.errno['EBADMSG']!;
}

/** Watches one descriptor through the event loop's own epoll, without a thread. */
export interface ReadinessWatch {
  /** Calls back, again and again, while the descriptor is readable; once, if it is in error. */
  start(callback: () => void): void;
  stop(): void;
  /** Ends the watch; to be called before the descriptor is closed. */
  close(): void;
}

/**
 * Starts to watch a descriptor. The callback runs outside of Node's task queues (promises that it
 * settles would wait for the next task), so it must only hand over to setImmediate.
 */
export function watchReadable(fd: number, callback: () => void): ReadinessWatch {
  return koffi.node.poll(fd, callback);
}

function inThread<Arguments extends unknown[]>(call: Call<Arguments>, ...args: Arguments): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: number) => {
      // koffi restores the worker's errno before it calls back
      const errno = koffi.errno();
      if (error !== null) reject(asError(error));
      else resolve(result < 0 ? -errno : result);
    });
  });
}

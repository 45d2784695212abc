// Ports for servers that are stopped and started again at the same address while other tests run beside them.

import koffi from 'koffi';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const ADDRESS_BYTES = 16;
const PORT_AT = 2;
const HOST_AT = 4;
const LOOPBACK = 0x7f00_0001;

/**
 * A TCP port of 127.0.0.1 that nobody is given by chance while this process lives: a socket stays bound to it that never
 * listens. Whoever names the port listens on it all the same, since both allow it to be used again.
 */
export function reservePort(): number {
  if (process.platform !== 'linux') return 0;
  const libc = koffi.load('libc.so.6');
  const address = Buffer.alloc(ADDRESS_BYTES);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt32BE(LOOPBACK, HOST_AT);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(ADDRESS_BYTES);
  const yes = Buffer.alloc(4);
  yes.writeUInt32LE(1);
  const fd = Number(
    libc.func('int socket(int domain, int type, int protocol)')(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
  );
  const allow = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t size)');
  const bind = libc.func('int bind(int fd, const void *address, uint32_t size)');
  const name = libc.func('int getsockname(int fd, void *address, void *size)');
  const results = [
    fd,
    allow(fd, SOL_SOCKET, SO_REUSEADDR, yes, yes.length),
    bind(fd, address, address.length),
    name(fd, address, size),
  ].map(Number);
  if (results.some((result) => result < 0)) throw new Error(`no port can be reserved: ${koffi.errno()}`);
  return address.readUInt16BE(PORT_AT);
}

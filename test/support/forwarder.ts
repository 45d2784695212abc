// A process that carries packets between machines in network namespaces, one TUN device each: late, now and then not
// at all, and not to or from a machine that is cut off. What it does with them is said on its standard input.

import koffi from 'koffi';
import { closeSync, openSync, read, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const libc = koffi.load('libc.so.6');
const setns = libc.func('int setns(int fd, int kind)');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, ...)');

/** The device of each machine. */
export const DEVICE = 'tun0';

/** A machine N is 10.77.N.2, in the namespace of this path. */
export interface ForwardedMachine {
  readonly number: number;
  readonly namespace: string;
}

/** Its only argument, as JSON. */
export interface ForwarderOptions {
  readonly machines: readonly ForwardedMachine[];
  /** Of every packet, one way. */
  readonly delayMs: number;
  /** Share of packets that never arrive, in [0, 1). */
  readonly loss: number;
}

/** A line of its standard input, as JSON. */
export interface ForwarderCommand {
  readonly cut: readonly number[];
}

const MAX_PACKET_BYTES = 65_536;
/** Packets under way; more are dropped, as a router would. */
const MAX_UNDER_WAY = 20_000;
const RETRY_MS = 50;
const CLONE_NEWNET = 0x40000000;
const TUNSETIFF = 0x400454ca;
/** IFF_TUN | IFF_NO_PI (linux/if_tun.h) */
const TUN_FLAGS = 0x1001;
const IFREQ_BYTES = 40;
const IFREQ_FLAGS_AT = 16;

/** Makes the device in the namespace; this thread stays in there. */
function openDevice(namespace: string): number {
  const ns = openSync(namespace, 'r');
  if (setns(ns, CLONE_NEWNET) !== 0) throw new Error(`setns ${namespace}: ${koffi.errno()}`);
  closeSync(ns);
  const fd = openSync('/dev/net/tun', 'r+');
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(DEVICE);
  request.writeUInt16LE(TUN_FLAGS, IFREQ_FLAGS_AT);
  if (ioctl(fd, TUNSETIFF, 'void *', request) !== 0) throw new Error(`TUNSETIFF ${namespace}: ${koffi.errno()}`);
  return fd;
}

function forward({ machines, delayMs, loss }: ForwarderOptions): void {
  const devices = new Map(machines.map(({ number, namespace }) => [number, openDevice(namespace)]));
  let cut: ReadonlySet<number> = new Set();
  let underWay = 0;

  const deliver = (from: number, to: number, packet: Buffer): void => {
    underWay -= 1;
    const device = devices.get(to);
    if (device === undefined || cut.has(from) || cut.has(to)) return;
    try {
      writeSync(device, packet);
    } catch {
      // The machine's queue is full, or its device is down.
    }
  };
  const pump = (from: number, device: number): void => {
    const buffer = Buffer.alloc(MAX_PACKET_BYTES);
    const next = (): void => {
      read(device, buffer, 0, buffer.length, null, (error, size) => {
        if (error) {
          setTimeout(next, RETRY_MS);
          return;
        }
        // IPv4 to 10.77.N.2 (RFC 791 §3.1)
        const isOurs = buffer[0]! >> 4 === 4 && buffer[16] === 10 && buffer[17] === 77;
        if (isOurs && underWay < MAX_UNDER_WAY && Math.random() >= loss) {
          const [to, packet] = [buffer[18]!, Buffer.from(buffer.subarray(0, size))];
          underWay += 1;
          setTimeout(() => deliver(from, to, packet), delayMs);
        }
        next();
      });
    };
    next();
  };
  for (const [number, device] of devices) pump(number, device);
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      cut = new Set((JSON.parse(line) as ForwarderCommand).cut);
      console.log('done');
    })
    .on('close', () => process.exit(0));
  console.log('ready');
}

if (import.meta.main) forward(JSON.parse(process.argv[2] ?? '') as ForwarderOptions);

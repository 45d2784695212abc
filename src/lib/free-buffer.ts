// Memory of large buffers given back by hand: the collector counts bytes outside its heap, and each
// few MiB of them would cost a pass over the whole heap.

/** Frees the memory of a buffer now, if it owns all of it; the buffer has no bytes afterwards. */
export function freeBuffer({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

const received = new WeakSet<ArrayBufferLike>();
const toSend = new WeakSet<ArrayBufferLike>();

/** Says that nobody but the one reader of what was received in this buffer has it; it owns all of its memory. */
export function markReceived({ buffer }: Uint8Array): void {
  received.add(buffer);
}

/** Frees what was received and is read, if the buffer was marked so and this part is all of it: others may have the other parts. */
export function freeReceived(part: Uint8Array): void {
  if (part.byteLength === part.buffer.byteLength && received.delete(part.buffer)) freeBuffer(part);
}

/** Says that this buffer is of no more use once it is sent, from its beginning to its end on one stream; it owns all of its memory. */
export function markToSend({ buffer }: Uint8Array): void {
  toSend.add(buffer);
}

/** Memory of this size is used again once it is sent: fresh pages cost more than what is done with them. */
const REUSED_BYTES = 1024 * 1024;
/** Of that size, kept for the next ones. */
const MAX_SPARE = 4;
const spare: ArrayBuffer[] = [];
const reused = new WeakSet<ArrayBufferLike>();

/** Memory for bytes that are of no more use once they are sent, as one part; worth it for some hundred KiB, 1 MiB at most. */
export function takeToSend(sizeBytes: number): Buffer {
  const memory = spare.pop() ?? new ArrayBuffer(REUSED_BYTES);
  reused.add(memory);
  toSend.add(memory);
  return Buffer.from(memory, 0, sizeBytes);
}

/** Whether a buffer was marked so and this part is its end, with which all of it is sent. */
export function isEndToSend({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  return toSend.has(buffer) && (reused.has(buffer) || byteOffset + byteLength === buffer.byteLength);
}

/** Frees the memory below a part that was the end to send; all parts of the buffer have no bytes afterwards, or others. */
export function freeSent({ buffer }: Uint8Array): void {
  if (!toSend.delete(buffer) || !(buffer instanceof ArrayBuffer)) return;
  if (reused.has(buffer) && spare.length < MAX_SPARE) spare.push(buffer);
  else buffer.transfer(0);
}

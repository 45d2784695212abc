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

/** Whether a buffer was marked so and this part is its end, with which all of it is sent. */
export function isEndToSend({ buffer, byteOffset, byteLength }: Uint8Array): boolean {
  return byteOffset + byteLength === buffer.byteLength && toSend.has(buffer);
}

/** Frees the memory below a part that was the end to send; all parts of the buffer have no bytes afterwards. */
export function freeSent({ buffer }: Uint8Array): void {
  if (toSend.delete(buffer) && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

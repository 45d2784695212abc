// Memory of large buffers given back by hand: the collector counts bytes outside its heap, and each
// few MiB of them would cost a pass over the whole heap.

/** Frees the memory of a buffer now, if it owns all of it; the buffer has no bytes afterwards. */
export function freeBuffer({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

const temporary = new WeakSet<ArrayBufferLike>();

/** Says that whoever uses this buffer last may free it; it owns all of its memory. */
export function markTemporary({ buffer }: Uint8Array): void {
  temporary.add(buffer);
}

/** Frees the memory below this part of a buffer, if that was marked as temporary; all its parts have no bytes afterwards. */
export function freeTemporary({ buffer }: Uint8Array): void {
  if (temporary.delete(buffer) && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

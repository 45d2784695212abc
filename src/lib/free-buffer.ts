// Memory of large buffers given back by hand: the collector counts bytes outside its heap, and each
// few MiB of them would cost a pass over the whole heap.

/** Frees the memory of a buffer now, if it owns all of it; the buffer has no bytes afterwards. */
export function freeBuffer({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

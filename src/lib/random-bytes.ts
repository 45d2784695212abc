// Randomness, handed in, so that a simulation can repeat itself.

/** Makes so many random bytes; node:crypto's randomBytes, but in simulations. */
export type RandomBytes = (sizeBytes: number) => Uint8Array;

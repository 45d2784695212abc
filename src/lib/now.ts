// Results that are there at once or later.

/** A result that may be there at once or later: answering at once saves a turn of the event loop. */
export type Now<T> = T | Promise<T>;

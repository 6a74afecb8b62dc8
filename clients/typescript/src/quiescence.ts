// When the code of a run can go no further without another outcome (H1c).

/**
 * Resolves once every microtask that is queued now, or follows from one, has run: all code that waits for nothing but
 * promises that are settled has then gone as far as it can. It is exact, not a number of turns: Node takes the next
 * process.nextTick callback only when its queue of microtasks is empty. Nothing else of the event loop (timers, I/O) comes in between,
 * so what resumes a function in the meantime was delivered to it by the core.
 */
export function quiescent(): Promise<void> {
  return new Promise((resolve) => {
    queueMicrotask(() => {
      process.nextTick(resolve);
    });
  });
}

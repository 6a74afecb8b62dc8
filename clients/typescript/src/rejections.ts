// Promises of a run's code that nobody looks at: they must not end a process that serves many runs.

import { StepwellError } from "./errors.js";
import type { Log } from "./settings.js";

let guards = 0;
let logged: Log | undefined;

/**
 * Until the returned function is called, a rejection that nobody handles and that comes of the SDK (a branch that failed before
 * it is awaited, or that is unwound) does not end the process. With a log, no other does either: it is only written there.
 */
export function guardRejections(log?: Log): () => void {
  if (guards === 0) process.on("unhandledRejection", unhandled);
  guards += 1;
  logged ??= log;
  return () => {
    guards -= 1;
    if (guards > 0) return;
    logged = undefined;
    process.off("unhandledRejection", unhandled);
  };
}

function unhandled(reason: unknown): void {
  if (reason instanceof StepwellError) return;
  if (logged !== undefined) {
    const said = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
    logged.error(`a promise was rejected, and nobody has handled that: ${said}`);
    return;
  }
  // As without this guard, unless somebody else listens as well.
  if (process.listenerCount("unhandledRejection") === 1) throw reason;
}

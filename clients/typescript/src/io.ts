// The I/O thread of a worker: its session lives here, where code that blocks the other thread cannot silence it (H12d).

import { type MessagePort, workerData } from "node:worker_threads";
import { ApiError } from "./api_errors.js";
import type { FromIo, Refusal, ToIo } from "./news.js";
import { Session, type SessionOptions } from "./session.js";
import { Watchdog } from "./watchdog.js";

/** What the thread is started with. */
export interface IoData {
  readonly port: MessagePort;
  readonly options: SessionOptions;
}

const { port, options } = workerData as IoData;
const watchdog = new Watchdog(post);
const session = new Session(options, post);

port.on("message", (message: ToIo) => {
  if (message.kind === "pong") watchdog.answered(message.debugged);
  else session.tell(message);
});

function post(news: FromIo): void {
  // The bytes of a frame are moved; nobody reads them here any more.
  port.postMessage(news, news.kind === "arrived" ? [news.frame.buffer as ArrayBuffer] : []);
}

function partsOf({ code, said, reason, metadata, violations, retryAfterMs }: ApiError): Refusal {
  return { code, said, reason, metadata, violations, retryAfterMs };
}

let refusal: Refusal | undefined;
try {
  watchdog.start();
  await session.run();
} catch (error) {
  if (error instanceof ApiError) refusal = partsOf(error);
  else if (!session.leaving) throw error;
} finally {
  watchdog.stop();
}
post({ kind: "ended", refusal });
port.close();

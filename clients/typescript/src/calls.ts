// Unary calls and streams of a client; retried while the server is unreachable.

import { type CallOptions, type Client, createClient } from "@connectrpc/connect";
import { Addresses } from "./addresses.js";
import { type ApiError, fromRpcError } from "./api_errors.js";
import { type Connection, openConnections } from "./connection.js";
import { AdminService } from "./v1/admin_pb.js";
import { EventService } from "./v1/event_pb.js";
import { FunctionService } from "./v1/function_pb.js";
import { RunService } from "./v1/run_pb.js";

const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 5000;

/** The generated clients of the server's services. */
export interface Stubs {
  readonly events: Client<typeof EventService>;
  readonly functions: Client<typeof FunctionService>;
  readonly runs: Client<typeof RunService>;
  readonly admin: Client<typeof AdminService>;
}

/** How a call is made. */
export interface CallSettings {
  readonly timeoutMs?: number | undefined;
  /** It may safely be made twice: it is tried again until its time is over. */
  readonly repeatable?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** The calls of a client. */
export class Calls {
  readonly stubs: Stubs;
  readonly #connection: Connection;

  constructor(
    address: string,
    private readonly timeoutMs: number,
  ) {
    this.#connection = openConnections(new Addresses(address));
    const { transport } = this.#connection;
    this.stubs = {
      events: createClient(EventService, transport),
      functions: createClient(FunctionService, transport),
      runs: createClient(RunService, transport),
      admin: createClient(AdminService, transport),
    };
  }

  close(): void {
    this.#connection.close();
  }

  /** Makes a call. Throws ApiError. */
  async unary<T>(call: (stubs: Stubs, options: CallOptions) => Promise<T>, settings: CallSettings = {}): Promise<T> {
    const { timeoutMs = this.timeoutMs, repeatable = true, signal } = settings;
    const deadline = performance.now() + timeoutMs;
    for (let failures = 0; ; failures += 1) {
      let error: ApiError;
      try {
        const remainingMs = Math.max(Math.ceil(deadline - performance.now()), 1);
        return await call(this.stubs, { timeoutMs: remainingMs, ...(signal && { signal }) });
      } catch (thrown) {
        signal?.throwIfAborted();
        error = fromRpcError(thrown);
      }
      if (!error.retriable || !repeatable) throw error;
      const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(failures, 10));
      const delayMs = Math.max(error.retryAfterMs ?? 0, Math.random() * ceiling);
      if (performance.now() + delayMs >= deadline) throw error;
      await pause(delayMs, signal);
    }
  }

  /** The responses of a streaming call as they come. Throws ApiError; ends when the signal is aborted. */
  async *stream<T>(
    call: (stubs: Stubs, options: CallOptions) => AsyncIterable<T>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T> {
    try {
      yield* call(this.stubs, signal === undefined ? {} : { signal });
    } catch (thrown) {
      if (signal?.aborted !== true) throw fromRpcError(thrown);
    }
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    }
    signal?.addEventListener("abort", done);
  });
  signal?.throwIfAborted();
}

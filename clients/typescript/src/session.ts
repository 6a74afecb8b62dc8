// A worker's session on the I/O thread: connects for ever, moves between streams, and watches the lease.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Addresses } from "./addresses.js";
import { ApiError, errorOf, fromRpcError } from "./api_errors.js";
import { type Introduction, helloFrames, missing } from "./frames.js";
import { runDigest } from "./hashing.js";
import type { Digest, FromIo, ToIo } from "./news.js";
import { HASH_MODULUS, type Listed } from "./residents.js";
import { LEASE_SHARE, Stream } from "./stream.js";
import { type ConnectRequest, ConnectRequestSchema, type Drain } from "./v1/step_pb.js";

const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 5000;
/** A stream that lived this long starts the back-off anew. */
const STABLE_MS = 5000;
const HOPELESS: ReadonlySet<Code> = new Set([Code.InvalidArgument, Code.FailedPrecondition]);
/** Reasons of such a status that are not about the registration; an empty one is not the server's own. */
const TRANSIENT: ReadonlySet<string> = new Set(["", "HELLO_EXPECTED", "OUT_OF_ORDER", "RESIDENTS_DIFFER"]);

/** What a session is about. */
export interface SessionOptions {
  readonly address: string;
  readonly worker: Introduction;
  readonly capacity: number;
}

type Post = (news: FromIo) => void;

/** Keeps a stream open until one is left by Goodbye. What happens goes to `post`; `tell` takes the answers. */
export class Session {
  #sessionId = "";
  #capacity: number;
  #streams = 0;
  #current: Stream | undefined;
  #drain: (reconnectAfterMs: number) => void = () => undefined;
  #listed: ((listed: readonly Listed[]) => void) | undefined;
  #lapsed = false;
  leaving = false;
  readonly #addresses: Addresses;
  readonly #aborted = new AbortController();
  #heardAt = performance.now();
  #leaseMs = 0;
  #failures = 0;
  #openedAt = 0;
  #lease: NodeJS.Timeout | undefined;
  #answered = true;

  constructor(
    private readonly options: SessionOptions,
    private readonly post: Post,
  ) {
    this.#capacity = options.capacity;
    this.#addresses = new Addresses(options.address);
  }

  /** Resolves once the session was left. Throws ApiError if the server refuses the registration. */
  async run(): Promise<void> {
    this.#watchLease();
    try {
      let leaving: { stream: Stream; serving: Promise<unknown> } | undefined;
      for (;;) {
        const { stream, digest } = await this.#connect();
        leaving?.stream.close();
        await leaving?.serving;
        const draining = new Promise<number>((resolve) => {
          this.#drain = resolve;
        });
        const serving = stream.serve(digest).then(
          () => undefined,
          (error: unknown) => ({ error }),
        );
        leaving = { stream, serving };
        const first = await Promise.race([serving, draining]);
        this.#addresses.failed(stream.address);
        if (performance.now() - this.#openedAt > STABLE_MS) this.#failures = 0;
        if (typeof first === "number") {
          // Make before break: the next stream opens while this one goes on, if it does.
          void serving.then(() => this.post({ kind: "lost", stream: stream.number }));
          await Promise.race([serving, this.#pause(first)]);
          if (this.leaving) {
            await serving;
            return;
          }
          await this.#backOff();
          continue;
        }
        leaving = undefined;
        stream.close();
        this.post({ kind: "lost", stream: stream.number });
        if (first === undefined || this.leaving) return;
        this.#say("warn", `the stream ended: ${words(first.error)}`);
        await this.#backOff();
      }
    } finally {
      clearTimeout(this.#lease);
      this.#current?.close();
    }
  }

  /** Takes what the other thread has to say. */
  tell(message: ToIo): void {
    const current = this.#current;
    switch (message.kind) {
      case "residents":
        this.#listed?.(message.listed);
        return;
      case "send":
        if (message.beat) this.#answered = true;
        if (current?.number === message.stream) current.send(message.frames, message.digest, message.beat);
        return;
      case "capacity":
        this.#capacity = message.capacity;
        current?.sendFrame(capacityFrame(message.capacity));
        return;
      case "goodbye":
        this.leaving = true;
        if (current === undefined) this.#aborted.abort();
        else current.leave();
        return;
      case "abort":
        this.leaving = true;
        this.#aborted.abort();
        current?.close();
        return;
      case "pong":
        return;
    }
  }

  async #connect(): Promise<{ stream: Stream; digest: Digest }> {
    for (;;) {
      const listed = await this.#residents();
      this.#streams += 1;
      const address = this.#addresses.next;
      const stream = new Stream(address, this.#streams, this.#arrived, this.#written, this.#beat);
      const giveUp = () => stream.close();
      this.#aborted.signal.addEventListener("abort", giveUp, { once: true });
      try {
        this.#aborted.signal.throwIfAborted();
        const hello = helloFrames(this.options.worker, this.#sessionId, this.#capacity, listed);
        const { welcome, frame } = await stream.open(hello);
        const lacks = missing(this.options.worker, welcome.capabilities);
        if (lacks) {
          const said = `the server at ${address} is too old: it does not know ${lacks}`;
          throw errorOf(Code.FailedPrecondition, said, { reason: "CAPABILITY_MISSING" });
        }
        this.#sessionId = welcome.sessionId;
        this.#leaseMs = welcome.leaseMs;
        this.#lapsed = false;
        this.#openedAt = this.#heardAt = performance.now();
        this.#current = stream;
        this.#answered = true;
        this.#say("info", `connected to ${address}, session ${welcome.sessionId}, epoch ${welcome.epoch}`);
        // Until the other thread has seen Welcome, which may take a while, this is what the session holds.
        const refused = new Set(welcome.refused.map((one) => one.runId));
        const held = listed.filter((one) => !refused.has(one.runId)).map((one) => runDigest(one.runId, one.turn));
        const hash = held.reduce((sum, one) => (sum + one) % HASH_MODULUS, 0n);
        this.post({ kind: "opened", stream: stream.number, pulse: stream.pulse.memory, welcome: frame, listed });
        return { stream, digest: { residents: held.length, hash, framesRead: 1 } };
      } catch (error) {
        stream.close();
        this.#aborted.signal.throwIfAborted();
        if (error instanceof ApiError) throw error;
        const refusal = error instanceof ConnectError ? fromRpcError(error) : undefined;
        if (refusal !== undefined && HOPELESS.has(refusal.code) && !TRANSIENT.has(refusal.reason)) throw refusal;
        if ((this.#failures & (this.#failures - 1)) === 0) {
          const attempt = `attempt ${this.#failures + 1}`;
          this.#say("warn", `no connection to ${address} (${attempt}): ${words(error)}`);
        }
        this.#addresses.failed(address);
        await this.#backOff();
      } finally {
        this.#aborted.signal.removeEventListener("abort", giveUp);
      }
    }
  }

  /** What Hello names. The other thread knows; while it is blocked nothing could be executed anyway. */
  async #residents(): Promise<readonly Listed[]> {
    if (this.#sessionId === "" || this.#lapsed) return [];
    const listed = new Promise<readonly Listed[]>((resolve) => {
      this.#listed = resolve;
    });
    this.post({ kind: "list" });
    const answer = await listed;
    return this.#sessionId === "" || this.#lapsed ? [] : answer;
  }

  readonly #arrived = (stream: Stream, frame: Uint8Array, drain: Drain | undefined): void => {
    this.post({ kind: "arrived", stream: stream.number, frame });
    if (drain === undefined || stream !== this.#current) return;
    this.#say("info", `the server asks to connect elsewhere: ${drain.reason}`);
    this.#drain(drain.reconnectAfterMs);
  };

  readonly #written = (stream: Stream): void => this.post({ kind: "written", stream: stream.number });

  readonly #beat = (stream: Stream): void => {
    this.#answered = false;
    this.post({ kind: "beat" });
    setTimeout(() => {
      // The other thread is blocked; what it said before is still true of that time.
      if (!this.#answered && stream === this.#current) stream.beatAlone();
    }, stream.heartbeatMs / 4);
  };

  #say(level: "info" | "warn" | "error", message: string): void {
    this.post({ kind: "log", level, message });
  }

  async #backOff(): Promise<void> {
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    await this.#pause(Math.random() * ceiling);
  }

  /** Waits; throws if the session is given up meanwhile. */
  async #pause(ms: number): Promise<void> {
    const { signal } = this.#aborted;
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(done, ms);
      function done() {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        if (signal.aborted) reject(signal.reason);
        else resolve();
      }
      signal.addEventListener("abort", done);
    });
  }

  /** Says that the lease has lapsed once the server was silent for most of it. */
  #watchLease(): void {
    const pauseMs = this.#leaseMs > 0 ? Math.max(this.#leaseMs / 20, 10) : 100;
    const before = performance.now();
    this.#lease = setTimeout(() => {
      const now = performance.now();
      // After a freeze of our own the stream judges first: what has arrived meanwhile may be young enough.
      const late = now - before > 4 * pauseMs;
      this.#heardAt = Math.max(this.#heardAt, this.#current?.heardAt ?? 0);
      const silentMs = now - this.#heardAt;
      if (this.#leaseMs > 0 && !this.#lapsed && !late && silentMs > LEASE_SHARE * this.#leaseMs) {
        this.#lapsed = true;
        const silent = `nothing heard from the server for ${(silentMs / 1000).toFixed(1)} s`;
        this.#say("error", `${silent}: stopping all bodies`);
        this.post({ kind: "lapsed" });
      }
      this.#watchLease();
    }, pauseMs);
  }
}

function capacityFrame(capacity: number): ConnectRequest {
  return create(ConnectRequestSchema, { frame: { case: "capacity", value: { capacity } } });
}

function words(error: unknown): string {
  if (error instanceof ConnectError) return fromRpcError(error).message;
  return error instanceof ApiError || error instanceof Error ? error.message : String(error);
}

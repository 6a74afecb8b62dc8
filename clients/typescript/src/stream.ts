// One stream of a worker on the I/O thread: Hello and Welcome, a reader, one writer that drains an outbox, heartbeats.
//
// Frames pass through unopened: for this thread both messages are empty ones, whose unknown field is the frame. Only the
// frames that it makes itself, Welcome and Drain are read here.

import { type DescMethodBiDiStreaming, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Empty, EmptySchema } from "@bufbuild/protobuf/wkt";
import { type Connection, openConnection } from "./connection.js";
import type { Digest } from "./news.js";
import { Pulse } from "./pulse.js";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  ConnectResponseSchema,
  type Drain,
  StepService,
  type Welcome,
  type Work,
} from "./v1/step_pb.js";

const WELCOME_TIMEOUT_MS = 10_000;
const LEAVE_TIMEOUT_MS = 1000;
/** Part of the lease that may pass in silence before everything is given up. */
export const LEASE_SHARE = 0.8;
const WELCOME_FIELD = ConnectResponseSchema.field.welcome.number;
const DRAIN_FIELD = ConnectResponseSchema.field.drain.number;

/** StepService.Connect with frames that are not opened. */
const CONNECT: DescMethodBiDiStreaming<typeof EmptySchema, typeof EmptySchema> = {
  ...StepService.method.connect,
  input: EmptySchema,
  output: EmptySchema,
};

/** The connection broke, or the server does not keep to the protocol. */
export class StreamLost extends Error {}

/** One stream. `arrived` is called for each frame of the server after Welcome, with Drain opened. */
export class Stream {
  readonly connection: Connection;
  epoch = 0n;
  heartbeatMs = 0;
  leaseMs = 0;
  heardAt = performance.now();
  readonly pulse = new Pulse();
  readonly #abort = new AbortController();
  readonly #outbox = new Outbox();
  #digest: Digest = { residents: 0, hash: 0n, framesRead: 0 };
  #responses: AsyncIterator<Empty> | undefined;
  #leaving = false;

  constructor(
    readonly address: string,
    readonly number: number,
    private readonly arrived: (stream: Stream, frame: Uint8Array, drain: Drain | undefined) => void,
    private readonly written: (stream: Stream) => void,
    private readonly beat: (stream: Stream) => void,
  ) {
    this.connection = openConnection(address);
  }

  /** Says Hello and waits for Welcome. Throws ConnectError or StreamLost. */
  async open(hello: Iterable<ConnectRequest>): Promise<{ welcome: Welcome; frame: Uint8Array }> {
    this.pulse.beat();
    for (const frame of hello) this.#outbox.put(toBinary(ConnectRequestSchema, frame));
    const late = setTimeout(
      () => this.#abort.abort(new StreamLost(`no Welcome within ${WELCOME_TIMEOUT_MS / 1000} s`)),
      WELCOME_TIMEOUT_MS,
    );
    try {
      const { signal } = this.#abort;
      const { transport } = this.connection;
      const response = await transport.stream(CONNECT, signal, undefined, undefined, this.#requests());
      this.#responses = response.message[Symbol.asyncIterator]();
      const first = await this.#responses.next();
      if (first.done === true || fieldOf(first.value) !== WELCOME_FIELD) {
        throw new StreamLost("the stream ended before Welcome");
      }
      const frame = toBinary(EmptySchema, first.value);
      const welcome = opened(frame) as Welcome;
      this.epoch = welcome.epoch;
      this.leaseMs = welcome.leaseMs;
      this.heartbeatMs = Math.max(welcome.heartbeatMs, 20);
      this.pulse.trust(LEASE_SHARE * welcome.leaseMs);
      this.#stayAwake();
      this.heardAt = performance.now();
      return { welcome, frame };
    } catch (error) {
      throw this.#abort.signal.aborted ? this.#abort.signal.reason : error;
    } finally {
      clearTimeout(late);
    }
  }

  /** Reads and writes until the stream ends. Throws what ended it, unless that was Goodbye. */
  async serve(digest: Digest): Promise<void> {
    this.#digest = digest;
    const watch = this.#watch();
    try {
      for (;;) {
        const next = await this.#responses?.next();
        if (next === undefined || next.done === true) break;
        this.#stayAwake();
        this.heardAt = performance.now();
        const frame = toBinary(EmptySchema, next.value);
        this.arrived(this, frame, fieldOf(next.value) === DRAIN_FIELD ? (opened(frame) as Drain) : undefined);
      }
    } catch (error) {
      if (!this.#leaving) throw this.#abort.signal.aborted ? this.#abort.signal.reason : error;
    } finally {
      clearInterval(watch);
    }
    if (!this.#leaving) throw new StreamLost("the server ended the stream");
  }

  /** Sends frames in order, then has `digest` for heartbeats; `beat`: one of them follows. */
  send(frames: readonly Uint8Array[], digest: Digest, beat: boolean): void {
    for (const frame of frames) this.#outbox.put(frame);
    this.#outbox.put(() => {
      this.#digest = digest;
      this.written(this);
    });
    if (beat) this.#outbox.put(() => this.#outbox.first(this.#heartbeat()));
  }

  /** A heartbeat with what is known here: the other thread does not answer. */
  beatAlone(): void {
    this.#outbox.put(this.#heartbeat());
  }

  sendFrame(frame: ConnectRequest): void {
    this.#outbox.put(toBinary(ConnectRequestSchema, frame));
  }

  /** Says Goodbye; the server ends the stream. */
  leave(): void {
    this.#leaving = true;
    this.sendFrame(create(ConnectRequestSchema, { frame: { case: "goodbye", value: { reason: "the worker stops" } } }));
    this.#outbox.end();
    setTimeout(() => this.close(), LEAVE_TIMEOUT_MS).unref();
  }

  /** Ends the call without a word: the session goes on elsewhere, or was left by Goodbye. */
  close(reason = new StreamLost("the call was broken off here")): void {
    this.#outbox.end();
    this.#abort.abort(reason);
    this.connection.close();
  }

  #stayAwake(): void {
    if (this.pulse.overslept) throw new StreamLost("this process stood still for most of a lease");
  }

  #heartbeat(): Uint8Array {
    const { residents, hash, framesRead } = this.#digest;
    const value = { epoch: this.epoch, residents, residentHash: hash, framesRead: BigInt(framesRead) };
    return toBinary(ConnectRequestSchema, create(ConnectRequestSchema, { frame: { case: "heartbeat", value } }));
  }

  async *#requests(): AsyncGenerator<Empty> {
    for await (const frame of this.#outbox) yield fromBinary(EmptySchema, frame);
  }

  /** Makes a heartbeat due on the interval, and gives up a stream that fell silent. */
  #watch(): NodeJS.Timeout {
    // The server sends something each heartbeat; silence for less than half a lease leaves time to take up the session on
    // another connection.
    const quietMs = Math.max(3 * this.heartbeatMs, 0.4 * this.leaseMs);
    return setInterval(() => {
      if (this.pulse.overslept) {
        this.close(new StreamLost("this process stood still for most of a lease"));
        return;
      }
      // After a short freeze of our own, what has arrived meanwhile is read first.
      const late = this.pulse.beat() > 2 * this.heartbeatMs;
      this.beat(this);
      const now = performance.now();
      const silentMs = now - this.heardAt;
      if (!late && silentMs > quietMs) {
        this.close(new StreamLost(`nothing heard from the server for ${(silentMs / 1000).toFixed(1)} s`));
      }
    }, this.heartbeatMs);
  }
}

function opened(frame: Uint8Array): Welcome | Drain | Work | undefined {
  return fromBinary(ConnectResponseSchema, frame).frame.value;
}

function fieldOf(message: Empty): number | undefined {
  return message.$unknown?.[0]?.no;
}

/** Frames to write, and what to do between them; one reader takes them in order. */
class Outbox implements AsyncIterable<Uint8Array> {
  #entries: (Uint8Array | (() => void))[] = [];
  #ended = false;
  #wake: (() => void) | undefined;

  put(entry: Uint8Array | (() => void)): void {
    this.#entries.push(entry);
    this.#wake?.();
  }

  /** Puts a frame before all others. */
  first(frame: Uint8Array): void {
    this.#entries.unshift(frame);
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      for (let entry = this.#entries.shift(); entry !== undefined; entry = this.#entries.shift()) {
        if (typeof entry === "function") entry();
        else yield entry;
      }
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}

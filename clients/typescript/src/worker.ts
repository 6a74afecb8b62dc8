// A worker process: serves an app's functions until it is told to stop, then drains.

import { toBinary } from "@bufbuild/protobuf";
import inspector from "node:inspector";
import { MessageChannel, Worker as Thread } from "node:worker_threads";
import { type ApiError, errorOf } from "./api_errors.js";
import { Deferred } from "./deferred.js";
import { deploymentId } from "./deployment.js";
import { LimitError } from "./errors.js";
import { type Decision, pack } from "./frames.js";
import type { App } from "./function.js";
import { Host } from "./host.js";
import type { IoData } from "./io.js";
import { type Digest, EXECUTING, type FromIo, type ToIo } from "./news.js";
import { guardRejections } from "./rejections.js";
import { type WorkerOptions, type WorkerSettings, resolveWorker } from "./settings.js";
import { SDK_VERSION } from "./version.js";
import { FunctionSpecSchema } from "./v1/function_pb.js";
import { ConnectRequestSchema } from "./v1/step_pb.js";

/** What Hello may hold in all is a little more. */
const REGISTRATION_BYTES = 4_000_000;
const LEAVE_MS = 2000;
const UNWIND_MS = 1000;
/** Batches that the I/O thread may hold unwritten; what comes meanwhile is packed into fewer frames. */
const BATCHES_MAX = 2;

/** The hosts of this process. The I/O threads ask what they execute when the event loop is blocked. */
const hosts = new Set<Host>();
Object.assign(globalThis, {
  [Symbol.for(EXECUTING)]: () =>
    Array.from(hosts, (host) => host.executing())
      .flat()
      .slice(0, 5)
      .join(", "),
});

/** One session with a server. It begins when it is made; `await using` drains it at the end of the block. */
export class Worker implements AsyncDisposable {
  /** Resolves when the server has welcomed the worker for the first time; rejects if it refuses the registration. */
  readonly connected: Promise<void>;
  /** Resolves when the worker has left. Rejects with ApiError if the server refuses the registration. */
  readonly ended: Promise<void>;
  readonly #settings: WorkerSettings;
  readonly #host: Host;
  readonly #port: MessageChannel["port1"];
  readonly #stopped = new Deferred<void>();
  readonly #halted = new Deferred<void>();
  readonly #idle = new Deferred<void>();
  readonly #opened = new Deferred<void>();
  readonly #left = new Deferred<void>();
  #pending: Decision[] = [];
  #unwritten = 0;
  #stopping = false;

  constructor(app: App, options: WorkerOptions = {}) {
    this.#settings = resolveWorker(options);
    this.#host = new Host(app, {
      maxParked: this.#settings.maxParked,
      log: this.#settings.log,
      tracer: this.#settings.tracer,
      send: (decisions) => this.#send(decisions),
      idle: () => this.#idle.resolve(),
    });
    this.#port = this.#start(app);
    this.connected = this.#opened.promise;
    this.ended = this.#serve();
    this.ended.catch(() => undefined);
  }

  /** Takes no new work, lets executing bodies finish for as long as `drain` says, gives everything back, and leaves. */
  stop(): Promise<void> {
    this.#stopping = true;
    this.#stopped.resolve();
    return this.ended;
  }

  /** Leaves at once: executing bodies are interrupted. */
  halt(): Promise<void> {
    this.#halted.resolve();
    return this.stop();
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #start(app: App): MessageChannel["port1"] {
    const { address, environment, deployment, instance, capacity, labels, log } = this.#settings;
    const functions = app.specs();
    const bytes = functions.reduce((sum, one) => sum + toBinary(FunctionSpecSchema, one).byteLength, 0);
    if (bytes > REGISTRATION_BYTES) {
      throw new LimitError(`app ${app.name} registers ${bytes} bytes, more than ${REGISTRATION_BYTES}: split the app`);
    }
    const worker = {
      environment,
      app: app.name,
      deployment: deployment || app.deployment || deploymentId(app),
      instance,
      sdkVersion: SDK_VERSION,
      functions,
      labels,
    };
    const { port1, port2 } = new MessageChannel();
    const workerData: IoData = { port: port2, options: { address, worker, capacity } };
    const thread = new Thread(new URL("./io.js", import.meta.url), {
      workerData,
      transferList: [port2],
      name: "stepwell-io",
    });
    thread.on("error", (error) => this.#left.reject(error));
    port1.on("message", (message: FromIo) => this.#heard(message));
    log.info(`${app.name}: ${functions.length} functions, deployment ${worker.deployment}`);
    return port1;
  }

  async #serve(): Promise<void> {
    const release = guardRejections();
    hosts.add(this.#host);
    try {
      const stopped = await Promise.race([
        this.#stopped.promise.then(() => true),
        this.#left.promise.then(() => false),
      ]);
      if (stopped) await this.#drain();
    } catch (error) {
      this.#opened.reject(error);
      throw error;
    } finally {
      this.#host.evictAll();
      await this.#leave();
      this.#opened.reject(new Error("the worker has left before it was connected"));
      hosts.delete(this.#host);
      release();
    }
  }

  async #drain(): Promise<void> {
    const { log, drainMs } = this.#settings;
    const { residents, bodies } = this.#host;
    log.info(`draining: ${residents.size} runs here, ${bodies.executing} bodies execute`);
    this.#tell({ kind: "capacity", capacity: 0 });
    this.#host.drain();
    const idle = this.#idle.promise.then(() => true);
    const done = await Promise.race([idle, this.#halted.promise, this.#left.promise, pause(drainMs)]);
    if (done !== true) {
      log.warn(`leaving while ${bodies.executing} bodies execute: they are interrupted and will run again`);
    }
  }

  /** After interrupted bodies have had a moment to end, so that none runs beside its repetition. */
  async #leave(): Promise<void> {
    const until = performance.now() + UNWIND_MS;
    while (this.#host.bodies.executing > 0 && performance.now() < until) await pause(10);
    this.#tell({ kind: this.#host.stream === 0 ? "abort" : "goodbye" });
    const left = this.#left.promise.then(
      () => true,
      () => true,
    );
    if ((await Promise.race([left, pause(LEAVE_MS)])) !== true) this.#tell({ kind: "abort" });
    this.#port.close();
  }

  // --- the other thread ---

  #heard(message: FromIo): void {
    switch (message.kind) {
      case "list":
        this.#tell({ kind: "residents", listed: this.#host.listing() });
        return;
      case "beat":
        this.#host.flush();
        this.#write(true);
        return;
      case "written":
        if (message.stream !== this.#host.stream) return;
        this.#unwritten -= 1;
        if (this.#pending.length > 0) this.#write(false);
        return;
      case "ping":
        this.#tell({ kind: "pong", debugged: inspector.url() !== undefined });
        return;
      case "log":
        this.#settings.log[message.level](message.message);
        return;
      case "ended":
        if (message.refusal === undefined) this.#left.resolve();
        else this.#left.reject(refused(message.refusal));
        return;
      case "opened":
        this.#pending = [];
        this.#unwritten = 0;
        this.#host.apply(message);
        this.#opened.resolve();
        return;
      case "lapsed":
        this.#pending = [];
        this.#host.apply(message);
        return;
      default:
        this.#host.apply(message);
    }
  }

  #send(decisions: readonly Decision[]): void {
    if (decisions.length === 0) return;
    this.#pending.push(...decisions);
    if (this.#unwritten < BATCHES_MAX) this.#write(false);
  }

  #write(beat: boolean): void {
    const frames = Array.from(pack(this.#pending, this.#host.epoch), (frame) => toBinary(ConnectRequestSchema, frame));
    this.#pending = [];
    this.#unwritten += 1;
    const { stream } = this.#host;
    const digest: Digest = this.#host.digest();
    this.#tell(
      { kind: "send", stream, frames, digest, beat },
      frames.map((frame) => frame.buffer),
    );
  }

  #tell(message: ToIo, transfer: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transfer);
  }
}

function refused({ code, said, ...details }: Extract<FromIo, { kind: "ended" }>["refusal"] & object): ApiError {
  return errorOf(code, said, details);
}

function pause(ms: number): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms, undefined).unref();
  });
}

/** Serves an app's functions until SIGTERM or SIGINT, then drains; a second signal leaves at once. See App.run. */
export async function run(app: App, options: WorkerOptions): Promise<void> {
  const worker = new Worker(app, options);
  const release = guardRejections(resolveWorker(options).log);
  const react = () => void (worker.stopping ? worker.halt() : worker.stop()).catch(() => undefined);
  process.on("SIGTERM", react).on("SIGINT", react);
  try {
    await worker.ended;
  } finally {
    process.off("SIGTERM", react).off("SIGINT", react);
    release();
  }
}

// A scripted server for tests of the worker: real gRPC, speaks StepService, acknowledges what it is told.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { type Http2Server, type ServerHttp2Session, createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { encode } from "../../src/codec.js";
import type { Command } from "../../src/outbox.js";
import {
  type AssignSchema,
  type Commands,
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  type Heartbeat,
  type Hello,
  StepService,
  type Welcome,
  WelcomeSchema,
  type WorkSchema,
} from "../../src/v1/step_pb.js";
import { Queue } from "./queue.js";

type WorkInit = MessageInitShape<typeof WorkSchema>;
type AssignFields = Omit<MessageInitShape<typeof AssignSchema>, "event" | "$typeName">;

const LISTS = [
  "results",
  "failures",
  "delivered",
  "abandons",
  "sleeps",
  "waits",
  "invokes",
  "sends",
  "mismatches",
  "completes",
  "fails",
  "cancelled",
  "parks",
  "releases",
] as const;

/** One stream of a worker, as the server sees it. */
export class Link {
  readonly #outbox = new Queue<ConnectResponse | ConnectError | undefined>();
  readonly commands = new Queue<Command>();
  readonly frames = new Queue<Commands>();
  readonly heartbeats = new Queue<Heartbeat>();
  /** Frames that are neither commands nor heartbeats, by their case. */
  readonly others = new Queue<string>();
  sent = 1;

  constructor(
    readonly server: FakeServer,
    readonly hello: Hello,
  ) {}

  /** Sends a frame. */
  send(work: WorkInit): void {
    this.sent += 1;
    this.#outbox.put(create(ConnectResponseSchema, { frame: { case: "work", value: work } }));
  }

  drain(reconnectAfterMs = 0): void {
    this.#outbox.put(create(ConnectResponseSchema, { frame: { case: "drain", value: { reconnectAfterMs } } }));
  }

  /** Ends the stream, with a status if one is given. */
  end(error?: ConnectError): void {
    this.#outbox.put(error);
  }

  /** Assigns a run. */
  assign(runId: string, fn: string, fields: AssignFields = {}, data: unknown = {}): void {
    const event = { id: "evt_1", name: "test/event", data: { data: encode(data, "data") } };
    this.send({ assigns: [{ runId, turn: 1, functionId: `test/${fn}`, event, ...fields }] });
  }

  /** The next command of a kind, for example "Park". */
  async command<N extends (Command["$typeName"] extends `stepwell.v1.${infer K}` ? K : never)>(
    name: N,
  ): Promise<Extract<Command, { $typeName: `stepwell.v1.${N}` }>> {
    const found = await this.commands.find((one) => one.$typeName === `stepwell.v1.${name}`, `command ${name}`);
    return found as Extract<Command, { $typeName: `stepwell.v1.${N}` }>;
  }

  async *serve(requests: AsyncIterator<ConnectRequest>, welcome: Welcome): AsyncGenerator<ConnectResponse> {
    void this.#read(requests).catch(() => this.others.put("broken"));
    yield create(ConnectResponseSchema, { frame: { case: "welcome", value: welcome } });
    for await (const entry of this.#outbox) {
      if (entry === undefined) return;
      if (entry instanceof ConnectError) throw entry;
      yield entry;
    }
  }

  async #read(requests: AsyncIterator<ConnectRequest>): Promise<void> {
    for (;;) {
      const next = await requests.next();
      if (next.done === true) break;
      const { frame } = next.value;
      if (frame.case === "commands") this.#commanded(frame.value);
      else if (frame.case === "heartbeat") this.heartbeats.put(frame.value);
      else {
        this.others.put(frame.case ?? "nothing");
        if (frame.case === "goodbye") this.end();
      }
    }
    this.others.put("closed");
  }

  #commanded(commands: Commands): void {
    this.frames.put(commands);
    const acks = new Map<string, { runId: string; turn: number; number: bigint }>();
    for (const list of LISTS) {
      for (const command of commands[list]) {
        this.commands.put(command);
        const numbers =
          "number" in command ? [command.number] : "keys" in command ? command.keys.map((k) => k.number) : [];
        for (const number of numbers) {
          const before = acks.get(command.runId)?.number ?? 0n;
          const highest = number > before ? number : before;
          acks.set(command.runId, { runId: command.runId, turn: command.turn, number: highest });
        }
      }
    }
    if (this.server.acknowledge && acks.size > 0) this.send({ acks: [...acks.values()] });
  }
}

/** Listens on a free port of 127.0.0.1. */
export class FakeServer implements AsyncDisposable {
  readonly links = new Queue<Link>();
  acknowledge = true;
  /** Hello is answered with this. */
  refusal: ConnectError | undefined;
  readonly welcome: Welcome = create(WelcomeSchema, {
    sessionId: "ses_1",
    epoch: 1n,
    leaseMs: 10_000,
    heartbeatMs: 1000,
  });
  port = 0;
  #http: Http2Server | undefined;
  readonly #sessions = new Set<ServerHttp2Session>();

  static async start(port = 0): Promise<FakeServer> {
    const server = new FakeServer();
    await server.start(port);
    return server;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  async start(port: number): Promise<void> {
    const http = createServer(
      connectNodeAdapter({
        routes: (router) => {
          router.service(StepService, { connect: (requests) => this.#connect(requests) });
        },
      }),
    );
    http.on("session", (session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
    });
    await new Promise<void>((resolve) => http.listen(port, "127.0.0.1", resolve));
    this.port = (http.address() as AddressInfo).port;
    this.#http = http;
  }

  /** Breaks all connections off, as a crash does. */
  breakOff(): void {
    for (const session of this.#sessions) session.destroy();
  }

  async stop(): Promise<void> {
    this.breakOff();
    await new Promise((resolve) => this.#http?.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  link(): Promise<Link> {
    return this.links.get("a stream");
  }

  async *#connect(requests: AsyncIterable<ConnectRequest>): AsyncGenerator<ConnectResponse> {
    const iterator = requests[Symbol.asyncIterator]();
    const hellos: Hello[] = [];
    do {
      const { frame } = ((await iterator.next()) as { value: ConnectRequest }).value;
      if (frame.case !== "hello") throw new ConnectError("Hello is expected", Code.InvalidArgument);
      hellos.push(frame.value);
    } while (hellos.at(-1)?.more === true);
    if (this.refusal !== undefined) throw this.refusal;
    const hello = { ...(hellos[0] as Hello), residents: hellos.flatMap((one) => one.residents) };
    const link = new Link(this, hello);
    this.links.put(link);
    yield* link.serve(iterator, this.welcome);
  }
}
